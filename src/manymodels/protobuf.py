"""The encoding of protobuf, without schemas: messages to fields and back, read without trust."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Wire types.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
#: What is wrong with bytes that cannot be read.
BROKEN = "it is no protobuf, or cut off"


def fields_of(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the number, wire type and content of each field; of a varint, its bytes.

    :raises ValueError: if the bytes are no protobuf.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = read_varint(message, at)
        wire = tag & 7
        if wire == VARINT:
            _, until = read_varint(message, at)
        elif wire == LENGTH:
            size, at = read_varint(message, at)
            until = at + size
        elif wire in (FIXED64, FIXED32):
            until = at + (8 if wire == FIXED64 else 4)
        else:
            raise ValueError(BROKEN)
        if until > end:
            raise ValueError(BROKEN)
        yield tag >> 3, wire, message[at:until]
        at = until


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the varint that begins at an offset, and the offset behind it.

    :raises ValueError: if the message ends within it, or it is too long.
    """
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError(BROKEN)


def read_varints(content: bytes) -> npt.NDArray[np.uint64]:
    """Return all varints in some bytes, at once.

    :raises ValueError: if the last is cut off, or one is too long.
    """
    raw = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(raw < 128)
    if ends.size == raw.size:
        return raw.astype(np.uint64)
    if not ends.size or ends[-1] != raw.size - 1:
        raise ValueError(BROKEN)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 10:
        raise ValueError(BROKEN)
    starts = ends - lengths + 1
    shifts = 7 * (np.arange(raw.size) - np.repeat(starts, lengths))
    return np.add.reduceat((raw & 127).astype(np.uint64) << shifts.astype(np.uint64), starts)


def write_field(number: int, content: bytes) -> bytes:
    """Return a field that has a length."""
    return write_varint(number << 3 | LENGTH) + write_varint(len(content)) + content


def write_varint(number: int) -> bytes:
    """Return an integer of up to 64 bits; a negative one takes ten bytes."""
    if 0 <= number < 128:
        return bytes((number,))
    rest = int(number) & (2**64 - 1)
    written = bytearray()
    while rest > 127:
        written.append(rest & 127 | 128)
        rest >>= 7
    written.append(rest)
    return bytes(written)

"""RecordIO bodies of protobuf records, as SageMaker's built-in algorithms take them, read without trust."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BadInput, UnsupportedAccept
from .matrices import MAX_WIDTH, scipy_sparse
from .protobuf import (
    BROKEN,
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    fields_of,
    read_varint,
    read_varints,
    write_field,
    write_varint,
)

# A frame is this, its length, a record, and zeros up to a multiple of four.
_MAGIC = 0xCED7230A
_FRAME = struct.Struct("<II")
# Fields of the messages Record, an entry of its maps, and a tensor (record.proto of the SageMaker SDK).
_FEATURES, _LABEL = 1, 2
_KEY, _VALUE = 1, 2
_VALUES, _KEYS, _SHAPE = 1, 2, 3
# Fields of the message Value: its tensors, their numbers' dtype and wire type.
_TENSORS = {2: ("<f4", FIXED32), 3: ("<f8", FIXED64), 7: ("<i4", VARINT)}
_NUMBERS = {dtype: number for number, (dtype, _) in _TENSORS.items()}
#: The name of what has no other: rows without column names.
_UNNAMED = "values"
# numpy 1 has 32 with that of the rows.
_MAX_RANK = 31


def decode_records(body: bytes) -> Any:
    """Decode records, each one row: an array of float32, float64 or int32, or a csr_matrix where rows have keys.

    A row is the tensor ``features["values"]``; labels and whatever else a record has are left out. Rows of a
    shape of several dimensions make an array of one more.

    :raises BadInput: also if the rows differ in type or shape, or have other features.
    :raises UnsupportedContentType: if rows have keys and scipy is not installed.
    """
    rows: _Rows | None = None
    for number, record in enumerate(_frames(memoryview(body)), 1):
        try:
            if rows is None:
                kind, fields = _tensor(record)
                rows = _Rows(kind)
                rows.add(kind, fields)
                rows.expect(record)
            elif not rows.add_alike(record):
                rows.add(*_tensor(record))
        except ValueError as error:
            raise BadInput(f"record {number}: {error}") from error
    if rows is None:
        raise BadInput("the body holds no records")
    return rows.joined()


class _Rows:
    """The rows of a body, added up without an object for each: their values, and where there are keys these."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._dtype, self._wire = _TENSORS[kind]
        self._values = bytearray()
        self._keys = bytearray()
        self._ends = array("q", [0])
        self._key_ends = array("q")
        self._shape: tuple[int, ...] | None = None
        self._sparse = False
        #: What the first record has before its values, if it has nothing else.
        self._head = b""
        self._size = 0

    def expect(self, record: memoryview) -> None:
        """Have records like the first one, the only one so far, read as it was: that takes a tenth of the time."""
        content = bytes(self._values)
        plain = write_field(_KEY, _UNNAMED.encode()) + write_field(
            _VALUE, write_field(self._kind, write_field(_VALUES, content))
        )
        if content and self._wire != VARINT and (written := write_field(_FEATURES, plain)) == record:
            self._head, self._size = written[: -len(content)], len(written)

    def add_alike(self, record: memoryview) -> bool:
        """Add a record if it differs from the first in its values alone, and say whether it does."""
        start = len(self._head)
        if alike := len(record) == self._size and record[:start] == self._head:
            self._values += record[start:]
        return alike

    def add(self, kind: int, fields: Mapping[int, tuple[int, bytes]]) -> None:
        """Add the tensor of a record.

        :raises ValueError: if it is none, or unlike those before it.
        """
        if kind != self._kind:
            raise ValueError("its tensor has numbers of another type than those before it")
        values, count = self._numbers(*fields.get(_VALUES, (LENGTH, b"")))
        keys = _integers(*fields.get(_KEYS, (LENGTH, b"")))
        shape = _shape(_integers(*fields.get(_SHAPE, (LENGTH, b""))))
        # A sparse row of nothing but zeros has a shape alone.
        sparse = bool(keys) or (not count and bool(shape))
        if sparse:
            if len(shape) != 1 or not 0 < shape[0] <= MAX_WIDTH:
                raise ValueError(
                    f"a sparse tensor of shape {shape[:_MAX_RANK]} is not taken; send rows, with their width"
                )
        else:
            shape = shape or (count,)
            if not count or len(shape) > _MAX_RANK or math.prod(shape) != count:
                raise ValueError(f"it has {count} values, and the shape {shape[:_MAX_RANK]}")
        if self._shape is None:
            self._shape, self._sparse = shape, sparse
        if (self._shape, self._sparse) != (shape, sparse):
            forms = [
                f"{'sparse' if form else 'dense'} of shape {of}"
                for of, form in ((shape, sparse), (self._shape, self._sparse))
            ]
            raise ValueError(f"it is {forms[0]}, record 1 {forms[1]}; all must be alike")
        self._values += values
        self._keys += keys
        self._key_ends.append(len(self._keys))
        self._ends.append(self._ends[-1] + count)

    def _numbers(self, wire: int, content: bytes) -> tuple[bytes, int]:
        """Return numbers as they are in memory, and how many they are."""
        if wire not in (self._wire, LENGTH):
            raise ValueError("its values are not of their tensor's type")
        if self._wire == VARINT:
            numbers = read_varints(content).view(np.int64)
            if numbers.size and not -(2**31) <= numbers.min() <= numbers.max() < 2**31:
                raise ValueError("it has integers of more than 32 bits")
            return numbers.astype(self._dtype).tobytes(), numbers.size
        count, rest = divmod(len(content), np.dtype(self._dtype).itemsize)
        if rest:
            raise ValueError("its values are cut off")
        return content, count

    def joined(self) -> Any:
        """Return all rows."""
        assert self._shape is not None
        values = np.frombuffer(self._values, self._dtype)
        if not self._sparse:
            return values.reshape(-1, *self._shape)
        ends = np.frombuffer(self._ends, np.int64)
        try:
            keys = read_varints(bytes(self._keys))
        except ValueError as error:
            raise BadInput("the keys of a row are no integers") from error
        counted = np.concatenate(([0], np.cumsum(np.frombuffer(self._keys, np.uint8) < 128)))[self._key_ends]
        if not np.array_equal(counted, ends[1:]):
            raise BadInput(f"record {np.flatnonzero(counted != ends[1:])[0] + 1} has not as many values as keys")
        if keys.size and keys.max() >= self._shape[0]:
            raise BadInput(f"a key is {keys.max()}, and the width of the rows {self._shape[0]}")
        matrix = scipy_sparse().csr_matrix((values, keys.astype(np.int64), ends), shape=(len(ends) - 1, self._shape[0]))
        matrix.sort_indices()
        if not matrix.has_canonical_format:
            raise BadInput("a row names a key twice")
        return matrix


def encode_records(columns: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any]) -> bytes:
    """Write a record for each row, its values as ``label``: by their column's name, or all as ``values``.

    float16 and float32 become float32, other floats float64, integers and booleans int32. A row that is no vector
    has its shape with it.

    :param columns: arrays of one length by name, or one array whose first dimension is that of the rows.
    :raises UnsupportedAccept: if there are no numbers in them, or integers of more than 32 bits.
    """
    named = columns if isinstance(columns, Mapping) else {_UNNAMED: columns}
    parts = [(name.encode(), _writable(np.atleast_1d(values))) for name, values in named.items()]
    frames: list[bytes] = []
    for rows in zip(*(values for _, values in parts), strict=True):
        record = b"".join(
            write_field(_LABEL, write_field(_KEY, name) + write_field(_VALUE, _written(row)))
            for (name, _), row in zip(parts, rows, strict=True)
        )
        frames += (_FRAME.pack(_MAGIC, len(record)), record, bytes(-len(record) % 4))
    return b"".join(frames)


def _writable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f":
        return values.astype("<f4" if size <= 4 else "<f8", copy=False)
    if kind not in "iub":
        raise UnsupportedAccept("the prediction is not of numbers alone; accept application/json")
    if kind != "b" and size >= 4 and values.size and not -(2**31) <= values.min() <= values.max() < 2**31:
        raise UnsupportedAccept("the prediction has integers of more than 32 bits; accept application/json")
    return values.astype("<i4", copy=False)


def _written(row: npt.NDArray[Any]) -> bytes:
    """Return the message Value of a row."""
    content = b"".join(map(write_varint, row.flat)) if row.dtype.kind == "i" else row.tobytes()
    shape = write_field(_SHAPE, b"".join(map(write_varint, row.shape))) if row.ndim > 1 else b""
    return write_field(_NUMBERS[row.dtype.newbyteorder("<").str], write_field(_VALUES, content) + shape)


def _frames(body: memoryview) -> Iterator[memoryview]:
    at = 0
    while at < len(body):
        if len(body) - at < _FRAME.size:
            raise BadInput("the body ends within the head of a record")
        magic, size = _FRAME.unpack_from(body, at)
        if magic != _MAGIC:
            raise BadInput(f"the body is not RecordIO: at byte {at} is no head of a record")
        at += _FRAME.size
        if size > len(body) - at:
            raise BadInput(f"the body ends within a record: {size} bytes are to follow, and {len(body) - at} do")
        yield body[at : at + size]
        at += size + -size % 4


def _tensor(record: memoryview) -> tuple[int, dict[int, tuple[int, bytes]]]:
    """Return the kind of a record's tensor, and its fields; pieces of one field are joined, as they are in protobuf.

    :raises ValueError: if it has none of numbers, or several.
    """
    entries = [content for number, wire, content in fields_of(record) if (number, wire) == (_FEATURES, LENGTH)]
    if len(entries) != 1:
        raise ValueError(f"it has {len(entries)} features; send one, 'values'")
    entry = {number: content for number, _, content in fields_of(entries[0])}
    if bytes(entry.get(_KEY, b"")) != _UNNAMED.encode():
        shown = bytes(entry.get(_KEY, b""))[:40].decode("utf-8", "replace")
        raise ValueError(f"its feature is {shown!r}; send 'values'")
    tensors = [
        (number, content) for number, wire, content in fields_of(entry.get(_VALUE, memoryview(b""))) if wire == LENGTH
    ]
    if len(tensors) != 1 or tensors[0][0] not in _TENSORS:
        raise ValueError("its feature is not one tensor of float32, float64 or int32")
    kind, tensor = tensors[0]
    fields: dict[int, tuple[int, bytes]] = {}
    for number, wire, content in fields_of(tensor):
        before, joined = fields.get(number, (wire, b""))
        if before != wire:
            raise ValueError("its numbers are written in two ways")
        fields[number] = (wire, joined + bytes(content))
    return kind, fields


def _integers(wire: int, content: bytes) -> bytes:
    """Return what are whole varints."""
    if wire not in (VARINT, LENGTH) or (content and content[-1] > 127):
        raise ValueError(BROKEN)
    return content


def _shape(content: bytes) -> tuple[int, ...]:
    if len(content) > 10 * _MAX_RANK:
        raise ValueError(f"its shape has more than {_MAX_RANK} dimensions")
    shape: list[int] = []
    at = 0
    while at < len(content):
        length, at = read_varint(memoryview(content), at)
        shape.append(length)
    return tuple(shape)

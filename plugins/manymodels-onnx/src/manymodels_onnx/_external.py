"""Which other files an ONNX file refers to, read without loading it.

ONNX Runtime follows such references itself, in some versions out of the model's folder or into memory.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Kinds of messages of ONNX's protobuf schema, and which of their fields lead to external data.
_SCHEMA = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
#: Messages within messages; ONNX Runtime takes a hundred.
_DEEPEST = 100


def locations(model: memoryview) -> set[str]:
    """Return the locations of external data.

    :raises ValueError: if the bytes are no protobuf.
    """
    found: set[str] = set()
    waiting = [("model", model, 0)]
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        if kind == "entry":
            entry = dict(_fields(message))
            if entry.get(1, b"") == b"location":
                found.add(bytes(entry.get(2, b"")).decode())
            continue
        known = _SCHEMA[kind]
        waiting.extend((known[number], content, depth + 1) for number, content in _fields(message) if number in known)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the fields that have a length, by number."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(message, at)
        elif wire == 2:
            size, at = _varint(message, at)
            if size > end - at:
                raise ValueError("it is cut off")
            yield number, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it is no protobuf")
    if at != end:
        raise ValueError("it is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("it is cut off")

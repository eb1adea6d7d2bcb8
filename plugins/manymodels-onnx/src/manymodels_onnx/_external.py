"""Which other files an ONNX file refers to, read without loading it.

ONNX Runtime follows such references itself, in some versions out of the model's folder or into memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from manymodels.protobuf import LENGTH, fields_of

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
            entry = dict(_contents(message))
            if entry.get(1, b"") == b"location":
                found.add(bytes(entry.get(2, b"")).decode())
            continue
        known = _SCHEMA[kind]
        waiting.extend((known[number], content, depth + 1) for number, content in _contents(message) if number in known)
    return found


def _contents(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the fields that have a length, by number; one of another type under the number is not the same field."""
    return ((number, content) for number, wire, content in fields_of(message) if wire == LENGTH)

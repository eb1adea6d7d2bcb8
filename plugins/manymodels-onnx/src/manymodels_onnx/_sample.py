"""A small model in ONNX's format, written without its library, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manymodels import Golden, codecs
from manymodels.protobuf import VARINT, write_field, write_varint

# Field numbers, types and operators are those of onnx.proto and of the operator set 13.
_TYPES = {"float32": 1, "int64": 7, "object": 8, "float64": 11}
_INT, _FLOATS, _INTS, _STRINGS = 2, 6, 7, 8


def message(*fields: tuple[int, bytes | str | int]) -> bytes:
    """Write a protobuf message."""
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return write_varint(number << 3 | VARINT) + write_varint(value)
    return write_field(number, value.encode() if isinstance(value, str) else value)


def argument(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """Describe an input or output; a dimension that is a name is open."""
    dims = [(1, message((1, size) if isinstance(size, int) else (2, size))) for size in shape]
    return message((1, name), (2, message((1, message((1, _TYPES[dtype]), (2, message(*dims)))))))


def tensor(name: str, array: Any) -> bytes:
    """Write an array."""
    dims = [(1, size) for size in array.shape]
    return message(*dims, (2, _TYPES[array.dtype.name]), (8, name), (9, array.tobytes()))


def node(operator: str, inputs: Sequence[str], output: str, *attributes: bytes, domain: str = "") -> bytes:
    """Describe an operation."""
    given, settings = [(1, name) for name in inputs], [(5, one) for one in attributes]
    return message(*given, (2, output), (4, operator), *settings, (7, domain))


def model(nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], *tensors: bytes) -> bytes:
    """Write a model."""
    parts: list[tuple[int, bytes | str | int]] = [(1, one) for one in nodes]
    parts += [(2, "g"), *((5, one) for one in tensors)]
    graph = message(*parts, *((11, one) for one in inputs), *((12, one) for one in outputs))
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 13))), (8, message((1, "ai.onnx.ml"), (2, 3))))


def write(path: Path) -> list[Golden]:
    """Write a logistic regression as ``model.onnx``."""
    weights = np.array([[0.5], [-0.25], [2.0]], np.float32)
    nodes = [node("MatMul", ["rows", "weights"], "margin"), node("Sigmoid", ["margin"], "probability")]
    inputs, outputs = [argument("rows", "float32", ["n", 3])], [argument("probability", "float32", ["n", 1])]
    (path / "model.onnx").write_bytes(model(nodes, inputs, outputs, tensor("weights", weights)))

    rows = np.array([[1.0, 2.0, 0.0], [0.5, -1.0, 1.0]], np.float32)
    answer = 1 / (1 + np.exp(-(rows @ weights)))
    body = json.dumps(rows.tolist()).encode()
    bodies = [
        (body, "application/json"),
        (b'{"instances": %b}' % body, "application/json"),
        (b'{"inputs": {"rows": %b}}' % body, "application/json"),
        (b"\n".join(json.dumps(row).encode() for row in rows.tolist()), "application/jsonlines"),
        codecs.encode(rows, "text/csv"),
        codecs.encode(rows, "application/x-npy"),
    ]
    goldens = [Golden(body=one, content_type=kind, answer=_json(answer), tolerance=1e-6) for one, kind in bodies]
    for accept in ("application/jsonlines", "text/csv", "application/x-npy"):
        wanted, kind = codecs.encode(answer, accept)
        goldens.append(Golden(body=body, accept=accept, answer=wanted, answer_content_type=kind, tolerance=1e-6))
    return goldens


def _json(answer: Any) -> bytes:
    return codecs.encode(answer, "application/json")[0]

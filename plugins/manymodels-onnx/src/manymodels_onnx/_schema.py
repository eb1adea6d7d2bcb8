"""What an ONNX model says of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from manymodels import Field, Schema

from ._model import DTYPES, OnnxModel

_TYPES: dict[str, Any] = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "O": "string"}


def tell(model: OnnxModel) -> Schema:
    """Return the inputs, as columns where rows may be sent for them, and the outputs that are answered."""
    columns = all(one.is_column for one in model.inputs)
    inputs = tuple(
        Field(name=one.name, type=_TYPES[one.dtype.kind], shape=None if columns else _shape(one.shape))
        for one in model.inputs
    )
    offered = {output.name: output for output in model.session.get_outputs()}
    return Schema(inputs=inputs, outputs=tuple(_output(offered[name]) for name in model.outputs))


def _output(output: Any) -> Field:
    """Describe an output; what is no tensor, such as scikit-learn's maps of probabilities, by its name alone."""
    if not output.type.startswith("tensor("):
        return Field(name=output.name)
    dtype = DTYPES.get(output.type.removeprefix("tensor(").removesuffix(")"))
    kind = None if dtype is None else _TYPES[np.dtype(dtype).kind]
    # ONNX Runtime has no dimensions of one whose rank is not known.
    return Field(name=output.name, type=kind, shape=_shape(output.shape) or None)


def _shape(sizes: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in sizes)

"""What a CatBoost model knows of its columns and its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from manymodels import Field, Schema

if TYPE_CHECKING:
    from ._model import CatBoostModel
    from ._rows import Columns

#: Classes above which they are not listed.
_MOST_CLASSES = 100
#: Losses of classifiers whose rows have several labels at once.
_SEVERAL = ("MultiLogloss", "MultiCrossEntropy")
_TYPES: dict[str, Any] = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "O": "string", "U": "string"}


def tell(model: CatBoostModel) -> Schema:
    """Return the columns by name, or else how many there are; and the classes, or how many numbers a row gets."""
    return Schema(inputs=_inputs(model.columns), outputs=(_output(model),))


def _inputs(columns: Columns) -> tuple[Field, ...]:
    # A category is text or a whole number.
    types: list[Any] = [
        "string" if index in columns.texts else None if index in columns.categories else "number"
        for index in range(columns.width)
    ]
    if columns.names is None:
        return (Field(type=types[0] if len(set(types)) == 1 else None, shape=(-1, columns.width)),)
    return tuple(Field(name=name, type=kind) for name, kind in zip(columns.names, types, strict=True))


def _output(model: CatBoostModel) -> Field:
    classes, values = np.asarray(model.model.classes_), np.size(model.model.get_scale_and_bias()[1])
    if model.prediction_type == "Class":
        if str(model.model.get_all_params().get("loss_function", "")).startswith(_SEVERAL):
            return Field(type="integer", shape=(-1, len(classes)))
        listed = tuple(classes.tolist()) if len(classes) <= _MOST_CLASSES else ()
        return Field(type=_TYPES[classes.dtype.kind], values=listed)
    if model.prediction_type.endswith("Probability"):
        return Field(type="number", shape=(-1, len(classes)))
    if values == 1:
        return Field(type="number")
    # Of several values CatBoost raises one.
    return Field(type="number", shape=(-1, 1 if model.prediction_type == "Exponent" else values))

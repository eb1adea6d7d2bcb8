"""What a LightGBM model knows of its features and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manymodels import Field, Schema

if TYPE_CHECKING:
    from ._model import LightGBMModel

#: Values above which they are not listed.
_MOST = 100
_TYPES: dict[type, Any] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def tell(model: LightGBMModel) -> Schema:
    """Return the features by name, or else how many there are; and the classes, or that it is numbers."""
    return Schema(inputs=_inputs(model), outputs=(_output(model),))


def _inputs(model: LightGBMModel) -> tuple[Field, ...]:
    if model.feature_names is None:
        return (Field(type=None if model.categories else "number", shape=(-1, model.num_features)),)
    return tuple(
        _one_of(model.categories[index].values, name) if index in model.categories else Field(name=name, type="number")
        for index, name in enumerate(model.feature_names)
    )


def _output(model: LightGBMModel) -> Field:
    if model.classes is not None:
        return _one_of(model.classes.tolist())
    width = model.booster.num_model_per_iteration()
    return Field(type="number", shape=(-1, width) if width > 1 else None)


def _one_of(values: Sequence[Any], name: str = "") -> Field:
    kinds = {type(value) for value in values}
    kind = _TYPES.get(kinds.pop()) if len(kinds) == 1 else None
    return Field(name=name, type=kind, values=tuple(values) if kind is not None and len(values) <= _MOST else ())

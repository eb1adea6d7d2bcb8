"""What an XGBoost model knows of its features and its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manymodels import Field, Schema

if TYPE_CHECKING:
    from ._model import XGBoostModel

#: Of XGBoost's feature types: a categorical feature comes as the number of its category, an indicator as 0 or 1.
_WHOLE = ("int", "i", "c")
#: Keys of the selected output whose values are single ones.
_SINGLE: dict[str, Any] = {"predicted_label": "integer", "probability": "number", "raw_score": "number"}
_SINGLE["predicted_score"] = "number"


def tell(model: XGBoostModel) -> Schema:
    """Return the features by name, or else how many there are; and what a row is answered with."""
    return Schema(inputs=_inputs(model), outputs=_outputs(model))


def _inputs(model: XGBoostModel) -> tuple[Field, ...]:
    if model.feature_names is None:
        return (Field(type="number", shape=(-1, model.num_features)),)
    kinds = model.booster.feature_types or ["float"] * len(model.feature_names)
    return tuple(
        Field(name=name, type="integer" if kind in _WHOLE else "number")
        for name, kind in zip(model.feature_names, kinds, strict=True)
    )


def _outputs(model: XGBoostModel) -> tuple[Field, ...]:
    if model.output:
        return tuple(Field(name=key, type=_SINGLE.get(key)) for key in model.output)
    if model.objective == "several targets":
        return ()
    if hasattr(model.wrapper, "n_classes_") or model.objective == "multi:softmax":
        classes = model.num_class or 2
        return (Field(type="integer", values=tuple(range(classes))),)
    if model.num_class > 1:
        return (Field(type="number", shape=(-1, model.num_class)),)
    return (Field(type="number"),)

"""What an estimator knows of its columns and its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from manymodels import Field, Schema

if TYPE_CHECKING:
    from ._model import SklearnModel

#: Classes above which they are not listed.
_MOST_CLASSES = 100
_TYPES: dict[str, Any] = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "string"}


def tell(model: SklearnModel) -> Schema:
    """Return the columns by name, or else how many there are; and the classes, or that it is numbers."""
    return Schema(inputs=_inputs(model), outputs=_outputs(model.estimator))


def _inputs(model: SklearnModel) -> tuple[Field, ...]:
    kind: Any = "number" if model.numeric else None
    if model.feature_names is not None:
        return tuple(Field(name=name, type=kind) for name in model.feature_names)
    if model.takes_documents:
        return (Field(type="string", shape=(-1,)),)
    return () if model.width is None else (Field(type=kind, shape=(-1, model.width)),)


def _outputs(estimator: Any) -> tuple[Field, ...]:
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        from sklearn.base import is_regressor

        # How many numbers a row gets, only some say.
        return (Field(type="number"),) if is_regressor(estimator) and getattr(estimator, "n_outputs_", 1) == 1 else ()
    classes = np.asarray(classes)
    if classes.ndim != 1:
        return ()  # several labels at once
    values = classes.tolist()
    if classes.dtype == object and all(isinstance(value, str) for value in values):
        classes = classes.astype(np.str_)
    known = _TYPES.get(classes.dtype.kind)
    return (Field(type=known, values=tuple(values) if known is not None and len(values) <= _MOST_CLASSES else ()),)

"""Bodies to what the model was trained on: shape, dtype, column order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from manymodels import codecs
from manymodels.errors import BadInput

if TYPE_CHECKING:
    from ._model import SklearnModel


@dataclass(frozen=True)
class Detailed:
    """Input that came as ``{"features": ...}`` and is answered with probabilities and metadata."""

    table: Any


def read(body: bytes, content_type: str | None, model: SklearnModel) -> Any:
    """Return the rows of a body: a 2-D array, CSR matrix or 1-D array of texts, maybe `Detailed`."""
    value = codecs.decode(body, content_type, names=model.feature_names, texts=model.texts)
    if isinstance(value, dict):
        if "features" not in value:
            raise BadInput(f'send a list of rows or {{"features": [...]}}, not an object of {_shown(list(value))}')
        return Detailed(prepare(codecs.features(value), model))
    return prepare(value, model)


def prepare(value: Any, model: SklearnModel) -> Any:
    """Bring decoded data into the form the model takes.

    Numbers become float64, so that requests can be joined. A flat list is one row, or a column
    where the model takes a single feature.

    :raises BadInput: for another number of columns, unknown or missing names, no rows.
    """
    if hasattr(value, "tocsr"):
        return _sparse(value.tocsr(), model)
    names = None
    if isinstance(value, codecs.Table):
        names, value = value.names, value.rows
    if not isinstance(value, np.ndarray) or not 1 <= value.ndim <= 2:
        raise BadInput("the model takes rows: send a list of lists, one for each row")
    if len(value) == 0:
        raise BadInput("the body holds no rows")
    array = value if value.dtype == object else value.astype(np.float64, copy=False)
    if model.width is None:
        texts = _texts(array)
        if texts is not None:
            return texts
        if model.takes_documents:
            raise BadInput("the model takes texts: send a list of strings")
    if array.ndim == 1:
        array = array.reshape(-1, 1) if model.width == 1 else array.reshape(1, -1)
    if names is not None and model.feature_names is not None:
        array = array[:, _order(names, model.feature_names)]
    if model.width is not None and array.shape[1] != model.width:
        raise BadInput(f"the model expects {model.width} features, got {array.shape[1]}")
    _check_documents(array, model)
    return array


def _check_documents(array: np.ndarray[Any, Any], model: SklearnModel) -> None:
    """Refuse what is no text where words are told, which vectorizers fail over in ways of their own."""
    for place in model.documents:
        for row, cell in enumerate(array[:, place].tolist(), 1):
            if not isinstance(cell, str):
                name = f" {model.feature_names[place][:50]!r}" if model.feature_names is not None else ""
                shown = "nothing" if cell != cell else repr(cell)[:40]
                raise BadInput(f"the model takes text in column {place + 1}{name}, got {shown} in row {row}")


def _texts(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    flat = array.ravel() if array.ndim == 1 or array.shape[1] == 1 else None
    if flat is None or not all(isinstance(value, str) for value in flat):
        return None
    return flat


def _sparse(matrix: Any, model: SklearnModel) -> Any:
    if model.needs_frame or model.takes_documents:
        raise BadInput(f"the model takes {'texts' if model.takes_documents else 'named columns'}, not a sparse matrix")
    rows, width = matrix.shape
    if rows == 0:
        raise BadInput("the body holds no rows")
    matrix = matrix.astype(np.float64, copy=False)
    if model.width is None or width == model.width:
        return matrix
    if width > model.width:
        raise BadInput(f"the model expects {model.width} features, got {width}")
    # libsvm leaves out what is zero, the last columns included.
    return type(matrix)((matrix.data, matrix.indices, matrix.indptr), shape=(rows, model.width))


def _order(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return where in a row each of the wanted columns stands."""
    at = {name: index for index, name in enumerate(names)}
    missing = [name for name in wanted if name not in at]
    unknown = sorted(set(names).difference(wanted))
    if missing or unknown:
        faults = [("missing", missing), ("unknown", unknown)]
        listed = "; ".join(f"{fault}: {_shown(found)}" for fault, found in faults if found)
        raise BadInput(f"the columns are not the model's ({listed})")
    return [at[name] for name in wanted]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(repr(name[:50]) for name in names[:5]) or "nothing") + more

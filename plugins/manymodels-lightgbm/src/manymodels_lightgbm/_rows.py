"""Request bodies to the rows that LightGBM takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manymodels import codecs
from manymodels.errors import BadInput


class Categories:
    """The categories of one column, as pandas had them when the model was trained."""

    def __init__(self, values: Sequence[Any]) -> None:
        """Number the categories in their order."""
        self.values = tuple(values)
        self._by_text = {str(value): float(code) for code, value in enumerate(values)}
        self._by_number = {
            number: float(code) for code, value in enumerate(values) if (number := _number(value)) == number
        }

    def code(self, value: Any) -> float:
        """Return the code of a category, NaN for one the model was not trained with, as LightGBM does.

        A number is a category where some are numbers, and otherwise the code itself.
        """
        if isinstance(value, str):
            return self._by_text.get(value, np.nan)
        return self._by_number.get(float(value), np.nan) if self._by_number else float(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def decode(
    body: bytes,
    content_type: str | None,
    names: Sequence[str] | None,
    width: int,
    categories: Mapping[int, Categories],
) -> Any:
    """Decode a body into float64 rows of the given width: a 2-D array, or a csr_matrix for a sparse body.

    :param names: the model's feature names, None if it has none.
    :param categories: those of the columns that pandas numbered, by the column's index.
    :raises BadInput: if the rows are not the model's features.
    """
    value = codecs.features(codecs.decode(body, content_type, names=names))
    if hasattr(value, "tocsr"):
        return _sparse(value, width, categories)
    if isinstance(value, codecs.Table):
        # LightGBM writes the spaces of names as underscores.
        table = codecs.Table(tuple(name.replace(" ", "_") for name in value.names), value.rows)
        value = table.rows if names is None else table.in_order(names)
    elif isinstance(value, dict):
        raise BadInput('the JSON object holds no rows; send [[...], ...], {"instances": ...} or {"features": ...}')
    return _dense(value, width, categories)


def _dense(value: Any, width: int, categories: Mapping[int, Categories]) -> npt.NDArray[np.float64]:
    rows = np.atleast_2d(value)
    if rows.ndim != 2 or rows.shape[1] != width:
        got = rows.shape[1] if rows.ndim == 2 else f"an array of shape {rows.shape}"
        raise BadInput(f"the model expects {width} features, got {got}")
    if not len(rows):
        raise BadInput("the body holds no rows")
    if categories:
        rows = rows.astype(np.float64 if rows.dtype.kind in "biuf" else object)
        for column, known in categories.items():
            rows[:, column] = [known.code(cell) for cell in rows[:, column].tolist()]
    if rows.dtype == object:
        _refuse_text(rows)
    return np.ascontiguousarray(rows, np.float64)


def _refuse_text(rows: npt.NDArray[Any]) -> None:
    for (row, column), cell in np.ndenumerate(rows):
        if isinstance(cell, str):
            raise BadInput(
                f"the model takes a number in column {column + 1}, got {cell[:40]!r} in row {row + 1}; "
                "send categories as their codes"
            )


def _sparse(value: Any, width: int, categories: Mapping[int, Categories]) -> Any:
    """Return CSR rows; what a body does not name is zero, as in LightGBM."""
    rows = value.tocsr()
    if categories:
        raise BadInput("the model takes categories; send JSON or CSV, not a sparse matrix")
    if rows.shape[1] > width:
        raise BadInput(f"the model expects {width} features, got {rows.shape[1]}")
    if not rows.shape[0]:
        raise BadInput("the body holds no rows")
    return type(rows)((rows.data.astype(np.float64), rows.indices, rows.indptr), shape=(rows.shape[0], width))

"""Request bodies to the rows that CatBoost takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from manymodels import codecs
from manymodels.errors import BadInput

#: From here on a whole number beside fractions, and so decoded as float64, may stand for another one.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Columns:
    """The columns of a model."""

    width: int
    #: None where the model was trained without names.
    names: tuple[str, ...] | None
    #: Indices of those that hold categories, and of those that hold texts.
    categories: frozenset[int]
    texts: frozenset[int]


def decode(body: bytes, content_type: str | None, columns: Columns) -> Any:
    """Decode a body into rows: float64, or objects where the model has categories or texts, or a csr_matrix.

    :raises BadInput: if the rows are not the model's columns.
    """
    value = codecs.features(codecs.decode(body, content_type, names=columns.names))
    if hasattr(value, "tocsr"):
        return _sparse(value, columns)
    if isinstance(value, codecs.Table):
        value = value.rows if columns.names is None else value.in_order(columns.names)
    elif isinstance(value, dict):
        raise BadInput('the JSON object holds no rows; send [[...], ...], {"instances": ...} or {"features": ...}')
    rows = np.atleast_2d(value)
    if rows.ndim != 2 or rows.shape[1] != columns.width:
        got = rows.shape[1] if rows.ndim == 2 else f"an array of shape {rows.shape}"
        raise BadInput(f"the model expects {columns.width} features, got {got}")
    if not len(rows):
        raise BadInput("the body holds no rows")
    if not columns.categories and not columns.texts and rows.dtype != object:
        return np.ascontiguousarray(rows, np.float64)
    objects = np.empty(rows.shape, object)
    for index in range(columns.width):
        cells = rows[:, index].tolist()
        objects[:, index] = [_cell(cell, index, columns, row) for row, cell in enumerate(cells, 1)]
    return objects if columns.categories or columns.texts else objects.astype(np.float64)


def _cell(cell: Any, index: int, columns: Columns, row: int) -> Any:
    """Return a number as float, a category as text or int, a text as it is."""
    where = f"in column {index + 1}, got {str(cell)[:40]!r} in row {row}"
    if index in columns.texts:
        if not isinstance(cell, str):
            raise BadInput(f"the model takes text {where}")
        return cell
    if index not in columns.categories:
        if isinstance(cell, str):
            raise BadInput(f"the model takes a number {where}")
        return float(cell)
    if isinstance(cell, float):
        if not cell.is_integer():
            raise BadInput(f"the model takes a category, text or a whole number, {where}")
        if abs(cell) >= _EXACT:
            raise BadInput(
                f"the model takes a category {where}, a number that may have lost digits; send it as text, in JSON"
            )
        return int(cell)
    return cell


def _sparse(value: Any, columns: Columns) -> Any:
    """Return CSR rows; what a body does not name is zero."""
    rows = value.tocsr()
    if columns.categories or columns.texts:
        raise BadInput("the model takes categories or texts; send JSON or CSV, not a sparse matrix")
    if rows.shape[1] > columns.width:
        raise BadInput(f"the model expects {columns.width} features, got {rows.shape[1]}")
    if not rows.shape[0]:
        raise BadInput("the body holds no rows")
    content = rows.data.astype(np.float64), rows.indices, rows.indptr
    return type(rows)(content, shape=(rows.shape[0], columns.width))

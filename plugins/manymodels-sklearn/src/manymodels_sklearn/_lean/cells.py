"""Cells of a request's table: which are numbers, and which no transformer takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

Array = np.ndarray[Any, Any]

#: Types of cells that become float64 the same way wherever it happens.
NUMBERS = frozenset({bool, int, float})


@np.errstate(over="ignore")  # of finite numbers as well, which NumPy would warn of
def _square(flat: Array) -> Any:
    return flat.dot(flat)


def numbers(table: Array) -> Array:
    """Return a table as float64, NaN allowed.

    :raises LeftToOriginal: for text, which scikit-learn may or may not read as numbers, and infinity.
    """
    if table.dtype != np.float64:
        cells = table.ravel().tolist()
        if not NUMBERS.issuperset(map(type, cells)):
            raise LeftToOriginal("text where numbers are expected")
        table = np.array(cells, np.float64).reshape(table.shape)
    # One product says that all is well, three times as fast as np.isinf; NaN and squares beyond float64 take longer.
    flat = table.ravel()
    if not math.isfinite(_square(flat)) and np.isinf(flat).any():
        raise LeftToOriginal("infinity")
    return table


def finite(table: Array) -> Array:
    """Return a table as float64 without NaN.

    :raises LeftToOriginal: for what `numbers` leaves, and NaN.
    """
    if table.dtype == np.float64:
        flat = table.ravel()
        if math.isfinite(_square(flat)):  # as in `numbers`, and of NaN as well
            return table
    table = numbers(table)
    if np.isnan(table).any():
        raise LeftToOriginal("NaN")
    return table


def packed(table: Array) -> Array:
    """Return what `finite` does, row after row in memory, as compiled code takes it."""
    return np.ascontiguousarray(finite(table))


def as_in_frame(block: Array) -> Array:
    """Return columns of a request's DataFrame as scikit-learn's array of them.

    That is of objects if a column holds text, or nothing but NaN, and otherwise float64.
    """
    if block.dtype == object:
        cells = block.ravel().tolist()
        if not NUMBERS.issuperset(map(type, cells)):
            return block
        block = np.array(cells, np.float64).reshape(block.shape)
    flat = block.ravel()
    if not math.isfinite(_square(flat)) and np.isnan(block).all(axis=0).any():
        return block.astype(object)
    return block


def floats(table: Array) -> Array:
    """Return a table of float64 as it is, NaN allowed.

    :raises LeftToOriginal: for objects, which the estimator would keep as they are, and infinity.
    """
    if table.dtype != np.float64:
        raise LeftToOriginal("not all columns are of float64")
    return numbers(table)

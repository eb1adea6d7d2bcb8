"""Rows to compare a lean form with the original by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import Values
from .cells import Array

#: Most rows in which a value is tried among ordinary ones, with one of nothing but those.
_MOST_ROWS = 256
#: Rows drawn by chance.
_DRAWN = 128


def rows(values: Values, prepare: Callable[[Array], Array]) -> tuple[Array, Array] | None:
    """Return a table of rows that meet every value, and one of rows drawn by chance; None if hardly any are taken.

    Rows that `prepare` leaves to the original are left out. The same values give the same rows.
    """
    values = [column or [0.0, 1.0] for column in values]
    chance = np.random.default_rng(0)
    dtype = object if any(isinstance(value, str) for column in values for value in column) else np.float64
    columns = [np.array(column, dtype) for column in values]
    drawn = np.stack([column[chance.integers(len(column), size=_DRAWN)] for column in columns], axis=1)
    most = max(2, _MOST_ROWS // len(columns))
    tried = [
        (place, value)
        for place, column in enumerate(columns)
        for value in column[chance.permutation(len(column))[:most]]
    ][: _MOST_ROWS - 1]
    # The first row is an ordinary one, each further one has one value that is tried.
    singles = np.array([[_ordinary(column) for column in values]] * (1 + len(tried)), dtype)
    for row, (place, value) in zip(singles[1:], tried, strict=True):
        row[place] = value
    each, mixed = _taken(singles, prepare), _taken(drawn, prepare)
    if not len(each) or len(mixed) < 2:
        return None
    return each, mixed


def _taken(table: Array, prepare: Callable[[Array], Array]) -> Array:
    try:
        prepare(table)
    except LeftToOriginal:
        return table[[_is_taken(table[index : index + 1], prepare) for index in range(len(table))]]
    return table


def _is_taken(table: Array, prepare: Callable[[Array], Array]) -> bool:
    try:
        prepare(table)
    except LeftToOriginal:
        return False
    return True


def _ordinary(column: Sequence[Any]) -> Any:
    """Return a value that is neither missing nor far out, as those at the front of a list are."""
    return next((value for value in column if value == value), column[0])

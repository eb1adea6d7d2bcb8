"""Rows to compare a lean form with the original by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import Values
from .cells import Array

#: Most rows in which a value is tried among ordinary ones.
_MOST_ROWS = 256


def rows(values: Values, prepare: Callable[[Array], Array]) -> tuple[Array, Array] | None:
    """Return a table of rows that meet every value, and one of rows drawn by chance; None if hardly any are taken.

    Rows that `prepare` leaves to the original are left out. The same values give the same rows.
    """
    values = [column or [0.0, 1.0] for column in values]
    chance = np.random.default_rng(0)
    drawn = [[column[chance.integers(len(column))] for column in values] for _ in range(_MOST_ROWS)]
    ordinary = [[_ordinary(column) for column in values]]
    objects = any(isinstance(value, str) for column in values for value in column)
    dtype = object if objects else np.float64

    def taken(candidates: Sequence[Sequence[Any]]) -> Array:
        return np.array([row for row in candidates if _is_taken(np.array([row], dtype), prepare)], dtype)

    singles = [
        [value if index == place else other for index, other in enumerate(ordinary[0])]
        for place, column in enumerate(values)
        for value in [column[at] for at in chance.permutation(len(column))[: max(2, _MOST_ROWS // len(values))]]
    ]
    each, mixed = taken([*ordinary, *singles[:_MOST_ROWS]]), taken(drawn)
    if not len(each) or len(mixed) < 2:
        return None
    return each, mixed


def _is_taken(table: Array, prepare: Callable[[Array], Array]) -> bool:
    try:
        prepare(table)
    except LeftToOriginal:
        return False
    return True


def _ordinary(column: Sequence[Any]) -> Any:
    """Return a value that is neither missing nor far out, as those at the front of a list are."""
    return next((value for value in column if value == value), column[0])

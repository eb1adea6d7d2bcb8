"""What a model was trained on: the file in the artifact, what makes it, and what a model says itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np

from manymodels import Artifact, codecs
from manymodels.errors import BadInput

#: The file at the top of an artifact.
RANGES = "training_ranges.json"
_LIMIT = 1 << 20
#: A text column with more is an identifier or prose, and every new value of it would be drift.
_MOST_CATEGORIES = 1000


class InvalidRanges(Exception):
    """Raised where a file of ranges is not valid; says why."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An input of the model: numbers from `low` to `high`, or one of `categories`; with neither it is not watched."""

    name: str
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    #: Share of the training rows that are outside already.
    outside: float = 0.0

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything to be outside of."""
        return self.low is not None or self.categories is not None


class Ranges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All inputs of the model, in its order."""

    columns: tuple[Column, ...]


def read(artifact: Artifact) -> Ranges | None:
    """Return the ranges that an artifact holds, or None.

    :raises InvalidRanges: if the file is not valid.
    """
    if not artifact.match(RANGES):
        return None
    with (artifact.path / RANGES).open("rb") as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise InvalidRanges(f"{RANGES} has more than {_LIMIT} bytes")
    try:
        ranges = msgspec.json.decode(content, type=Ranges)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRanges(f"{RANGES} is not valid: {error}") from error
    names = [column.name for column in ranges.columns]
    if not names or len(set(names)) < len(names):
        raise InvalidRanges(f"{RANGES} names {'a column twice' if names else 'no columns'}")
    for column in ranges.columns:
        if (column.low is None) != (column.high is None) or (column.low is not None and column.categories is not None):
            raise InvalidRanges(f"{RANGES}: column {column.name!r} must have low and high, or categories")
    return ranges


def of_model(model: Any) -> Ranges | None:
    """Return the ranges that a model keeps of its training, as a leading MinMaxScaler does; None for any other."""
    steps = getattr(model, "steps", None)
    first = steps[0][1] if steps else model
    low, high = getattr(first, "data_min_", None), getattr(first, "data_max_", None)
    if not (isinstance(low, np.ndarray) and isinstance(high, np.ndarray) and low.ndim == 1 and low.shape == high.shape):
        return None
    names = getattr(first, "feature_names_in_", range(len(low)))
    columns = zip(names, low.tolist(), high.tolist(), strict=True)
    return Ranges(tuple(Column(str(name), least, most) for name, least, most in columns))


def measured(data: bytes, dropped: Collection[str], quantiles: tuple[float, float]) -> Ranges:
    """Return the ranges of training data.

    :param data: CSV with a header.
    :param dropped: columns that are no inputs.
    :param quantiles: the bounds of numbers.
    :raises BadInput: if it is no such CSV, or lacks a dropped column.
    """
    table = codecs.decode(data, "text/csv; header=present")
    if missing := sorted(set(dropped) - set(table.names)):
        raise BadInput(f"there is no column {', '.join(missing)}; there are {', '.join(table.names)}")
    columns = [
        _column(name, table.rows[:, index], quantiles) for index, name in enumerate(table.names) if name not in dropped
    ]
    if not columns:
        raise BadInput("no column is left")
    return Ranges(tuple(columns))


def written(ranges: Ranges) -> bytes:
    """Return the content of the file."""
    return msgspec.json.format(msgspec.json.encode(ranges), indent=1) + b"\n"


def _column(name: str, cells: Any, quantiles: tuple[float, float]) -> Column:
    values = [cell for cell in cells.tolist() if isinstance(cell, str) or np.isfinite(cell)]
    if not values:
        return Column(name)
    if isinstance(values[0], str):  # of a column all cells are numbers, or all are texts
        found = sorted(set(values))
        return Column(name, categories=tuple(found)) if len(found) <= _MOST_CATEGORIES else Column(name)
    numbers = np.array(values)
    low, high = np.quantile(numbers, quantiles).tolist()
    return Column(name, low, high, outside=float(((numbers < low) | (numbers > high)).mean()))

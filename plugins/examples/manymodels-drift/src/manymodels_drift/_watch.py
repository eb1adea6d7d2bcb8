"""Count the rows of one model that lie outside of its training ranges."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from numbers import Real
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from manymodels import codecs
from manymodels.errors import ManyModelsError

from ._ranges import Column, Ranges

logger = logging.getLogger("manymodels_drift")

#: Seconds between two lines in the log about one model.
_PAUSE = 60.0
#: Columns that a header or a line names, and characters of each name.
_SHOWN = 10
_NAME = 50


class Watch:
    """The ranges of a loaded model, and two numbers for each column: it takes no more memory with time."""

    def __init__(self, target_model: str, ranges: Ranges, clock: Callable[[], float] = time.monotonic) -> None:
        self._target_model = target_model
        self._clock = clock
        self._columns = ranges.columns
        self._names = tuple(column.name for column in ranges.columns)
        self._at = {name: index for index, name in enumerate(self._names)}
        numbers = [index for index, column in enumerate(ranges.columns) if column.low is not None]
        self._numbers = np.array(numbers, dtype=np.intp)
        self._low = np.array([ranges.columns[index].low for index in numbers], dtype=np.float64)
        self._high = np.array([ranges.columns[index].high for index in numbers], dtype=np.float64)
        self._categories = {
            index: frozenset(column.categories)
            for index, column in enumerate(ranges.columns)
            if column.categories is not None
        }
        #: Since the last line in the log: rows seen, and those outside by column.
        self._rows = 0
        self._outside = np.zeros(len(ranges.columns), dtype=np.int64)
        self._next_line = -np.inf
        self._failed = False

    def look(self, data: Any, body: bytes, content_type: str | None) -> str:
        """Count a request; return how many rows are outside in which columns, for a header, or "".

        :param data: what the plugin made of the request; where that is no table, the body is decoded.
        """
        try:
            rows = self._table(data)
            if rows is None:
                rows = self._table(codecs.features(codecs.decode(body, content_type, names=self._names)))
            return "" if rows is None else self._count(rows)
        except ManyModelsError:
            return ""  # no table in this request: the plugin reads what the platform does not
        except Exception:
            if not self._failed:  # whoever sends such requests is not to fill the log
                self._failed = True
                logger.exception("a request to %r cannot be compared with the training data", self._target_model)
            return ""

    def _table(self, data: Any) -> Any:
        """Return rows in the order of the columns; None for what has another shape or is no table."""
        names: tuple[str, ...] | None = None
        if isinstance(data, codecs.Table):
            names, data = data.names, data.rows
        elif hasattr(data, "iloc") and hasattr(data, "columns"):
            names, data = tuple(map(str, data.columns)), data.to_numpy()
        if not isinstance(data, np.ndarray):
            return None
        width = len(self._columns)
        if data.ndim == 1 and len(data) == width and width > 1:
            data = data.reshape(1, -1)  # a flat list is one row
        if data.ndim != 2 or data.shape[1] < width:
            return None
        if names is None or names == self._names:
            return data if data.shape[1] == width else None
        at = {name: index for index, name in enumerate(names)}
        if not self._at.keys() <= at.keys():
            return None
        return data[:, [at[name] for name in self._names]]

    def _count(self, rows: npt.NDArray[Any]) -> str:
        outside = np.zeros(len(self._columns), dtype=np.int64)
        if len(self._numbers):
            values = rows[:, self._numbers]
            if values.dtype.kind not in "fiub":
                values = np.array([[_number(cell) for cell in row] for row in values.tolist()])
            # NaN, a missing value, is neither.
            outside[self._numbers] = ((values < self._low) | (values > self._high)).sum(axis=0)
        for index, known in self._categories.items():
            outside[index] = sum(not _is_missing(cell) and _text(cell) not in known for cell in rows[:, index].tolist())
        self._rows += len(rows)
        if not outside.any():
            return ""
        self._outside += outside
        self._say()
        return _listed([f"{quote(name[:_NAME], safe='')}={count}" for name, count in self._named(outside)])

    def _named(self, counts: npt.NDArray[np.int64]) -> list[tuple[str, int]]:
        return [(self._names[index], int(counts[index])) for index in np.flatnonzero(counts)]

    def _say(self) -> None:
        now = self._clock()
        if now < self._next_line:
            return
        told = [
            f"{column.name[:_NAME]!r} {count} outside {_range(column)}"
            for column, count in zip(self._columns, self._outside.tolist(), strict=True)
            if count > _expected(self._rows, column.outside)
        ]
        if told:
            logger.warning("%r drifts: of %d rows, %s", self._target_model, self._rows, _listed(told))
            self._next_line = now + _PAUSE
            self._rows = 0
            self._outside[:] = 0


def _expected(rows: int, share: float) -> float:
    """Return how many rows outside are no news: as many as in training, and three standard deviations."""
    return rows * share + 3 * float(np.sqrt(rows * share * (1 - share))) + (1 if share else 0)


def _range(column: Column) -> str:
    if column.categories is not None:
        return f"{len(column.categories)} categories"
    return f"{column.low:g} to {column.high:g}"


def _listed(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _number(cell: Any) -> float:
    """Return a cell of a column of numbers; what is none lies outside."""
    if isinstance(cell, Real):
        return float(cell)
    return np.nan if cell is None else np.inf


def _is_missing(cell: Any) -> bool:
    return cell is None or cell != cell


def _text(cell: Any) -> str:
    """Return a category as the training data's CSV has it: 1 for 1.0."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)

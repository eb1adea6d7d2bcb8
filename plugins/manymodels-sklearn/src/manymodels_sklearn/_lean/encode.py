"""Encoders of categories and bins."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Source, Transform, Values, transformer
from .cells import NUMBERS, Array, finite

Code = TypeVar("Code")

#: Whole numbers beyond this are not themselves as float64.
_EXACT = 2.0**53
#: Cells of the widest one-hot table that is made: what the original keeps sparse would take the memory.
_MOST_CELLS = 4_000_000
#: Categories of one column that are probed.
_MOST_PROBED = 50


class Codes(dict[Any, Code], Generic[Code]):
    """From the cells of one column to what its encoder makes of them; unknown and missing cells included."""

    def __init__(self, categories: Sequence[Any], codes: Sequence[Code], unknown: Code | None) -> None:
        """Take one code for each category, and one for all others, None if the encoder refuses them."""
        pairs = list(zip(categories, codes, strict=True))
        super().__init__((category, code) for category, code in pairs if not _is_missing(category))
        self.unknown = unknown
        self.missing = next((code for category, code in pairs if category != category), unknown)
        kinds = set(map(type, self))
        self.texts = kinds == {str}
        if not self.texts and not kinds <= NUMBERS:
            raise NotLean("categories are neither all text nor all numbers")
        if not self.texts and any(abs(category) > _EXACT for category in self):
            raise NotLean("categories are numbers too large for float64")

    def __missing__(self, cell: Any) -> Code:
        """Return the code of an unknown or missing cell.

        :raises LeftToOriginal: if the encoder refuses it, or it is of a kind of its own, as a number among text.
        """
        code = self.unknown
        if cell != cell:
            code = self.missing
        elif not (type(cell) is str if self.texts else type(cell) in NUMBERS and abs(cell) <= _EXACT):
            raise LeftToOriginal("a cell is not of the kind of its column's categories")
        if code is None:
            raise LeftToOriginal("unknown category")
        return code


def _is_missing(category: Any) -> bool:
    return category is None or category != category  # None never comes over the wire


def _asked(encoder: Any) -> tuple[list[list[Any]], Any, Any]:
    """Return each column's categories, the encoder's answer to all of them, and its answer to unknown ones.

    A row of the answer has one category of each column, columns with fewer begin anew. The encoder itself is
    asked, so that whatever it drops or joins is as it is. It raises for unknown ones if it refuses them: None.
    """
    categories = [column.tolist() for column in encoder.categories_]
    if any(not column for column in categories):
        raise NotLean("a column has no categories")
    table = np.empty((max(map(len, categories)), len(categories)), object)
    for index, column in enumerate(categories):
        table[:, index] = [column[row % len(column)] for row in range(len(table))]
    strangers = np.empty((1, len(categories)), object)
    strangers[0] = [_stranger(column) for column in categories]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = encoder.transform(table)
        try:
            return categories, known, encoder.transform(strangers)
        except ValueError:
            return categories, known, None


def _stranger(categories: Sequence[Any]) -> Any:
    known = [category for category in categories if not _is_missing(category)]
    if all(isinstance(category, str) for category in known):
        return "?" * (1 + max(map(len, known), default=0))
    return 1.0 + max((float(category) for category in known if not isinstance(category, str)), default=0.0)


def _probed(categories: Sequence[Sequence[Any]]) -> Values:
    """Return for each column its categories, an unknown one, and a missing one."""
    return [
        [*[value for value in column if not _is_missing(value)][:_MOST_PROBED], _stranger(column), math.nan]
        for column in categories
    ]


@transformer("OneHotEncoder")
def _one_hot(encoder: Any, _: Source) -> Transform:
    if np.dtype(encoder.dtype) != np.float64:
        raise NotLean("OneHotEncoder of another dtype than float64")
    sparse = copy.copy(encoder)
    sparse.sparse_output = True
    categories, known, unknown = _asked(sparse)
    bounds = np.cumsum([0, *encoder._n_features_outs]).tolist()
    width = bounds[-1]
    tables: list[Codes[int]] = []
    for index, column in enumerate(categories):
        ones = known[: len(column)].indices, known.indptr
        codes = [_within(ones[0][ones[1][row] : ones[1][row + 1]], bounds, index) for row in range(len(column))]
        other = None if unknown is None else _within(unknown.indices, bounds, index)
        tables.append(Codes(column, codes, other))
    texts = any(codes.texts for codes in tables)

    def apply(table: Array) -> Array:
        if texts and table.dtype != object:  # the original fails to compare them
            raise LeftToOriginal("numbers where text is expected")
        rows = len(table)
        if rows * width > _MOST_CELLS:
            raise LeftToOriginal("too many cells to be made dense")
        starts = range(0, rows * width, width) if width else [0] * rows
        hits = [
            start + code
            for start, row in zip(starts, table.tolist(), strict=True)
            for codes, cell in zip(tables, row, strict=True)
            if (code := codes[cell]) >= 0
        ]
        out = np.zeros(rows * width)
        out[hits] = 1.0
        return out.reshape(rows, width)

    return Transform(apply, width, lambda _: _probed(categories))


def _within(ones: Array, bounds: Sequence[int], column: int) -> int:
    """Return the one that lies in a column's part of the row, -1 if none does."""
    return next((int(one) for one in ones if bounds[column] <= one < bounds[column + 1]), -1)


@transformer("OrdinalEncoder", "TargetEncoder")
def _ordinal(encoder: Any, source: Source) -> Transform:
    if np.dtype(getattr(encoder, "dtype", np.float64)) != np.float64:
        raise NotLean("OrdinalEncoder of another dtype than float64")
    categories, known, unknown = _asked(encoder)
    width = known.shape[1]
    each = width // source.width  # a TargetEncoder gives a number for each of several classes
    outputs = [
        (
            column,
            Codes(
                categories[column],
                known[: len(categories[column]), column * each + part].tolist(),
                None if unknown is None else float(unknown[0, column * each + part]),
            ),
        )
        for column in range(source.width)
        for part in range(each)
    ]
    texts = any(codes.texts for _, codes in outputs)

    def apply(table: Array) -> Array:
        if texts and table.dtype != object:  # the original fails to compare them
            raise LeftToOriginal("numbers where text is expected")
        return np.array([[codes[row[column]] for column, codes in outputs] for row in table.tolist()], np.float64)

    return Transform(apply, width, lambda _: _probed(categories))


@transformer("KBinsDiscretizer")
def _bins(discretizer: Any, source: Source) -> Transform:
    if discretizer.dtype not in (None, np.float64):
        raise NotLean("KBinsDiscretizer of another dtype than float64")
    edges = [np.asarray(column, np.float64) for column in discretizer.bin_edges_]
    most = max(len(column) for column in edges) - 2
    # Edges that lie beyond every number make all columns equally long.
    inner = np.full((source.width, most), np.inf)
    for index, column in enumerate(edges):
        inner[index, : len(column) - 2] = column[1:-1]
    starts = np.cumsum([0, *(len(column) - 1 for column in edges)])
    width = int(starts[-1]) if discretizer.encode != "ordinal" else source.width

    def ordinal(table: Array) -> Array:
        if table.size * most > _MOST_CELLS:
            raise LeftToOriginal("too many edges to be compared at once")
        above: Array = (finite(table)[:, :, None] >= inner).sum(axis=2)
        return above

    def apply(table: Array) -> Array:
        if discretizer.encode == "ordinal":
            return ordinal(table).astype(np.float64)
        rows = len(table)
        if rows * width > _MOST_CELLS:
            raise LeftToOriginal("too many cells to be made dense")
        out = np.zeros((rows, width))
        out[np.arange(rows)[:, None], ordinal(table) + starts[:-1]] = 1.0
        return out

    def values(_: Values) -> Values:
        return [
            [value for edge in column for value in (float(edge), float(np.nextafter(edge, -np.inf)))]
            for column in edges
        ]

    return Transform(apply, width, values)

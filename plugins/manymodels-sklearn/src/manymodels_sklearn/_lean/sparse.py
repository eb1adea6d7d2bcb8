"""Rows that are mostly zeros, such as those of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cells import Array, finite


class SparseRows:
    """The cells of a table that are not zero: of each its row, its column and its value.

    They are in the order of rows, and in each row of columns. Products and sums are added up one by one in that
    order, as scipy does.
    """

    __slots__ = ("columns", "count", "rows", "values")

    def __init__(self, rows: Array, columns: Array, values: Array, count: int) -> None:
        """Take three arrays of the same length, whole numbers, whole numbers and float64.

        :param count: of the table's rows.
        """
        self.rows = rows
        self.columns = columns
        self.values = values
        self.count = count

    def __matmul__(self, weights: Array) -> Array:
        """Return the product with an array of a row for each column: one number, or one for each class, for a row."""
        if weights.ndim == 1:
            return self.sums(weights[self.columns] * self.values)
        width = weights.shape[1]
        shares = weights[self.columns] * self.values[:, np.newaxis]  # `take` would copy weights that are transposed
        cells = self.rows[:, np.newaxis] * width + np.arange(width)
        sums: Array = np.bincount(cells.ravel(), shares.ravel(), width * self.count)
        return sums.reshape(self.count, width)

    def sums(self, values: Array) -> Array:
        """Return the sum of each row, of other values in the place of its own."""
        sums: Array = np.bincount(self.rows, values, self.count)
        return sums

    def having(self, values: Array) -> SparseRows:
        """Return the rows with other values."""
        return SparseRows(self.rows, self.columns, values, self.count)

    def chosen(self, columns: Array) -> SparseRows:
        """Return some of the columns, which are given in their order."""
        places = np.searchsorted(columns, self.columns)
        found = columns.take(places, mode="clip") == self.columns
        return SparseRows(self.rows[found], places[found], self.values[found], self.count)


def as_sparse(table: Array | SparseRows) -> SparseRows:
    """Return a table of numbers as sparse rows.

    :raises LeftToOriginal: as `finite` does.
    """
    if isinstance(table, SparseRows):
        return table
    table = finite(table)
    rows, columns = table.nonzero()
    return SparseRows(rows, columns, table[rows, columns], len(table))


def side_by_side(tables: Sequence[SparseRows], widths: Sequence[int]) -> SparseRows:
    """Return tables of the same rows as a single one."""
    starts = np.cumsum([0, *widths[:-1]])
    rows = np.concatenate([table.rows for table in tables])
    columns = np.concatenate([table.columns + start for table, start in zip(tables, starts, strict=True)])
    values = np.concatenate([table.values for table in tables])
    order = np.argsort(rows, kind="stable")  # the tables come in the order of their columns
    return SparseRows(rows[order], columns[order], values[order], tables[0].count)

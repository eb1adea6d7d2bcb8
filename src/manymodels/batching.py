"""Join invocations that wait at the same time into one predict call, and split its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Batch(Protocol):
    """How invocations of one model are joined and split; what the ``batch`` hook returns."""

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        """Return the joined data and how much of it belongs to each invocation; None if they do not fit together."""

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        """Return each invocation's share of the prediction."""


class RowBatch:
    """Joins tables by their rows: 2-D arrays, CSR matrices and DataFrames of one kind, width and dtype."""

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        """Stack the rows; None if the tables differ in kind, columns or dtype."""
        first = data[0]
        kind = type(first)
        if any(type(table) is not kind for table in data):
            return None
        if kind is np.ndarray:
            if first.ndim != 2 or any(t.dtype != first.dtype or t.shape[1:] != first.shape[1:] for t in data):
                return None
            return np.concatenate(data), [len(table) for table in data]
        if hasattr(first, "tocsr"):
            if any(t.dtype != first.dtype or t.shape[1] != first.shape[1] for t in data):
                return None
            import scipy.sparse

            return scipy.sparse.vstack(data, format="csr"), [t.shape[0] for t in data]
        if hasattr(first, "iloc"):
            if any(not t.columns.equals(first.columns) or not t.dtypes.equals(first.dtypes) for t in data):
                return None
            import pandas

            return pandas.concat(data, ignore_index=True), [len(table) for table in data]
        return None

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        """Cut the prediction by rows.

        :raises ValueError: if it has another number of rows than the joined data, as some models'
            answers (a transposed array, a single value) do; or may be an array for each of several outputs.
        """
        rows = sum(counts)
        if len(prediction) != rows:
            raise ValueError(f"the model answered {len(prediction)} rows to {rows}")
        # Of as many outputs as rows, each has all requests' rows: shares of the list would be other requests' answers.
        if isinstance(prediction, (list, tuple)) and {getattr(one, "shape", ())[:1] for one in prediction} == {(rows,)}:
            raise ValueError(f"the model answered {rows} arrays of {rows} rows, one for each output or each row")
        shares = []
        start = 0
        for count in counts:
            shares.append(prediction[start : start + count])
            start += count
        return shares

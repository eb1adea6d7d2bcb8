"""Join requests to a model that takes any number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from manymodels import RowBatch


class FeedBatch:
    """Joins the arrays of each input by rows, and splits every output alike."""

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        """Stack the rows; None if the requests differ in what is behind them, or one is of unequal inputs."""
        shapes = {name: array.shape[1:] for name, array in data[0].items()}
        counts: list[int] = []
        for feed in data:
            sizes = {len(array) for array in feed.values()}
            if len(sizes) != 1 or any(array.shape[1:] != shapes[name] for name, array in feed.items()):
                return None
            counts += sizes
        return {name: np.concatenate([feed[name] for feed in data]) for name in shapes}, counts

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        """Cut each output by rows.

        :raises ValueError: if one has another number of rows than the joined data.
        """
        if not isinstance(prediction, dict):
            return RowBatch().split(prediction, counts)
        parts = {name: RowBatch().split(value, counts) for name, value in prediction.items()}
        return [{name: parts[name][index] for name in parts} for index in range(len(counts))]

"""DataFrames for models that look columns up by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ._model import SklearnModel


def as_trained(table: Any, model: SklearnModel) -> Any:
    """Return rows as the DataFrame the model was trained on, where it needs one; other data as it is.

    Done only now, so that requests are joined as arrays and make one DataFrame together.
    """
    names = model.feature_names
    if names is None or not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != len(names):
        return table
    numeric = table.dtype.kind in "biuf"
    if numeric and not model.needs_frame:
        return table
    import pandas as pd

    if numeric and not np.isnan(table).all(axis=0).any():
        return pd.DataFrame(table, columns=model.columns)
    numbers = [index for index, values in enumerate(table.T.tolist()) if _all_numbers(values)]
    others = [index for index in range(len(names)) if index not in numbers]
    # Two blocks put together, named by position first: a Series for each column takes four times as long.
    # Text stays objects: the dtype pandas would choose differs by its version.
    blocks = []
    if numbers:
        blocks.append(pd.DataFrame(table[:, numbers].astype(np.float64), columns=numbers))
    if others:
        blocks.append(pd.DataFrame(table[:, others], columns=others, dtype=object))
    frame = pd.concat(blocks, axis=1).reindex(columns=range(len(names)))
    frame.columns = model.columns
    return frame


def _all_numbers(values: list[Any]) -> bool:
    """Return whether a column is one of numbers, some of them at least not missing.

    A column of nothing but NaN may be one of text, where floats break scikit-learn's encoders; where numbers
    are wanted, objects do no harm.
    """
    return not any(isinstance(value, str) for value in values) and any(value == value for value in values)

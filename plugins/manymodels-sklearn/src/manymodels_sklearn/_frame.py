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
        return pd.DataFrame(table, columns=list(names))
    return pd.DataFrame({name: _series(table[:, index]) for index, name in enumerate(names)})


def _series(values: np.ndarray[Any, Any]) -> Any:
    import pandas as pd

    # A column of nothing but NaN may be one of text, where floats break scikit-learn's encoders;
    # where numbers are wanted, objects do no harm.
    numbers = not any(isinstance(value, str) for value in values) and any(value == value for value in values)
    # Text stays objects: the dtype pandas would choose differs by its version.
    return pd.Series(values, dtype=np.float64 if numbers else object)

"""Request bodies to the rows that XGBoost takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manymodels import codecs
from manymodels.errors import BadInput

_JSON_START = re.compile(rb"\s*[\[{]")


def decode(body: bytes, content_type: str | None, names: Sequence[str] | None, width: int) -> Any:
    """Decode a body into float32 rows of the given width: a 2-D array, or a csr_matrix for a sparse body.

    Without a content type a body that starts as JSON does is that, any other is libsvm, as in
    SageMaker's XGBoost container.

    :param names: the model's feature names, None if it has none.
    :raises BadInput: if the rows are not numbers, or not the model's features.
    """
    if not content_type:
        content_type = "application/json" if _JSON_START.match(body) else "text/libsvm"
    value = codecs.features(codecs.decode(body, content_type, names=names))
    if hasattr(value, "tocsr"):
        return _sparse(value, width)
    if isinstance(value, codecs.Table):
        value = value.rows if names is None else value.in_order(names)
    elif isinstance(value, dict):
        raise BadInput('the JSON object holds no rows; send [[...], ...], {"instances": ...} or {"features": ...}')
    return _dense(value, width)


def _dense(value: Any, width: int) -> npt.NDArray[np.float32]:
    rows = np.atleast_2d(value)
    if rows.ndim != 2 or rows.shape[1] != width:
        got = rows.shape[1] if rows.ndim == 2 else f"an array of shape {rows.shape}"
        raise BadInput(f"the model expects {width} features, got {got}")
    if rows.dtype.kind not in "biuf":
        raise BadInput(f"the model takes numbers only, got {_not_a_number(rows)}; send categories as their codes")
    with np.errstate(over="ignore"):  # XGBoost itself turns what float32 cannot hold into infinity
        return rows.astype(np.float32)


def _not_a_number(rows: npt.NDArray[Any]) -> str:
    for index, cell in np.ndenumerate(rows):
        if not isinstance(cell, (int, float)):
            return f"{str(cell)[:40]!r} in row {index[0] + 1}, column {index[1] + 1}"
    return f"an array of dtype {rows.dtype}"


def _sparse(value: Any, width: int) -> Any:
    """Return CSR rows; what a narrower body leaves out is missing, as is every value it does not name."""
    rows = value.tocsr()
    if rows.shape[1] > width:
        raise BadInput(f"the model expects {width} features, got {rows.shape[1]}")
    with np.errstate(over="ignore"):
        data = rows.data.astype(np.float32)
    return type(rows)((data, rows.indices, rows.indptr), shape=(rows.shape[0], width))

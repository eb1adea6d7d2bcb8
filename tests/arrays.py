"""Arrays as bodies, and how they are compared."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import scipy.sparse


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sparse_npz(matrix: Any) -> bytes:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix)
    return stream.getvalue()


def same(array: Any, expected: Any) -> None:
    """Compare values and dtype; NaN equals NaN in object arrays too."""
    wanted = np.asarray(expected)
    assert isinstance(array, np.ndarray)
    assert array.dtype == wanted.dtype
    assert array.shape == wanted.shape
    for left, right in zip(array.flat, wanted.flat, strict=True):
        assert left == right or (left != left and right != right)


def objects(rows: Any) -> Any:
    return np.array(rows, dtype=object)

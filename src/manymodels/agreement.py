"""Compare two predictions: the same labels, dtypes and shapes, and values within a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .tabular import Table


class Disagreement(Exception):
    """Raised where two predictions differ; says where, in a few words."""


def difference(expected: Any, actual: Any, tolerance: float | None) -> float:
    """Return the largest difference of two predictions, relative to ``max(1, |value|)``.

    Floats, alone or in arrays, may differ by the tolerance; NaN equals NaN. Everything else, kinds, dtypes,
    shapes, keys and their order included, must be equal.

    :param tolerance: None: every bit must be the same, the sign of a zero too.
    :raises Disagreement: if they differ by more, or hold something that cannot be compared.
    """
    if type(expected) is not type(actual):
        raise Disagreement(f"{type(actual).__name__} instead of {type(expected).__name__}")
    if isinstance(expected, np.ndarray):
        return _arrays(expected, actual, tolerance)
    if isinstance(expected, (float, complex, np.generic)):
        return _arrays(np.asarray(expected), np.asarray(actual), tolerance)
    if expected is None or isinstance(expected, (bool, int, str, bytes)):
        if expected != actual:
            raise Disagreement(f"{_short(actual)} instead of {_short(expected)}")
        return 0.0
    if isinstance(expected, dict):
        if list(expected) != list(actual):
            raise Disagreement(f"keys {_short(list(actual))} instead of {_short(list(expected))}")
        return _items(list(expected.values()), list(actual.values()), tolerance)
    if isinstance(expected, (list, tuple)):
        return _items(expected, actual, tolerance)
    if isinstance(expected, Table):
        return _items((expected.names, expected.rows), (actual.names, actual.rows), tolerance)
    if hasattr(expected, "tocsr"):
        return _arrays(expected.toarray(), actual.toarray(), tolerance)
    if hasattr(expected, "iloc"):
        return _frames(expected, actual, tolerance)
    raise Disagreement(f"a {type(expected).__name__} cannot be compared")


def _items(expected: Any, actual: Any, tolerance: float | None) -> float:
    if len(expected) != len(actual):
        raise Disagreement(f"{len(actual)} items instead of {len(expected)}")
    return max((difference(one, other, tolerance) for one, other in zip(expected, actual, strict=True)), default=0.0)


def _frames(expected: Any, actual: Any, tolerance: float | None) -> float:
    if not expected.index.equals(actual.index):
        raise Disagreement("another index")
    if expected.ndim == 1:
        return _arrays(expected.to_numpy(), actual.to_numpy(), tolerance)
    if list(expected.columns) != list(actual.columns):
        raise Disagreement("other columns")
    columns = range(len(expected.columns))
    return max((_frames(expected.iloc[:, n], actual.iloc[:, n], tolerance) for n in columns), default=0.0)


def _arrays(expected: npt.NDArray[Any], actual: npt.NDArray[Any], tolerance: float | None) -> float:
    if expected.dtype != actual.dtype:
        raise Disagreement(f"dtype {actual.dtype} instead of {expected.dtype}")
    if expected.shape != actual.shape:
        raise Disagreement(f"shape {actual.shape} instead of {expected.shape}")
    if expected.dtype == object:
        return _items(expected.ravel().tolist(), actual.ravel().tolist(), tolerance)
    if expected.dtype.kind not in "fc":
        if not np.array_equal(expected, actual):
            raise Disagreement("other labels")
        return 0.0
    if expected.tobytes() == actual.tobytes():
        return 0.0
    if tolerance is None:
        raise Disagreement("not the same bits")
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.where(same, 0.0, np.abs(actual - expected) / np.maximum(1.0, np.abs(expected)))
    largest = float(np.max(gaps, initial=0.0))
    if not largest <= tolerance:  # NaN, where only one of them is a number, fails too
        raise Disagreement(f"a difference of {largest:.2g}, more than {tolerance:g}")
    return largest


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

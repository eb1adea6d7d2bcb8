"""When two predictions agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import scipy.sparse

from manymodels.agreement import Disagreement, difference
from manymodels.codecs import Table

NEAR, FAR = 1.0 + 1e-12, 1.0 + 1e-6


def table(value: float) -> Table:
    return Table(("a", "b"), np.array([[value, 2.0]]))


def frame(value: float, column: str = "a") -> Any:
    return pandas.DataFrame({column: [value], "b": ["x"]})


@pytest.mark.parametrize(
    "make",
    [
        float,
        np.float64,
        lambda value: np.array([[value, 2.0]]),
        lambda value: np.array([value, "x"], dtype=object),
        lambda value: [[value], "x", None, True],
        lambda value: {"predictions": np.array(["a"]), "probabilities": ([value], {1: value})},
        lambda value: scipy.sparse.csr_matrix([[value, 0.0]]),
        table,
        frame,
        lambda value: pandas.Series([value]),
    ],
)
def test_values_may_differ_by_the_tolerance(make: Any) -> None:
    assert difference(make(1.0), make(1.0), None) == 0.0
    assert 0.0 < difference(make(1.0), make(NEAR), 1e-9) < 1e-11
    with pytest.raises(Disagreement, match="a difference of 1e-06, more than 1e-09"):
        difference(make(1.0), make(FAR), 1e-9)
    with pytest.raises(Disagreement, match="not the same bits"):
        difference(make(1.0), make(NEAR), None)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        ("a", "b"),
        (None, 0),
        ([1], (1,)),
        ([1], [1, 1]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1]), np.array([1.0])),
        (np.array([1.0]), np.array([1.0], np.float32)),
        (np.array([1.0]), np.array([[1.0]])),
        (np.array(["a"]), np.array(["b"])),
        (np.array([True]), np.array([False])),
        (np.array([1, "a"], dtype=object), np.array([2, "a"], dtype=object)),
        (np.array([1.0]), np.array([np.nan])),
        (np.array([np.nan]), np.array([1.0])),
        (np.array([np.inf]), np.array([-np.inf])),
        (np.array([1.0]), np.array([np.inf])),
        (np.array([1.0]), [1.0]),
        (frame(1.0), frame(1.0, "c")),
        (frame(1.0), pandas.concat([frame(1.0), frame(1.0)])),
        (pandas.Series([1.0]), pandas.Series([1.0], index=[7])),
        (table(1.0), Table(("a", "c"), np.array([[1.0, 2.0]]))),
        (object(), object()),
    ],
)
def test_everything_else_must_be_equal(expected: Any, actual: Any) -> None:
    with pytest.raises(Disagreement):
        difference(expected, actual, 1e-3)


def test_the_tolerance_is_relative_to_large_values_and_absolute_for_small_ones() -> None:
    assert difference(np.array([1e12, np.nan, np.inf]), np.array([1e12 + 1, np.nan, np.inf]), 1e-9) == pytest.approx(
        1e-12
    )
    assert difference(1e-12, 2e-12, 1e-9) == pytest.approx(1e-12)
    assert difference(np.array([]), np.array([]), 1e-9) == 0.0
    with pytest.raises(Disagreement):
        difference(0.0, -0.0, None)
    assert difference(0.0, -0.0, 0.0) == 0.0

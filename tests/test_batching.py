"""Joining tables by rows, and splitting what a model answers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from manymodels import RowBatch


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=6), st.integers(1, 4), st.sampled_from(["array", "frame", "csr"])
)
def test_what_is_joined_and_split_is_what_it_was(counts: list[int], width: int, kind: str) -> None:
    whole = np.arange(sum(counts) * width, dtype=float).reshape(-1, width)
    edges = np.cumsum([0, *counts])
    parts: list[Any] = [whole[start:end] for start, end in itertools.pairwise(edges)]
    if kind == "frame":
        parts = [pd.DataFrame(part, columns=[f"c{column}" for column in range(width)]) for part in parts]
    elif kind == "csr":
        parts = [scipy.sparse.csr_matrix(part) for part in parts]
    joined = RowBatch().join(parts)
    assert joined is not None
    table, rows = joined
    assert rows == counts
    assert type(table) is type(parts[0])
    dense = table.toarray() if kind == "csr" else np.asarray(table)
    assert np.array_equal(dense, whole)
    shares = RowBatch().split(dense[:, 0], rows)
    assert [len(share) for share in shares] == counts
    assert np.array_equal(np.concatenate(shares), whole[:, 0])


ARRAY = np.zeros((2, 3))
FRAME = pd.DataFrame({"a": [1.0], "b": [2.0]})
MATRIX = scipy.sparse.csr_matrix(ARRAY)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ARRAY, np.zeros((2, 4))),
        (ARRAY, np.zeros((2, 3), np.float32)),
        (ARRAY, ARRAY.tolist()),
        (ARRAY, FRAME),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 3))),
        (FRAME, FRAME[["b", "a"]]),
        (FRAME, FRAME.astype({"a": "int64"})),
        (FRAME, FRAME[["a"]]),
        (MATRIX, scipy.sparse.csr_matrix((1, 4))),
        (MATRIX, MATRIX.astype(np.float32)),
        (MATRIX, ARRAY),
        ([1], [2]),
        ("a", "b"),
        (None, None),
    ],
)
def test_what_does_not_fit_is_not_joined(first: Any, second: Any) -> None:
    assert RowBatch().join([first, second]) is None


def test_frames_with_their_own_index_are_numbered_anew() -> None:
    joined = RowBatch().join([FRAME, FRAME])
    assert joined is not None
    assert list(joined[0].index) == [0, 1]


@pytest.mark.parametrize("prediction", [np.zeros((3, 4)), [1, 2, 3], []])
def test_an_answer_with_other_rows_is_refused(prediction: Any) -> None:
    with pytest.raises(ValueError, match=f"the model answered {len(prediction)} rows to 4"):
        RowBatch().split(prediction, [1, 3])


def test_outputs_as_many_as_rows_are_not_taken_for_rows() -> None:
    outputs = [np.array([[0.1], [0.2]]), np.array([[0.3], [0.4]])]
    for prediction in (outputs, tuple(outputs), [output.ravel() for output in outputs]):
        with pytest.raises(ValueError, match="2 arrays of 2 rows"):
            RowBatch().split(prediction, [1, 1])
    rows = [np.array([0.1]), np.array([0.2])]
    assert RowBatch().split(rows, [1, 1]) == [rows[:1], rows[1:]]


def test_an_answer_without_rows_is_refused() -> None:
    with pytest.raises(TypeError):
        RowBatch().split(1.0, [1, 3])

"""Content types: which decoder answers, what predictions become, and that no body does harm."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from arrays import npy, objects, same, sparse_npz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manymodels.codecs import Table, decode, encode
from manymodels.errors import (
    BadInput,
    PredictionFailed,
    RequestError,
    UnsupportedAccept,
    UnsupportedContentType,
)

fuzzed = settings(
    max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


MATRIX = scipy.sparse.csr_matrix(np.array([[0, 1.5, 0], [2, 0, 0]]))


# Content types


def test_unknown_type_names_the_supported_ones() -> None:
    with pytest.raises(UnsupportedContentType, match=r"'image/png'.*application/json.*text/csv.*application/x-npz"):
        decode(b"", "image/png")


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "iso-8859-1", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
def test_charsets(kind: str, charset: str) -> None:
    text = '[["é"]]' if kind == "application/json" else "é"
    same(decode(text.encode(charset), f"{kind}; charset={charset}"), objects([["é"]]))


@pytest.mark.parametrize("charset", ["zlib", "punycode", "no-such", "unicode_escape"])
def test_charsets_that_are_not_taken(charset: str) -> None:
    with pytest.raises(UnsupportedContentType, match=charset):
        decode(b"[1]", f"application/json; charset={charset}")


@pytest.mark.parametrize("kind", ["application/json", "application/jsonlines", "text/csv"])
def test_broken_utf8_is_located(kind: str) -> None:
    with pytest.raises(BadInput, match="not UTF-8 at byte 3"):
        decode(b'["a\xff"]', kind)
    with pytest.raises(BadInput, match="utf-16"):
        decode(b"abc", f"{kind}; charset=utf-16")


# Predictions


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (np.array([0, 1]), "[0,1]"),
        (np.array([0.1, math.nan, math.inf]), "[0.1,null,null]"),
        (np.array([[0.1, 0.9]], dtype=np.float32), "[[0.1,0.9]]"),
        (np.array([[1, 2], [3, 4]], dtype=np.float32).T, "[[1.0,3.0],[2.0,4.0]]"),
        (np.array(["a", "é"]), '["a","é"]'),
        (objects(["a", np.int64(1), None]), '["a",1,null]'),
        (np.array(1.5), "1.5"),
        (np.array(["2024-01-02"], dtype="M8[D]"), '["2024-01-02T00:00:00"]'),
        ([np.array([1]), [2]], "[[1],[2]]"),
        (np.float32(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (np.str_("a"), '"a"'),
        (None, "null"),
        ({"predictions": np.array([1]), 5: 0.5}, '{"predictions":[1],"5":0.5}'),
        (MATRIX, "[[0.0,1.5,0.0],[2.0,0.0,0.0]]"),
        (pd.Series([1, 2]), "[1,2]"),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), '[{"a":1,"b":"x"},{"a":2,"b":"y"}]'),
        (pd.DataFrame({"t": [pd.Timestamp("2024-01-02")], "b": ["x"]}), '[{"t":"2024-01-02T00:00:00","b":"x"}]'),
        (Table(("a",), np.array([[1.5]])), '[{"a":1.5}]'),
    ],
)
def test_json_replies(prediction: Any, expected: str) -> None:
    assert encode(prediction, "application/json") == (expected.encode(), "application/json")


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (np.array([0.1, math.nan]), "0.1\nnan\n"),
        (np.array([[0.1, 1e-9]], dtype=np.float32), "0.1,1e-09\n"),
        (np.array([[1, 2], [3, 4]]), "1,2\n3,4\n"),
        (np.array(5), "5\n"),
        (["a,b", 'c"d', 1], '"a,b"\n"c""d"\n1\n'),
        ([[1, None], (2, "x")], "1,\n2,x\n"),
        (0.5, "0.5\n"),
        (MATRIX, "0.0,1.5,0.0\n2.0,0.0,0.0\n"),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "1,x\n2,y\n"),
    ],
)
def test_csv_replies(prediction: Any, expected: str) -> None:
    assert encode(prediction, "text/csv") == (expected.encode(), "text/csv")


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-ndjson"])
@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (np.array([[0.1, 0.2], [0.3, math.nan]], dtype=np.float32), "[0.1,0.2]\n[0.3,null]\n"),
        (np.array([1, 2]), "1\n2\n"),
        ({"a": 1}, '{"a":1}\n'),
        ([{"a": 1}, {"a": 2}], '{"a":1}\n{"a":2}\n'),
        (Table(("a",), np.array([[1.5], [2.5]])), '{"a":1.5}\n{"a":2.5}\n'),
    ],
)
def test_jsonlines_replies(prediction: Any, expected: str, kind: str) -> None:
    assert encode(prediction, kind) == (expected.encode(), kind)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (np.array([[1, 2]], dtype=np.float32).T, np.array([[1], [2]], dtype=np.float32)),
        ([1, 2], np.array([1, 2])),
        (objects(["a", "bcd"]), np.array(["a", "bcd"])),
        (MATRIX, MATRIX.toarray()),
        (Table(("a",), np.array([[1.5]])), np.array([[1.5]])),
        (1.5, np.array(1.5)),
    ],
)
def test_npy_replies(prediction: Any, expected: Any) -> None:
    body, kind = encode(prediction, "application/x-npy")
    assert kind == "application/x-npy"
    same(np.load(io.BytesIO(body), allow_pickle=False), expected)


@pytest.mark.parametrize(
    ("prediction", "accept"),
    [
        ({"a": 1}, "text/csv"),
        (np.zeros((1, 1, 1)), "text/csv"),
        (np.zeros((1, 1, 1), dtype=np.float32), "text/csv"),
        ([b"a"], "text/csv"),
        ({"a": 1}, "application/x-npy"),
        (objects(["a", 1]), "application/x-npy"),
        ([[1], [2, 3]], "application/x-npy"),
        ([1], "image/png"),
    ],
)
def test_replies_that_do_not_fit(prediction: Any, accept: str) -> None:
    with pytest.raises(UnsupportedAccept, match="application/json"):
        encode(prediction, accept)


@pytest.mark.parametrize("prediction", [object(), {"a": {1}}, [b"a"], 1j, [10**30], np.array([1], dtype=">i4")])
def test_replies_json_cannot_hold(prediction: Any) -> None:
    with pytest.raises(PredictionFailed, match="cannot be written as JSON"):
        encode(prediction, "application/json")


# All of them

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(FLOATS, min_size=width, max_size=width), min_size=1))


@fuzzed
@given(TABLES)
def test_numbers_come_back_exactly(rows: list[list[float]]) -> None:
    array = np.array(rows)
    for kind in ("text/csv", "application/x-npy"):
        np.testing.assert_array_equal(decode(*encode(array, kind)), array)
    finite = np.where(np.isfinite(array), array, np.nan)
    for kind in ("application/json", "application/jsonlines"):
        np.testing.assert_array_equal(decode(*encode(finite, kind)).astype(float), finite)


@fuzzed
@given(st.lists(st.lists(st.text(alphabet='a,"\n\r é;', min_size=1), min_size=2, max_size=2), min_size=1))
def test_text_comes_back_through_csv(rows: list[list[str]]) -> None:
    rows = [[f"x{cell}x" for cell in row] for row in rows]
    same(decode(*encode(rows, "text/csv")), objects(rows))


SEEDS = {
    "application/json": [b'[[1, 2.5], [3, "a"]]', b'[{"a": 1}, {"a": null}]', b'{"columns": ["a"], "data": [[1]]}'],
    "application/jsonlines": [b'[1, 2]\n{"a": 1}\n', b'{"features": [1]}\n'],
    "text/csv": [b'1,2\n"a",3\n', b"a,b\r\n1,\r\n"],
    "text/csv; header=present": [b"a,b\n1,2\n"],
    "text/csv; charset=utf-16": ["1,2\n".encode("utf-16")],
    "application/x-npy": [npy(np.arange(4.0)), npy(np.array(["ab"])), npy(np.float64(1))],
    "application/x-npz": [sparse_npz(MATRIX), sparse_npz(MATRIX.tocoo())],
    "text/libsvm": [b"1 1:2 3:4\n", b"0:1 qid:2 # x\n"],
}
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8), st.binary(max_size=8)), max_size=6)


def harmless(body: bytes, content_type: str) -> None:
    try:
        decoded = decode(body, content_type, names=("a", "b"))
    except RequestError:
        return
    rows = decoded.rows if isinstance(decoded, Table) else decoded
    assert isinstance(rows, (np.ndarray, dict)) or scipy.sparse.issparse(rows)


@pytest.mark.parametrize("content_type", SEEDS)
@fuzzed
@given(st.data())
def test_only_request_errors_come_of_damaged_bodies(content_type: str, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(SEEDS[content_type])))
    for position, length, patch in data.draw(EDITS):
        start = position % (len(body) + 1)
        body[start : start + length] = patch
    harmless(bytes(body), content_type)


@pytest.mark.parametrize("content_type", SEEDS)
@fuzzed
@given(st.binary(max_size=200))
def test_only_request_errors_come_of_any_bytes(content_type: str, body: bytes) -> None:
    harmless(body, content_type)

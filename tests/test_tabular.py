"""Tables in text: JSON, JSON lines and CSV."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import objects, same

from manymodels.codecs import Table, decode, features
from manymodels.errors import (
    BadInput,
)


def table(value: Any, names: tuple[str, ...], rows: Any) -> None:
    assert isinstance(value, Table)
    assert value.names == names
    same(value.rows, rows)


# JSON


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[[1.5, 2], [3, 4]]", np.array([[1.5, 2], [3, 4]])),
        ("[[1, 2]]", np.array([[1, 2]])),
        ("[1, 2]", np.array([1, 2])),
        ("[[true, false]]", np.array([[True, False]])),
        ("[]", np.array([])),
        ("[[[1], [2]]]", np.array([[[1], [2]]])),
        ("[[1, null], [3, 4]]", np.array([[1, math.nan], [3, 4]])),
        ('[[1, "a"], [2.5, null]]', objects([[1, "a"], [2.5, math.nan]])),
        ('["a", "bcd"]', objects(["a", "bcd"])),
        ("5", np.array(5)),
        ('"text"', objects("text")),
        ('{"instances": [[1, 2]]}', np.array([[1, 2]])),
        ('{"instances": [{"features": [1, 2]}, {"features": [3, 4]}]}', np.array([[1, 2], [3, 4]])),
        ("[18446744073709551616, -1]", np.array([2.0**64, -1.0])),
    ],
)
@pytest.mark.parametrize("content_type", [None, "application/json", "APPLICATION/JSON; charset=utf-8"])
def test_json_arrays(body: str, expected: Any, content_type: str | None) -> None:
    same(decode(body.encode(), content_type), expected)


def test_one_long_string_does_not_widen_the_others() -> None:
    rows = decode(json.dumps(["x" * 1_000_000] + ["y"] * 100_000).encode(), None)
    assert rows.dtype == object
    assert rows.nbytes < 1_000_000


@pytest.mark.parametrize(
    "body",
    [
        '[{"a": 1, "b": "x"}, {"b": null, "a": 2}]',
        '{"dataframe_records": [{"a": 1, "b": "x"}, {"a": 2, "b": null}]}',
        '{"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": null}]}',
        '{"columns": ["a", "b"], "data": [[1, "x"], [2, null]]}',
        '{"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, null]]}',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, null]]}}',
    ],
)
def test_json_tables(body: str) -> None:
    table(decode(body.encode(), None), ("a", "b"), objects([[1, "x"], [2, math.nan]]))


def test_tables_of_numbers_are_floats() -> None:
    table(decode(b'[{"a": 1, "b": true}]', None), ("a", "b"), [[1.0, 1.0]])


def test_pandas_writes_what_is_read() -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": [3, 4]})
    for orient in ("split", "records"):
        body = frame.to_json(orient=orient).encode()
        table(decode(body, "application/json"), ("a", "b"), [[1.5, 3.0], [2.5, 4.0]])
    unnamed = pd.DataFrame([[1.5, 2.5]]).to_json(orient="split").encode()
    table(decode(unnamed, "application/json"), ("0", "1"), [[1.5, 2.5]])


@pytest.mark.parametrize(
    "body",
    [
        '{"features": [[1]]}',
        '{"a": {"b": [1, [2]]}}',
        "{}",
        '{"instances": [[1]], "parameters": {}}',
        '{"instances": 1}',
    ],
)
def test_other_objects_stay_dicts(body: str) -> None:
    assert decode(body.encode(), None) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "line 1, column 1"),
        ("[1,\n2", "line 2, column 2"),
        ("[NaN]", "line 1, column 2.*; write null for a value that is missing$"),
        ('["ä", -Infinity]', "line 1, column 8.*; write null"),
        ("[1, x]", "expected a JSON value$"),
        ("[Infinity]", "column 2"),
        ("[1e999]", "infinity"),
        ("[[1, 2], [3]]", "row 2 has 1 values, row 1 has 2"),
        ('[["a", "b"], ["c"]]', "row 2 has 1 values, row 1 has 2"),
        ("[[1], 2]", "mixed"),
        ("[[[1]], [[2, 3]]]", "innermost"),
        ('[{"a": 1}, {"b": 1}]', "row 2 lacks 'a'"),
        ('[{"a": 1}, {"a": 1, "b": 2}]', "row 2 adds 'b'"),
        ('[{"a": 1}, [2]]', "row 2 is not an object"),
        ('[[1], {"a": 1}]', "object stands among lists"),
        ('[{"a": [1]}]', "2-D|shape"),
        ('[{"a": {}}]', "object stands among lists"),
        ("[{}]", "column names"),
        ('{"columns": ["a", "a"], "data": [[1, 2]]}', "'a' is named twice"),
        ('{"columns": ["a"], "data": [[1, 2]]}', r"1 columns are named.*\(1, 2\)"),
        ('{"columns": [["a", "b"]], "data": [[1]]}', "column names"),
        ('{"columns": ["a"], "data": {}}', '"data" must be a list'),
        ('{"dataframe_split": {}}', '"data" must be a list'),
        ("[" * 900 + "1" + "]" * 900, "nested 900 deep"),
        ("[" * 100_000, "column"),
        ('{"a":' * 100_000, "column"),
    ],
)
def test_json_refused(body: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body.encode(), "application/json")


def test_features_are_unwrapped() -> None:
    same(features({"features": [[1, 2]]}), [[1, 2]])
    same(features({"features": [1, 2], "other": True}), [1, 2])
    table(features({"features": [[1, 2]], "columns": ["a", "b"]}), ("a", "b"), [[1.0, 2.0]])
    table(features({"features": [1, 2], "feature_names": ["a", "b"]}), ("a", "b"), [[1.0, 2.0]])
    table(features({"features": [{"a": 1}]}), ("a",), [[1.0]])
    plain = {"inputs": 1}
    assert features(plain) is plain
    array = np.array([1])
    assert features(array) is array


@pytest.mark.parametrize(
    "value",
    [
        {"features": 1},
        {"features": [[1], [2, 3]]},
        {"features": [[1]], "columns": "a"},
        {"features": [], "columns": ["a"]},
    ],
)
def test_features_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        features(value)


# JSON lines


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/jsonl", "application/x-ndjson"])
def test_jsonlines(kind: str) -> None:
    same(decode(b"[1, 2]\n\r\n[3, 4]\n", kind), [[1, 2], [3, 4]])
    same(decode(b"[1, 2]", kind), [[1, 2]])
    same(decode(b"1\n2\n", kind), [[1], [2]])
    same(decode(b'{"features": [1, 2]}\n{"features": [3, 4]}', kind), [[1, 2], [3, 4]])
    table(decode(b'{"a": 1}\n{"a": 2}', kind), ("a",), [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no line"),
        (b"\n \n", "no line"),
        (b"[1]\n\n[2", "line 3, column 3"),
        (b"[1\n2]", "line 1, column 3"),
        (b"[1]\n[1, 2]", "row 2 has 2"),
    ],
)
def test_jsonlines_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body, "application/jsonlines")


# CSV


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1,2.5", [[1.0, 2.5]]),
        ("1,2\n3,4\n", [[1.0, 2.0], [3.0, 4.0]]),
        ("1,2\r\n3,4\r\n", [[1.0, 2.0], [3.0, 4.0]]),
        ("1,2\r3,4", [[1.0, 2.0], [3.0, 4.0]]),
        ("\n 1 , 2 \n\n  \n3,4\n\n", [[1.0, 2.0], [3.0, 4.0]]),
        ('"1","2"', [[1.0, 2.0]]),
        ("1,\n , 4", [[1.0, math.nan], [math.nan, 4.0]]),
        ("nan,-inf,1e-3", [[math.nan, -math.inf, 0.001]]),
        ("\ufeff1,2", [[1.0, 2.0]]),
        ("1,red\n2,\n", objects([[1.0, "red"], [2.0, math.nan]])),
        ('1,"a, ""b""\nc"\n2, d ', objects([[1.0, 'a, "b"\nc'], [2.0, "d"]])),
        ("1_000,2", objects([["1_000", 2.0]])),
        ("1d5,2", objects([["1d5", 2.0]])),
        ("0x10,2", objects([["0x10", 2.0]])),
        ("\u0661,2", objects([["\u0661", 2.0]])),
    ],
)
def test_csv(body: str, expected: Any) -> None:
    same(decode(body.encode(), "text/csv; label_size=0"), expected)


def test_csv_header() -> None:
    table(decode(b"a,b\n1,2\n", "text/csv; header=present"), ("a", "b"), [[1.0, 2.0]])
    table(decode(b"0,1\n1,2\n", "text/csv; header=present"), ("0", "1"), [[1.0, 2.0]])
    table(decode(b"b, a\n1,x\n", "text/csv", names=("a", "b")), ("b", "a"), objects([[1.0, "x"]]))
    table(decode(b'"a","b"\n1,2\n', "text/csv", names=np.array(["a", "b"])), ("a", "b"), [[1.0, 2.0]])
    same(decode(b"a,b\n1,2\n", "text/csv"), objects([["a", "b"], ["1", "2"]]))
    same(decode(b"a,b\n1,2\n", "text/csv", names=("a", "c")), objects([["a", "b"], ["1", "2"]]))
    same(decode(b"a,b\n1,2\n", "text/csv; header=absent", names=("a", "b")), objects([["a", "b"], ["1", "2"]]))
    same(decode(b"0,1\n2,3\n", "text/csv", names=("0", "1")), [[0.0, 1.0], [2.0, 3.0]])


def test_columns_of_text_stay_text() -> None:
    texts: set[str | int] = {0, "code"}
    same(decode(b"01,2\n,3\n", "text/csv", texts=texts), objects([["01", 2.0], [np.nan, 3.0]]))
    table(
        decode(b"size, code\n2, 01 \n", "text/csv", names=("code", "size"), texts=texts),
        ("size", "code"),
        objects([[2.0, "01"]]),
    )
    table(decode(b"0,code\n2,1\n", "text/csv; header=present", texts=texts), ("0", "code"), objects([[2.0, "1"]]))


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"", "text/csv", "no rows"),
        (b"\n \n", "text/csv", "no rows"),
        (b"a,b\n", "text/csv; header=present", "header and no rows"),
        (b"a,a\n1,2", "text/csv; header=present", "'a' is named twice"),
        (b"1,2\n\n3\n", "text/csv", "line 3 of the CSV has 1 cells, the first 2"),
        (b"1,2\n3,4,5\n", "text/csv", "line 2 of the CSV has 3"),
        (b'1,"2', "text/csv", "line 1 of the CSV cannot be read"),
        (b"a" * 200_000, "text/csv", "field limit"),
        (b"1,2", "text/csv; label_size=1", "label_size=1"),
    ],
)
def test_csv_refused(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body, content_type)

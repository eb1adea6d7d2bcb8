"""RecordIO bodies of protobuf records.

The bodies in hexadecimal are what the SageMaker Python SDK 2.257 wrote (`RecordSerializer`, and
`write_spmatrix_to_sparse_tensor` for the sparse one): it needs older libraries than the tests do, so they
run without it. `make test-sdk` runs it.
"""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manymodels.codecs import Table, decode, encode
from manymodels.errors import BadInput, UnsupportedAccept

RECORDS = "application/x-recordio-protobuf"
FLOATS = bytes.fromhex(
    "0a23d7ce180000000a160a0676616c756573120c120a0a080000c03f000000c0"
    "0a23d7ce180000000a160a0676616c756573120c120a0a080000000000004040"
)
DOUBLES = bytes.fromhex("0a23d7ce200000000a1e0a0676616c75657312141a120a10000000000000f83f00000000000000c0")
INTEGERS = bytes.fromhex(
    "0a23d7ce1b0000000a190a0676616c756573120f3a0d0a0b01feffffffffffffffff0100"
    "0a23d7ce130000000a110a0676616c75657312073a050a03ac020000"
)
LABELLED = bytes.fromhex(
    "0a23d7ce300000000a160a0676616c756573120c120a0a080000c03f000000c012160a0676616c756573120c1a0a0a08000000000000f03f"
    "0a23d7ce300000000a160a0676616c756573120c120a0a08000000000000404012160a0676616c756573120c1a0a0a080000000000000040"
)
SPARSE = bytes.fromhex(
    "0a23d7ce360000000a1c0a0676616c75657312121a100a08000000000000f83f1201011a0103"
    "12160a0676616c756573120c1a0a0a08000000000000f03f0000"
    "0a23d7ce290000000a0f0a0676616c75657312051a031a010312160a0676616c756573120c1a0a0a080000000000000000000000"
    "0a23d7ce3f0000000a250a0676616c756573121b1a190a100000000000000040000000000000f0bf120200021a0103"
    "12160a0676616c756573120c1a0a0a08000000000000f03f00"
)

#: Field numbers of the tensors.
FLOAT32, FLOAT64, INT32 = 2, 3, 7


def varint(number: int) -> bytes:
    written = []
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(values: bytes = b"", keys: bytes | None = None, shape: bytes | None = None) -> bytes:
    parts = [(1, values), (2, keys), (3, shape)]
    return b"".join(field(number, content) for number, content in parts if content is not None)


def frame(record: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)


def record(content: bytes, kind: int = FLOAT32, name: bytes = b"values") -> bytes:
    """Return a frame with a record of one tensor."""
    return frame(field(1, field(1, name) + field(2, field(kind, content))))


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


# -- Bodies --


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (FLOATS, np.array([[1.5, -2], [0, 3]], np.float32)),
        (LABELLED, np.array([[1.5, -2], [0, 3]], np.float32)),
        (DOUBLES, np.array([[1.5, -2.0]])),
        (INTEGERS, np.array([[1, -2], [300, 0]], np.int32)),
    ],
)
def test_what_the_sdk_writes(body: bytes, rows: Any) -> None:
    decoded = decode(body, RECORDS)
    assert decoded.dtype == rows.dtype
    assert decoded.tolist() == rows.tolist()
    decoded[0, 0] = 7  # it is writable


def test_sparse_rows() -> None:
    decoded = decode(SPARSE, RECORDS)
    assert decoded.toarray().tolist() == [[0, 1.5, 0], [0, 0, 0], [2, 0, -1]]
    assert decoded.dtype == np.float64


def test_rows_of_several_dimensions() -> None:
    body = record(tensor(floats(1, 2, 3, 4), shape=b"\x02\x02")) * 3
    assert decode(body, RECORDS).tolist() == [[[1, 2], [3, 4]]] * 3


def test_numbers_that_are_not_packed_and_fields_of_later_versions() -> None:
    each = b"".join(varint(1 << 3 | 5) + floats(value) for value in (1, 2))
    assert decode(record(each + field(90, b"x")), RECORDS).tolist() == [[1, 2]]
    unpacked = varint(1 << 3) + varint(300) + varint(1 << 3) + varint(5)
    assert decode(record(unpacked, INT32), RECORDS).tolist() == [[300, 5]]


def test_the_last_padding_may_be_missing() -> None:
    assert decode(INTEGERS[:-1], RECORDS).tolist() == [[1, -2], [300, 0]]


def test_a_label_like_the_features_is_not_taken_for_them() -> None:
    one = tensor(floats(1, 2))
    both = field(1, field(1, b"values") + field(2, field(FLOAT32, one)))
    other = field(2, field(1, b"values") + field(2, field(FLOAT32, tensor(floats(8, 9)))))
    same = field(2, field(1, b"values") + field(2, field(FLOAT32, one)))
    assert decode(frame(both + same) + frame(both + other), RECORDS).tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "holds no records"),
        (b"[[1, 2]]", "is not RecordIO"),
        (FLOATS[:6], "within the head"),
        (FLOATS[:-4], "within a record: 24 bytes are to follow, and 20 do"),
        (struct.pack("<II", 0xCED7230A, 2**32 - 1) + b"x" * 20, "4294967295 bytes are to follow"),
        (frame(b""), "record 1: it has 0 features"),
        (frame(b"\x0f"), "no protobuf"),
        (frame(b"\x0a" + b"\xff" * 11), "no protobuf"),
        (FLOATS + frame(b"\x0a\x7f"), "record 3: it is no protobuf"),
        (record(tensor(floats(1)), name=b"age"), "its feature is 'age'"),
        (frame(field(1, field(1, b"values") + field(2, b"")) * 2), "2 features"),
        (record(b"x", 9), "not one tensor"),
        (record(tensor(floats(1)[:3])), "cut off"),
        (record(tensor()), "0 values"),
        (record(varint(1 << 3) + b"\x01"), "not of their tensor's type"),
        (record(tensor(floats(1)) + varint(1 << 3 | 5) + floats(1)), "in two ways"),
        (record(tensor(floats(1, 2), shape=b"\x03")), "2 values, and the shape (3,)"),
        (record(tensor(floats(1), shape=b"\x01" * 32)), "and the shape"),
        (record(tensor(floats(1), shape=b"\x01" * 400)), "more than 31 dimensions"),
        (record(tensor(varint(2**40), shape=b"\x01"), INT32), "more than 32 bits"),
        (record(tensor(b"\x80", shape=b"\x01"), INT32), "no protobuf"),
        (record(tensor(b"\x80" * 11 + b"\x01"), INT32), "no protobuf"),
        (FLOATS + record(tensor(floats(1))), "record 3: it is dense of shape (1,), record 1 dense of shape (2,)"),
        (FLOATS + DOUBLES, "record 3: its tensor has numbers of another type"),
        (record(tensor(floats(1), b"\x00", b"\x02")) + record(tensor(floats(1, 2))), "record 2: it is dense"),
        (record(tensor(floats(1), b"\x02", b"\x02")), "a key is 2, and the width of the rows 2"),
        (record(tensor(floats(1), b"\x00\x01", b"\x02")), "record 1 has not as many values as keys"),
        (record(tensor(floats(1, 2), b"\x01\x01", b"\x02")), "names a key twice"),
        (record(tensor(floats(1), b"\x00")), "sparse tensor of shape ()"),
        (record(tensor(floats(1), b"\x00", varint(2**31))), "sparse tensor of shape"),
        (record(tensor(floats(1), b"\xff" * 10 + b"\x01", b"\x02")), "no integers"),
        (record(tensor(shape=varint(2**62))), "sparse tensor of shape"),
        (record(varint(2 << 3 | 5) + floats(1)), "no protobuf"),
    ],
)
def test_other_bodies_are_bad_input(body: bytes, why: str) -> None:
    with pytest.raises(BadInput) as raised:
        decode(body, RECORDS)
    assert why in str(raised.value)


@settings(
    max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    body=st.sampled_from([FLOATS, INTEGERS, SPARSE, LABELLED]),
    changes=st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 3),
)
def test_damaged_bodies_do_no_harm(body: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(body)
    for place, value in changes:
        damaged[place % len(body)] = value
    try:
        decoded = decode(bytes(damaged[: len(body) - cut]), RECORDS)
    except BadInput:
        return
    assert decoded.ndim >= 2
    assert decoded.shape[0] <= 3


@pytest.mark.parametrize(
    "body",
    [
        record(tensor(floats(1))) * 10_000,
        record(tensor(b"\x01" * 1_000_000), INT32),
        record(tensor(b"\x01" * 500_000, keys=b"\x81\x00" * 500_000, shape=varint(2**31 - 1)), INT32),
    ],
    ids=["rows", "numbers", "keys"],
)
def test_memory_is_bounded_by_the_body(body: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(BadInput):
            decode(body, RECORDS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(body)


# -- Predictions --


def labels(body: bytes) -> Any:
    """Read the labels of records as features, which is what our decoder reads."""
    renumbered = bytearray(body)
    at = 0
    while at < len(body):
        (size,) = struct.unpack_from("<I", body, at + 4)
        assert body[at + 8] == 2 << 3 | 2
        renumbered[at + 8] = 1 << 3 | 2
        at += 8 + size + -size % 4
    return decode(bytes(renumbered), RECORDS)


@pytest.mark.parametrize(
    ("prediction", "dtype", "rows"),
    [
        (np.array([0.5, 2.0]), "f8", [[0.5], [2.0]]),
        (np.array([[0.25, 0.75]], np.float32), "f4", [[0.25, 0.75]]),
        (np.array([0.25], np.float16), "f4", [[0.25]]),
        (np.array([1, -2, 300]), "i4", [[1], [-2], [300]]),
        (np.array([True, False]), "i4", [[1], [0]]),
        ([[1, 2], [3, 4]], "i4", [[1, 2], [3, 4]]),
        (np.arange(4.0).reshape(1, 2, 2), "f8", [[[0, 1], [2, 3]]]),
        (np.float64(1.5), "f8", [[1.5]]),
    ],
)
def test_predictions(prediction: Any, dtype: str, rows: Any) -> None:
    body, kind = encode(prediction, RECORDS)
    assert kind == RECORDS
    decoded = labels(body)
    assert decoded.dtype == dtype
    assert decoded.tolist() == rows


@pytest.mark.parametrize(
    "prediction", [Table(("low", "high"), np.array([[1.0, 2.0]])), [{"low": 1.0, "high": np.array([2.0])}]]
)
def test_columns_keep_their_names(prediction: Any) -> None:
    body, _ = encode(prediction, RECORDS)
    wanted = [
        field(2, field(1, name) + field(2, field(FLOAT64, field(1, struct.pack("<d", value)))))
        for name, value in ((b"low", 1.0), (b"high", 2.0))
    ]
    assert body == frame(b"".join(wanted))


@pytest.mark.parametrize(
    ("prediction", "why"),
    [
        (np.array(["setosa"]), "not of numbers alone"),
        ([{"score": "high"}], "not of numbers alone"),
        ([{"score": 1}, 2], "not of numbers alone"),
        ([{"low": 1}, {"high": 1}], "other names than each other"),
        ([{"low": [1]}, {"low": [1, 2]}], "differ in length"),
        ([[1], [2, 3]], "differ in length"),
        (np.array([2**31]), "more than 32 bits"),
        (np.array([2**63], np.uint64), "more than 32 bits"),
    ],
)
def test_predictions_that_have_no_such_form(prediction: Any, why: str) -> None:
    with pytest.raises(UnsupportedAccept, match=why):
        encode(prediction, RECORDS)

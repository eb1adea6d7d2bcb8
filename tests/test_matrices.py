"""Binary and sparse bodies: npy, npz and libsvm."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from arrays import npy, objects, same, sparse_npz
from hypothesis import given, settings
from hypothesis import strategies as st

from manymodels import codecs
from manymodels.codecs import decode
from manymodels.errors import (
    BadInput,
    UnsupportedContentType,
)


def npy_header(text: str, payload: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + payload


def npz(**parts: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **parts)
    return stream.getvalue()


# npy


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, 2.5], [3.5, 4.5]]),
        np.array([[1, 2], [3, 4]], dtype=np.float32),
        np.array([[True, False]]),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.float64(1.5),
        np.zeros((0, 4)),
    ],
)
def test_npy(array: Any) -> None:
    same(decode(npy(array), "application/x-npy"), array)


def test_npy_arrays_are_writable_and_native() -> None:
    rows = decode(npy(np.array([[1, 2]], dtype=">f8")), "application/x-npy")
    same(rows, np.array([[1.0, 2.0]]))
    rows[0, 0] = 5
    assert rows.dtype.isnative


class Unpickled:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (sys.exit, ("the body was unpickled",))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "does not start as an npy file"),
        (b"\x93NUMPY\x03\x00", r"version \(3, 0\)"),
        (npy(objects([Unpickled()])), "holds object"),
        (npy(np.zeros(2, dtype=[("a", "f8")])), "holds"),
        (npy(np.zeros(2, dtype=complex)), "holds complex128"),
        (npy(np.zeros(2, dtype="M8[s]")), "holds datetime64"),
        (npy(np.zeros(4))[:-1], "31 bytes follow"),
        (npy(np.zeros(4)) + b"x", "33 bytes follow"),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"), "0 bytes follow"),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", b"x" * 8), "8 bytes follow"),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9999999999999999999)}"), "cannot be read"),
        (npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(1,) * 65}}}", b"x" * 8), "cannot be read"),
        (npy(np.array(["ab"])), "holds <U2.*JSON or CSV"),
        (npy_header("{'descr': (), 'fortran_order': False, 'shape': (1,)}"), "does not start"),
        (npy_header("(" * 5000), "does not start"),
        (npy_header(" " * 20_000), "does not start"),
        (npy_header("-" * 9000 + "1"), "does not start"),
        (npy_header("__import__('sys').exit()"), "does not start"),
    ],
)
def test_npy_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body, "application/x-npy")


# npz


MATRIX = scipy.sparse.csr_matrix(np.array([[0, 1.5, 0], [2, 0, 0]]))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("compressed", [True, False])
def test_npz(kind: str, compressed: bool) -> None:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, MATRIX.asformat(kind), compressed=compressed)
    matrix = decode(stream.getvalue(), "application/x-npz")
    assert matrix.format == "csr"
    assert matrix.indices.dtype == np.int32  # scikit-learn takes no wider ones
    same(matrix.toarray(), MATRIX.toarray())


def test_npz_from_sparse_arrays() -> None:
    same(decode(sparse_npz(scipy.sparse.csr_array(MATRIX)), "application/x-npz").toarray(), MATRIX.toarray())


def csr(**changed: Any) -> bytes:
    parts = {"format": b"csr", "shape": [2, 3], "data": [1.0, 2.0], "indices": [0, 2], "indptr": [0, 1, 2], **changed}
    return npz(**{name: np.asarray(part) for name, part in parts.items()})


def coo(**changed: Any) -> bytes:
    parts = {"format": b"coo", "shape": [2, 3], "data": [1.0], "row": [0], "col": [0], **changed}
    return npz(**{name: np.asarray(part) for name, part in parts.items()})


def zipped(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("format.npy", npy(np.array(b"csr")))
    return stream.getvalue()


def test_the_sparse_bodies_of_these_tests_are_good_unless_changed() -> None:
    same(decode(csr(), "application/x-npz").toarray(), [[1.0, 0, 0], [0, 0, 2.0]])
    same(decode(coo(), "application/x-npz").toarray(), [[1.0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not an npz file"),
        (npz(a=np.zeros((2, 2))), "no sparse matrix.*application/x-npy"),
        (sparse_npz(MATRIX.asformat("dia")), r"format 'dia'.*tocsr"),
        (zipped(zipfile.ZIP_LZMA), "compressed in a way"),
        (csr(format=["a", "b"]), "format.npy holds <U1"),
        (csr(data=objects([Unpickled(), 1])), "data.npy holds object"),
        (csr(data=["a", "b"]), "data.npy holds <U1"),
        (csr(indices=[0, 3]), "inconsistent"),
        (csr(indices=[0, -1]), "inconsistent"),
        (csr(indices=[0, 2**40]), "inconsistent"),
        (csr(indices=np.array([0, 2**64 - 1], dtype=np.uint64)), "inconsistent"),
        (csr(indices=[0.0, 1.0]), "indices.npy holds float64"),
        (csr(indptr=[0, 5, 2]), "inconsistent"),
        (csr(indptr=[0, 2, 1]), "inconsistent"),
        (csr(indptr=[0, 1, 2**40]), "inconsistent"),
        (csr(indptr=[[0, 1, 2]]), r"indptr.npy is of shape \(1, 3\)"),
        (csr(shape=[10**12, 3]), "is not taken"),
        (csr(shape=[2, 2**31]), "is not taken"),
        (csr(shape=[2, -3]), "is not taken"),
        (csr(shape=[2, 3, 4]), "is not taken"),
        (coo(row=[2]), "inconsistent"),
        (coo(col=[-1]), "inconsistent"),
        (coo(row=[0, 1]), "inconsistent"),
        (coo(shape=[10**9, 3]), "is not taken"),
        (coo(padding=np.zeros(10_000_000)), "unpacks to more than"),
    ],
)
def test_npz_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body, "application/x-npz")


def test_a_member_longer_than_it_says_is_not_unpacked() -> None:
    body = bytearray(csr(data=np.zeros(1_000_000)))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        size = archive.getinfo("data.npy").file_size
    lie = bytes(body).replace(struct.pack("<I", size), struct.pack("<I", 200))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="Bad CRC"):
            decode(lie, "application/x-npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 4


# libsvm


@pytest.mark.parametrize("kind", ["text/libsvm", "text/x-libsvm"])
def test_libsvm(kind: str) -> None:
    body = b"1 qid:3 1:0.5 3:2 # a_comment\n\n-1\n3:7 2:1e1\n"
    same(decode(body, kind).toarray(), [[0.5, 0, 2], [0, 0, 0], [0, 10, 7]])


def test_libsvm_counts_from_zero_where_an_index_is_zero() -> None:
    same(codecs.decode_libsvm(b"0:1 2:2\n1:3").toarray(), [[1.0, 0, 2], [0, 3, 0]])
    assert codecs.decode_libsvm(b"1\n0\n").shape == (2, 0)
    assert codecs.decode_libsvm(b"2147483647:1").shape == (1, 2147483647)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no rows"),
        (b"# nothing\n", "no rows"),
        (b"1 1:1\n1 1000000000000:1", "line 2: '1000000000000:1'.*up|line 2.*2147483647"),
        (b"1 " + b"9" * 6000 + b":1", "line 1"),
        (b"1 -1:1", "'-1:1'"),
        (b"1 a:1", "'a:1'"),
        (b"1 1:x", "'1:x'"),
        (b"1 1:", "'1:'"),
        (b"1 1:1_0", "'1:1_0'"),
        (b"1 2", "'2'"),
        (b"1,2,3", "'1,2,3'"),
        (b"1:\xff", "line 1"),
        (b"1:1 1:2", "twice"),
    ],
)
def test_libsvm_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        decode(body, "text/libsvm")


@pytest.mark.parametrize("kind", ["text/libsvm", "application/x-npz"])
def test_sparse_types_without_scipy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.sparse", raising=False)
    with pytest.raises(UnsupportedContentType, match="scipy, which is not installed"):
        decode(b"1:1", kind)


LITERALS = st.recursive(
    st.integers(-3, 70) | st.sampled_from(["<f8", "|O", "<U2", "S", "V8", "<M8[s]", "", ",", "(2,)f8"]) | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3),
)


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(LITERALS, LITERALS, LITERALS, st.binary(max_size=32))
def test_no_npy_header_raises_anything_else(descr: Any, order: Any, shape: Any, payload: bytes) -> None:
    body = npy_header(repr({"descr": descr, "fortran_order": order, "shape": shape}), payload)
    try:
        array = decode(body, "application/x-npy")
    except BadInput:
        return
    assert array.nbytes == len(payload)

"""Binary and sparse bodies: npy, npz and libsvm, read without trusting a word of theirs."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from .errors import BadInput, UnsupportedContentType

#: The widest sparse matrix taken: what 32-bit column indices can hold.
MAX_WIDTH = 2**31 - 1
# Zeros deflate a thousandfold, so the bytes inside an npz body are bounded by its own size, small bodies apart.
_MAX_RATIO = 64
_ALWAYS_ALLOWED = 64 * 2**20
_SPARSE = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression of later zip versions
    RuntimeError,  # an encrypted member
    OverflowError,
    ValueError,
)


def decode_npy(body: bytes) -> npt.NDArray[Any]:
    """Decode numpy's own format into a writable array of native byte order.

    :raises BadInput: if it holds anything but booleans and real numbers. Objects would have to be
        unpickled, which runs code of the sender's.
    """
    return _array(body, "biuf", "the npy body")


def _array(body: bytes, kinds: str, what: str) -> npt.NDArray[Any]:
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} is not read; save as (1, 0) or (2, 0)")
        shape, fortran_order, dtype = _HEADERS[version](stream)
    except Exception as error:  # whatever numpy's evaluation of a hostile header comes to
        raise BadInput(f"{what} does not start as an npy file does: {error}") from error
    if dtype.kind not in kinds or not dtype.itemsize:
        raise BadInput(f"{what} holds {dtype}, which is not taken; send numbers so, anything else as JSON or CSV")
    claimed = math.prod(shape) * dtype.itemsize
    offset = stream.tell()
    if claimed != len(body) - offset or any(length < 0 for length in shape):
        raise BadInput(f"{what} claims shape {shape} of {dtype}, but {len(body) - offset} bytes follow")
    try:
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, body, offset, order="F" if fortran_order else "C")
        return array.astype(dtype.newbyteorder("="))
    except ValueError as error:  # too many dimensions, or too long ones beside a zero
        raise BadInput(f"{what} cannot be read: {error}") from error


def decode_npz(body: bytes) -> Any:
    """Decode a sparse matrix, saved by ``scipy.sparse.save_npz`` as CSR, CSC or COO, into a csr_matrix.

    :raises BadInput: also where it unpacks to more than 64 times the body and 64 MiB.
    :raises UnsupportedContentType: where scipy is not installed.
    """
    sparse = scipy_sparse()
    limit = max(_ALWAYS_ALLOWED, _MAX_RATIO * len(body))
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if sum(info.file_size for info in archive.infolist()) > limit:
                raise BadInput(f"the npz body unpacks to more than {limit} bytes; send fewer rows at a time")
            kind = _array(_member(archive, "format"), "S", "format.npy").tobytes().decode("ascii", "replace")
            if kind not in _SPARSE:
                raise BadInput(f"a sparse matrix of format {kind!r} is not taken; send matrix.tocsr()")
            data, first, second, shape = (_vector(archive, name) for name in (*_SPARSE[kind], "shape"))
    except KeyError as error:
        raise BadInput(
            f"the npz body is no sparse matrix of scipy.sparse.save_npz ({error.args[0]}); "
            "send a dense array as application/x-npy"
        ) from error
    except _ZIP_ERRORS as error:
        raise BadInput(f"the body is not an npz file: {error}") from error
    # The rows of a CSR matrix are in the body; those of the others are a claim that memory is taken for.
    if len(shape) != 2 or not (0 <= shape[0] <= limit // 8 and 0 <= shape[1] <= MAX_WIDTH):
        raise BadInput(f"a sparse matrix of shape {tuple(shape[:3].tolist())} is not taken")
    try:
        if kind == "coo":
            return sparse.coo_matrix((data, (first, second)), shape=shape).tocsr()
        matrix = getattr(sparse, f"{kind}_matrix")((data, first, second), shape=shape)
        matrix.check_format(full_check=True)  # indices out of range would be followed by native code
        return matrix.tocsr()
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise BadInput(f"the sparse matrix is inconsistent: {error}") from error


def decode_libsvm(body: bytes) -> Any:
    """Decode ``[label] index:value ...`` lines into a csr_matrix of float64, labels and ``qid`` left out.

    Indices count from 1 unless one of the body's is 0; then they count from 0. The width is that
    of the largest index, so it is the caller's to widen it to the model's.

    :raises BadInput: also for an index over 2**31 - 1.
    :raises UnsupportedContentType: where scipy is not installed.
    """
    sparse = scipy_sparse()
    values: list[float] = []
    indices: list[int] = []
    ends = [0]
    for number, line in enumerate(body.splitlines(), 1):
        tokens = line.partition(b"#")[0].split()
        if not tokens:
            continue
        for position, token in enumerate(tokens):
            key, colon, value = token.partition(b":")
            try:
                if b"_" in token:  # int() and float() read over it
                    raise ValueError
                if not colon and position == 0:
                    float(token)  # the label
                elif key != b"qid":
                    values.append(float(value))
                    indices.append(_index(key))
            except ValueError as error:
                shown = token[:40].decode("ascii", "replace")
                raise BadInput(f"line {number}: {shown!r} is not index:value, index from 0 to {MAX_WIDTH}") from error
        ends.append(len(indices))
    if len(ends) == 1:
        raise BadInput("the libsvm body holds no rows")
    columns = np.array(indices, dtype=np.int64)
    columns -= 1 if indices and columns.min() > 0 else 0
    width = int(columns.max()) + 1 if indices else 0
    matrix = sparse.csr_matrix((np.array(values), columns, ends), shape=(len(ends) - 1, width))
    matrix.sort_indices()
    if not matrix.has_canonical_format:
        raise BadInput("a row of the libsvm body names an index twice")
    return matrix


def _index(key: bytes) -> int:
    index = int(key)
    if not 0 <= index <= MAX_WIDTH:
        raise ValueError
    return index


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(f"the npz member {info.filename!r} is compressed in a way numpy never does")
    with archive.open(info) as member:
        return member.read(info.file_size)  # without a length, zipfile inflates first and cuts afterwards


def _vector(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    array = _array(_member(archive, name), "biuf" if name == "data" else "iu", f"{name}.npy")
    if array.ndim != 1:
        raise BadInput(f"{name}.npy is of shape {array.shape}, not a vector")
    return array if name == "data" else array.astype(np.int64)


def scipy_sparse() -> Any:
    """Return the module `scipy.sparse`.

    :raises UnsupportedContentType: where scipy is not installed.
    """
    try:
        import scipy.sparse
    except ImportError as error:
        raise UnsupportedContentType("sparse bodies need scipy, which is not installed here; send text/csv") from error
    return scipy.sparse

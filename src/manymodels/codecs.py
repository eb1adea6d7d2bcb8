"""Content types: bodies to data, predictions to bodies."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from .errors import BadInput, PredictionFailed, UnsupportedAccept, UnsupportedContentType
from .matrices import decode_libsvm, decode_npy, decode_npz
from .media import CSV, JSON, JSON_LINES, LIBSVM, NPY, NPZ, any_accept, choose, media_type
from .records import decode_records, encode_records
from .tabular import Table, decode_csv, decode_json, decode_jsonlines, features
from .tabular import text as utf8_text

__all__ = ["Table", "any_accept", "choose", "decode", "decode_libsvm", "encode", "features", "media_type", "text"]

_TEXT: dict[str, Callable[[bytes], Any]] = {
    JSON: decode_json,
    **dict.fromkeys(JSON_LINES, decode_jsonlines),
    **dict.fromkeys(LIBSVM, decode_libsvm),
}
_RECORDS = "application/x-recordio-protobuf"
_BINARY: dict[str, Callable[[bytes], Any]] = {
    NPY: decode_npy,
    NPZ: decode_npz,
    _RECORDS: decode_records,
}
_CURL = "application/x-www-form-urlencoded"
# A list of our own: Python's registry also knows charsets that decompress, or take quadratic time.
_CHARSETS = {
    "utf-8": None,
    "utf8": None,
    "us-ascii": None,
    "ascii": None,
    "iso-8859-1": "latin-1",
    "latin-1": "latin-1",
    "latin1": "latin-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "utf-16": "utf-16",
}
# numpy's scalars and arrays as they are, and dicts from class labels to probabilities
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def decode(
    body: bytes,
    content_type: str | None,
    *,
    names: Collection[str] | None = None,
    texts: Collection[str | int] = (),
) -> Any:
    """Turn a body into data by its content type; an absent one is ``application/json``.

    ``application/json``: a list becomes an array (float64, int64 or bool as numpy takes the numbers;
    object where there are strings). A list of objects, ``{"columns": [...], "data": [[...]]}``,
    ``{"dataframe_split": ...}`` and ``{"dataframe_records": ...}`` become a `Table`; objects that
    hold ``features`` alone and ``{"instances": [...]}`` are unwrapped. Any other object is returned as
    a dict; `features` unwraps the one that holds ``features``.

    ``application/jsonlines`` (``application/jsonl``, ``application/x-ndjson``): the same, a row a line.

    ``text/csv``: a 2-D float64 array where all cells are numbers (``nan`` and ``inf`` among them) or
    empty; otherwise an object array of float columns and str columns. Spaces around cells and empty
    lines are dropped. A `Table` with ``header=present``, or where the first row is `names` in any order; in
    a body of nothing but numbers no row is taken for a header unless the parameter says so. Cells of the columns
    `texts`, by name, or by place in rows without a header, stay text where they look like numbers, as postcodes do.

    ``application/x-npy``: an array of booleans or numbers.
    ``application/x-npz`` (``scipy.sparse.save_npz``) and ``text/libsvm`` (``text/x-libsvm``): a csr_matrix.
    ``application/x-recordio-protobuf``: an array of float32, float64 or int32, or where its rows have keys a
    csr_matrix.

    JSON's null and CSV's empty cell are NaN. Arrays are writable. ``charset`` may be UTF-8, US-ASCII,
    ISO-8859-1, ISO-8859-15, windows-1252 or UTF-16.

    :param names: the model's column names, by which the header of a CSV body is known.
    :raises BadInput: if the body is not what its type says.
    :raises UnsupportedContentType: if there is no decoder for the type or its charset.
    """
    kind, parameters = media_type(content_type)
    if kind in _BINARY:
        return _BINARY[kind](body)
    if kind != CSV and kind not in _TEXT:
        supported = ", ".join([*_TEXT, CSV, *_BINARY])
        hint = " (curl -d sends it by itself: add -H 'Content-Type: application/json')" if kind == _CURL else ""
        raise UnsupportedContentType(f"content type {kind!r} is not supported{hint}; send one of {supported}")
    if "charset" in parameters:
        body = _as_utf8(body, parameters["charset"])
    if kind == CSV:
        return decode_csv(body, parameters, names, texts)
    return _TEXT[kind](body)


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Turn a prediction into the body and content type that an Accept header likes best.

    Takes arrays, scipy's sparse matrices (made dense), lists, scalars, `Table`, pandas' Series and
    DataFrame, and for JSON anything made of lists and dicts. ``application/json`` and
    ``application/jsonlines`` (``application/x-ndjson``) write tables with names as objects, NaN and
    infinities as null. ``text/csv`` writes a row a line without a header, numbers in their shortest
    exact form, NaN as ``nan``. ``application/x-npy`` never holds objects. ``application/x-recordio-protobuf``
    has a record for each row, its numbers as ``label["values"]``, those of a table, or of a list of objects, by
    the names of their columns.

    :raises UnsupportedAccept: if no type that can be produced is accepted, or the prediction does not
        fit into it.
    :raises PredictionFailed: if it holds a value that JSON has no form for.
    """
    kind = choose(accept, _OFFERED)
    if hasattr(prediction, "toarray"):
        prediction = prediction.toarray()
    elif hasattr(prediction, "to_numpy"):
        columns = getattr(prediction, "columns", None)
        values = prediction.to_numpy()
        prediction = values if columns is None else Table(tuple(map(str, columns)), values)
    return _ENCODERS[kind](prediction), kind


def text(body: bytes, content_type: str | None) -> str:
    """Return a body of text as its ``charset`` parameter says, UTF-8 without one.

    :raises BadInput: if it is not of that charset.
    :raises UnsupportedContentType: if the charset is not one that `decode` knows.
    """
    _, parameters = media_type(content_type)
    return utf8_text(_as_utf8(body, parameters["charset"]) if "charset" in parameters else body)


def _as_utf8(body: bytes, charset: str) -> bytes:
    try:
        codec = _CHARSETS[charset.lower()]
    except KeyError:
        raise UnsupportedContentType(
            f"charset {charset!r} is not supported; send one of {', '.join(_CHARSETS)}"
        ) from None
    if codec is None:
        return body
    try:
        return body.decode(codec).encode()
    except UnicodeError as error:
        raise BadInput(f"the body is not {charset}: {error}") from error


def _to_json(prediction: Any) -> bytes:
    if isinstance(prediction, Table):
        prediction = [dict(zip(prediction.names, row, strict=True)) for row in prediction.rows.tolist()]
    try:
        return orjson.dumps(prediction, default=_for_json, option=_JSON_OPTIONS)
    except TypeError as error:
        raise PredictionFailed(f"the prediction cannot be written as JSON: {error}") from error


def _to_jsonlines(prediction: Any) -> bytes:
    return b"".join([_to_json(row) + b"\n" for row in _lines(prediction, named=True)])


def _to_csv(prediction: Any) -> bytes:
    lines = [line if isinstance(line, (list, tuple, np.ndarray)) else [line] for line in _lines(prediction)]
    if any(isinstance(cell, (list, tuple, np.ndarray, dict, bytes)) for line in lines for cell in line):
        raise UnsupportedAccept("the prediction is no table, so text/csv cannot hold it; accept application/json")
    written = _written(lines, csv.QUOTE_MINIMAL)
    # Older csv modules leave a lone carriage return unquoted, which readers take for a new row.
    return (_written(lines, csv.QUOTE_NONNUMERIC) if "\r" in written else written).encode()


def _written(lines: list[Any], quoting: Literal[0, 2]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def _as_array(prediction: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(prediction.rows if isinstance(prediction, Table) else prediction)
    except ValueError as error:
        raise UnsupportedAccept("the prediction's lists differ in length; accept application/json") from error


def _to_records(prediction: Any) -> bytes:
    if isinstance(prediction, list) and prediction and all(isinstance(row, dict) for row in prediction):
        if any(row.keys() != prediction[0].keys() for row in prediction):
            raise UnsupportedAccept("the prediction's rows have other names than each other; accept application/json")
        return encode_records({str(name): _as_array([row[name] for row in prediction]) for name in prediction[0]})
    array = _as_array(prediction)
    return encode_records(dict(zip(prediction.names, array.T, strict=True)) if isinstance(prediction, Table) else array)


def _to_npy(prediction: Any) -> bytes:
    array = _as_array(prediction)
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        array = array.astype(np.str_)
    if array.dtype.hasobject:
        raise UnsupportedAccept("the prediction is no array of numbers or strings; accept application/json")
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: _to_json,
    CSV: _to_csv,
    "application/jsonlines": _to_jsonlines,
    "application/x-ndjson": _to_jsonlines,
    NPY: _to_npy,
    _RECORDS: _to_records,
}
_OFFERED = tuple(_ENCODERS)


def _lines(prediction: Any, *, named: bool = False) -> Iterable[Any]:
    """Return what is written a line each: rows, or their values."""
    if isinstance(prediction, Table):
        rows = prediction.rows.tolist()
        return [dict(zip(prediction.names, row, strict=True)) for row in rows] if named else rows
    if isinstance(prediction, np.ndarray) and not prediction.ndim:
        return [prediction.item()]
    if isinstance(prediction, np.ndarray):
        # As Python floats, float32 and float16 would show digits they do not have.
        return prediction if prediction.dtype.itemsize < 8 and prediction.dtype.kind == "f" else prediction.tolist()
    return prediction if isinstance(prediction, (list, tuple)) else [prediction]


def _for_json(value: Any) -> Any:
    """Return what orjson cannot write itself in a form it can."""
    if isinstance(value, np.ndarray) and value.ndim and not value.flags.c_contiguous:
        return value.copy(order="C")
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in it")

"""Requests that are not as they should be, made from good ones."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from ..golden import Golden
from ..invocation import Invocation
from ..media import CSV, JSON, LIBSVM, NPY, NPZ, media_type


def bodies(golden: Golden) -> Iterator[tuple[str, Invocation]]:
    """Yield requests of the same content type with other bodies, each with what is wrong with it."""
    body, half = golden.body, len(golden.body) // 2
    spoilt = {
        "an empty body": b"",
        "a body cut in half": body[:half],
        "a body without its last byte": body[:-1],
        "a body with garbage behind it": body + b"\xff\x00]}garbage",
        "a body with garbage in the middle": body[:half] + b"\xff\xfe\x00" + body[half:],
        "unknown bytes": bytes(range(256)) * 16,
        "zeros": bytes(4096),
        "white space": b" \n\t" * 100,
        "a megabyte of one character": b"x" * (1 << 20),
    }
    if media_type(golden.content_type)[0] == JSON:
        deep, many = 100_000, 300_000
        spoilt |= {
            "brackets without end": b"[" * deep,
            "lists within lists": b"[" * 500 + b"]" * 500,
            "a row of many numbers": b"[[" + b"1," * many + b"1]]",
            "null": b"null",
            "a number": b"1",
            "a text": b'"text"',
            "no rows": b"[]",
            "an empty row": b"[[]]",
            "an empty object": b"{}",
            "an object of unknown keys": b'{"\\u0000": {"a": [1]}}',
            "rows of different widths": b"[[1, 2], [1]]",
        }
        values = {"NaN": b"NaN", "null": b"null", "a text": b'"x"', "an object": b'{"a": 1}', "a list": b"[1]"}
        values |= {"a huge number": b"1e308", "a number above all": b"1e999", "a number of 400 digits": b"9" * 400}
        spoilt |= {f"{what} in place of a number": text for what, text in _in_place(body, values)}
    if media_type(golden.content_type)[0] == CSV:
        for cell in ("nan", "inf", "1e999", "", "x", '"'):
            spoilt[f"{cell!r} in place of a number"] = cell.encode() + b"," + body.partition(b",")[2]
    for what, content in spoilt.items():
        yield what, Invocation(content, golden.content_type, golden.accept)


def headers(golden: Golden) -> Iterator[tuple[str, Invocation]]:
    """Yield the same request under other headers."""
    for content_type in (
        *(None, "", JSON, CSV, NPY, NPZ, LIBSVM[0], "application/no-such"),
        *(f"{golden.content_type}; charset=no-such", "application/octet-stream", ";;;=", "text/csv; header=present"),
    ):
        yield f"Content-Type {content_type!r}", Invocation(golden.body, content_type, golden.accept)
    for accept in ("application/no-such", "application/json;q=high", ";", "text/csv;q=0, */*;q=0"):
        yield f"Accept {accept!r}", Invocation(golden.body, golden.content_type, accept)


def wider(golden: Golden) -> Invocation | None:
    """Return the request with another number in each row; None if it holds no rows of numbers."""
    kind, _ = media_type(golden.content_type)
    body = {JSON: _wider_json, CSV: _wider_csv, NPY: _wider_npy}.get(kind, _wider_libsvm)
    content = body(golden.body) if kind in (JSON, CSV, NPY, *LIBSVM) else None
    return None if content is None else Invocation(content, golden.content_type, golden.accept)


def _in_place(body: bytes, values: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Put each value where the first number of a JSON body is."""
    mark = "\0here"
    marked, found = _replace_first(orjson.loads(body), mark)
    if not found:
        return
    before, after = orjson.dumps(marked).split(orjson.dumps(mark), 1)
    for what, value in values.items():
        yield what, before + value + after


def _replace_first(value: Any, new: Any) -> tuple[Any, bool]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return new, True
    if isinstance(value, (list, dict)):
        changed = copy.copy(value)
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            changed[key], found = _replace_first(item, new)
            if found:
                return changed, True
    return value, False


def _wider_json(body: bytes) -> bytes | None:
    content = orjson.loads(body)
    rows = _rows(content)
    for row in rows:
        row.append(1)
    return orjson.dumps(content) if rows else None


def _rows(content: Any) -> list[list[Any]]:
    """Return the lists of numbers that stand in a list: a list by itself may be one row, or one column."""
    if isinstance(content, dict):
        return [row for item in content.values() for row in _rows(item)]
    if not isinstance(content, list):
        return []
    if content and all(isinstance(row, list) and row and all(map(_is_number, row)) for row in content):
        return content
    return [row for item in content for row in _rows(item)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wider_csv(body: bytes) -> bytes | None:
    lines = body.splitlines()
    return b"".join(line + b",1\n" for line in lines) if all(b"," in line for line in lines) else None


def _wider_npy(body: bytes) -> bytes | None:
    array = np.load(io.BytesIO(body), allow_pickle=False)
    if array.ndim != 2:
        return None
    stream = io.BytesIO()
    np.save(stream, np.concatenate([array, array[:, :1]], axis=1), allow_pickle=False)
    return stream.getvalue()


def _wider_libsvm(body: bytes) -> bytes:
    return b"".join(line + b" 100000:1\n" for line in body.splitlines())

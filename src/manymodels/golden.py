"""Golden requests: what a model is asked, and what it must answer."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
import orjson

from .agreement import Disagreement, difference
from .codecs import decode
from .errors import BadInput
from .invocation import Answer, Invocation
from .media import JSON, media_type

_LINES = ("application/jsonlines", "application/jsonl", "application/x-ndjson")
_ARRAYS = ("application/x-npy", "application/x-npz")


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A request and the answer that the model must give to it."""

    body: bytes
    content_type: str = JSON
    accept: str = JSON
    #: Body of the answer, and its Content-Type; compared as values, not byte by byte, where the type is one of
    #: the platform's own.
    answer: bytes
    answer_content_type: str = JSON
    #: How far a number may be off, relative to ``max(1, |value|)``.
    tolerance: float = 1e-9

    def invocation(self) -> Invocation:
        """Return the request."""
        return Invocation(self.body, self.content_type, self.accept)

    def check(self, answer: Answer) -> float:
        """Compare an answer with the one that must be given.

        :returns: the largest difference of two numbers, relative to ``max(1, |value|)``.
        :raises Disagreement: if it is another answer; says where, in a few words.
        """
        if answer.status != 200:
            raise Disagreement(f"status {answer.status} instead of 200")
        kind, _ = media_type(self.answer_content_type)
        given, _ = media_type(answer.content_type)
        if given != kind:
            raise Disagreement(f"Content-Type {given} instead of {kind}")
        return difference(_values(self.answer, kind), _values(answer.body, kind), self.tolerance)


def _values(body: bytes, kind: str) -> Any:
    """Return what a body holds; the body itself where its type says nothing of that."""
    try:
        if kind == JSON:
            return orjson.loads(body)
        if kind in _LINES:
            return [orjson.loads(line) for line in body.splitlines() if line.strip()]
        if kind == "text/csv":
            return [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(body.decode()))]
        if kind in _ARRAYS:
            return decode(body, kind)
    except (ValueError, BadInput) as error:
        raise Disagreement(f"the answer is no {kind}: {error}") from error
    return body


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text

"""Golden requests: what a model is asked, and what it must answer; and the file of them in an artifact."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
import orjson

from .agreement import Disagreement, difference
from .artifact import GOLDEN, Artifact
from .codecs import decode
from .errors import BadArtifact, BadInput, ManyModelsError, OutOfMemory
from .invocation import Answer, Invocation
from .media import CSV, JSON, JSON_LINES, NPY, NPZ, media_type

#: Most golden requests of an artifact, and most bytes of their file.
MOST = 100
LIMIT = 4 << 20
#: Characters of an answer that a message shows.
_SHOWN = 200


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
        try:
            return difference(_values(self.answer, kind), _values(answer.body, kind), self.tolerance)
        except RecursionError as error:
            raise Disagreement("the answer is nested too deep to be compared") from error


class GoldenResult(msgspec.Struct, frozen=True):
    """How a model did on the golden requests of its artifact."""

    requests: int
    failed: int = 0


class _Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A line of the file. Bodies are JSON where their type is, else text; or base64, under a name of their own."""

    body: msgspec.Raw = msgspec.Raw(b"")
    body_base64: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    answer: msgspec.Raw = msgspec.Raw(b"")
    answer_base64: bytes | None = None
    answer_content_type: str = JSON
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 1e-9

    def golden(self, *, answers: bool) -> Golden:
        body = _body("body", bytes(self.body), self.body_base64, self.content_type)
        if not answers and not bytes(self.answer) and self.answer_base64 is None:
            answer = b""
        else:
            answer = _body("answer", bytes(self.answer), self.answer_base64, self.answer_content_type)
        return Golden(
            body=body,
            content_type=self.content_type,
            accept=self.accept,
            answer=answer,
            answer_content_type=self.answer_content_type,
            tolerance=self.tolerance,
        )


_UNSAID = _Line()


def read(artifact: Artifact) -> dict[int, Golden]:
    """Return the golden requests of an artifact by their lines; none where it brings no ``golden.jsonl``.

    :raises BadArtifact: if that file is not valid; names the line.
    """
    content = artifact.read(GOLDEN, LIMIT)
    return {} if content is None else parse(content, f"{GOLDEN} of {artifact.name!r}")


def parse(content: bytes, name: str, *, answers: bool = True) -> dict[int, Golden]:
    """Return the golden requests of a file by their lines; empty ones are left out.

    :param name: the file's, for messages.
    :param answers: whether each must say its answer.
    :raises BadArtifact: if a line is not valid, or there are none, or too many.
    """
    if len(content) > LIMIT:
        raise BadArtifact(f"{name} has more than {LIMIT} bytes")
    found: dict[int, Golden] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(found) == MOST:
            raise BadArtifact(f"{name} holds more than {MOST} requests")
        try:
            found[number] = msgspec.json.decode(line, type=_Line).golden(answers=answers)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise BadArtifact(f"{name}, line {number}, is not valid: {error}") from error
    if not found:
        raise BadArtifact(f"{name} holds no requests")
    return found


def write(goldens: Iterable[Golden]) -> bytes:
    """Return the file that `parse` reads as these requests."""
    return b"".join(msgspec.json.encode(_written(golden)) + b"\n" for golden in goldens)


def failures(goldens: Mapping[int, Golden], invoke: Callable[[Invocation], Answer | ManyModelsError]) -> Iterator[str]:
    """Ask all, and yield a sentence for each that is answered otherwise than it must be.

    :param goldens: by their lines in the artifact's file.
    :raises OutOfMemory: if memory ran out, which says nothing of the model.
    """
    for number, golden in goldens.items():
        answer = invoke(golden.invocation())
        if isinstance(answer, OutOfMemory):
            raise answer
        expected = _shown(golden.answer, golden.answer_content_type)
        if isinstance(answer, ManyModelsError):
            yield f"{GOLDEN}, line {number}: {type(answer).__name__} instead of {expected}: {answer}"
            continue
        try:
            golden.check(answer)
        except Disagreement as error:
            came = _shown(answer.body, answer.content_type)
            yield f"{GOLDEN}, line {number}: the model answers {came} instead of {expected}: {error}"


def _body(name: str, raw: bytes, base64: bytes | None, content_type: str) -> bytes:
    if bool(raw) == (base64 is not None):
        raise ValueError(f"it must have one of {name} and {name}_base64")
    if base64 is not None:
        return base64
    kind, _ = media_type(content_type)
    if kind == JSON:
        orjson.loads(raw)  # what msgspec skips it does not check for UTF-8
        return raw
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except msgspec.ValidationError:
        raise ValueError(f"{name} is {kind}, so it must be a text, or base64 in {name}_base64") from None


def _written(golden: Golden) -> dict[str, Any]:
    """Return a line of the file; what is as it is unless said is left out."""
    line = {
        **_member("body", golden.body, golden.content_type),
        "content_type": golden.content_type,
        "accept": golden.accept,
        **_member("answer", golden.answer, golden.answer_content_type),
        "answer_content_type": golden.answer_content_type,
        "tolerance": golden.tolerance,
    }
    return {name: value for name, value in line.items() if value != getattr(_UNSAID, name)}


def _member(name: str, body: bytes, content_type: str) -> dict[str, Any]:
    try:
        text = body.decode()
        if media_type(content_type)[0] != JSON:
            return {name: text}
        orjson.loads(body)
        return {name: msgspec.Raw(msgspec.json.format(body, indent=0))}  # on one line
    except (ValueError, RecursionError):
        return {f"{name}_base64": body}


def _shown(body: bytes, content_type: str) -> str:
    try:
        text = " ".join(body.decode().split())
    except UnicodeDecodeError:
        return f"{len(body)} bytes of {media_type(content_type)[0]}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _values(body: bytes, kind: str) -> Any:
    """Return what a body holds; the body itself where its type says nothing of that."""
    try:
        if kind == JSON:
            return orjson.loads(body)
        if kind in JSON_LINES:
            return [orjson.loads(line) for line in body.splitlines() if line.strip()]
        if kind == CSV:
            return [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(body.decode()))]
        if kind in (NPY, NPZ):
            return decode(body, kind)
    except (ValueError, csv.Error, BadInput) as error:
        raise Disagreement(f"the answer is no {kind}: {error}") from error
    return body


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text

"""Answers and errors as each API words them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import orjson

from .. import sagemaker
from ..errors import ManyModelsError, ModelNotFound
from ..invocation import Answer
from ..media import JSON
from .request import Request

logger = logging.getLogger(__name__)

#: Names the version of the artifact that answered.
ARTIFACT_VERSION = "x-manymodels-artifact-version"
#: Names the artifact that was asked in place of a name above artifacts.
RESOLVED = "x-manymodels-target-model"

#: The exception names of multi-model-server, which log filters and alarms of its users look for.
_MMS_TYPES = {
    400: "BadRequestException",
    404: "ModelNotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictStatusException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers that are the server's to set, whatever a model's script says.
_OWN = {"connection", "content-length", "content-type", "date", "keep-alive", "server", "te", "trailer"}
_OWN |= {"transfer-encoding", "upgrade", ARTIFACT_VERSION, RESOLVED}
#: Types that browsers run scripts of, in the line of the Content-Type, however it is written.
_SCRIPTED = re.compile(r"[/+](?i:html|xml)")
#: Headers of such answers: a model's are of the same origin as the server's own pages.
_SANDBOX = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
#: Statuses of replies that end with their headers, whatever these say of a body.
BODILESS = (204, 304)


class Reply(msgspec.Struct, array_like=True):
    """Status, headers and body, ready to be sent."""

    status: int
    body: bytes
    #: The lines of headers, that of the content type first; the body's length is not among them.
    head: str
    #: Seconds by stage, for Server-Timing.
    timings: dict[str, float] = {}

    @classmethod
    def of(cls, status: int, body: bytes, content_type: str) -> Reply:
        """Return a reply of any content type."""
        return cls(status, body, type_line(content_type))

    @classmethod
    def json(cls, status: int, content: Any) -> Reply:
        """Return a JSON reply."""
        return cls.of(status, orjson.dumps(content) + b"\n", JSON)

    def add(self, name: str, value: str) -> Reply:
        """Add a header; control characters in its value become spaces, so that it cannot forge others."""
        self.head += f"{name.lower()}: {_clean(value)}\r\n"
        return self

    def framing(self) -> str:
        """Return the header that says where the body ends."""
        return "" if self.status in BODILESS else f"content-length: {len(self.body)}\r\n"

    def encode(self, date: str, *, close: bool) -> bytes:
        """Return what stands before the body."""
        status = f"HTTP/1.1 {self.status} {_PHRASES.get(self.status, '')}\r\ndate: {date}\r\n"
        last = "connection: close\r\n\r\n" if close else "\r\n"
        return f"{status}{self.head}{self.framing()}{last}".encode("latin-1", "replace")


def _clean(value: str) -> str:
    return value if value.isprintable() else _UNPRINTABLE.sub(" ", value)


R = TypeVar("R", bound=Reply)


def type_line(content_type: str) -> str:
    """Return the line of the Content-Type."""
    return f"content-type: {_clean(content_type)}\r\n"


def answer(result: Answer) -> Reply:
    """Return the reply to an invocation."""
    return with_headers(Reply.of(result.status, result.body, result.content_type), result)


def with_headers(reply: R, result: Answer) -> R:
    """Add to a reply, which has its Content-Type alone yet, what the model set of its headers."""
    own = _OWN
    if _SCRIPTED.search(reply.head) is not None:
        own = _OWN | _SANDBOX.keys()
        for name, value in _SANDBOX.items():
            reply.add(name, value)
    for name, value in result.headers.items():
        if name.lower() not in own and _TOKEN.fullmatch(name):
            reply.add(name, value)
    return told(reply, result)


def told(reply: R, result: Answer) -> R:
    """Add to the reply to an invocation what is ours to say: which version answered, and how long that took."""
    if result.version:
        reply.add(ARTIFACT_VERSION, result.version)
    reply.timings = result.timings
    return resolved(reply, result.target_model)


def resolved(reply: R, target_model: str | None) -> R:
    """Say which artifact was asked in place of a name above artifacts; in UTF-8, as boto3 sends TargetModels."""
    if target_model is not None:
        reply.add(RESOLVED, target_model.encode().decode("latin-1"))
    return reply


def timing(timings: Mapping[str, float]) -> str:
    """Return a Server-Timing value; milliseconds, as the header wants them."""
    return _timing(tuple(timings)) % tuple([seconds * 1e3 for seconds in timings.values()])


@lru_cache(maxsize=64)
def _timing(names: tuple[str, ...]) -> str:
    """Return the format of a Server-Timing value."""
    return ", ".join(f"{name.replace('%', '%%')};dur=%.3f" for name in names)


def container_error(error: ManyModelsError, _: Request) -> Reply:
    """Return an error of the container API, worded as multi-model-server does."""
    return _error(error, error.status, _MMS_TYPES.get(error.status, type(error).__name__))


def invocations_error(error: ManyModelsError, _: Request) -> Reply:
    """Return an error of ``/invocations``."""
    return _error(error, error.invocations_status or error.status, type(error).__name__)


def _error(error: ManyModelsError, status: int, kind: str) -> Reply:
    content = {"code": status, "type": kind, "message": str(error)}
    reply = Reply.json(status, content)
    return reply if error.retry_after is None else reply.add("retry-after", str(error.retry_after))


def aws_error(error: ManyModelsError, request: Request) -> Reply:
    """Return an error of the endpoint API, which boto3 raises as the modelled exception."""
    status, kind = error.aws
    if kind == "ModelError":
        original = error.status if error.original_status is None else error.original_status
        return model_error(original, str(error), request.parameters["endpoint"])
    message = str(error)
    if isinstance(error, ModelNotFound):
        message = f"Failed to download model data: {message}"
    return _aws(status, kind, {"Message": message})


def model_error(original: int, message: str, endpoint: str) -> Reply:
    """Return a ModelError.

    Shape: botocore service model ``sagemaker-runtime``; wording as users quote it.
    """
    side, code = ("server", "INTERNAL_FAILURE_FROM_MODEL")
    if 400 <= original < 500:
        side, code = ("client", "CLIENT_ERROR_FROM_MODEL")
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    content = {
        "ErrorCode": code,
        "LogStreamArn": f"arn:aws:logs:local:000000000000:log-group:{group}",
        "Message": f'Received {side} error ({original}) from model with message "{message}". '
        f"See the server's log for more information.",
        "OriginalMessage": message,
        "OriginalStatusCode": original,
    }
    return _aws(424, "ModelError", content)


def _aws(status: int, kind: str, content: dict[str, Any]) -> Reply:
    return Reply.json(status, content).add(sagemaker.ERROR_TYPE, kind)

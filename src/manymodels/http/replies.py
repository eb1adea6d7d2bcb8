"""Answers and errors as each API words them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Send

from .. import sagemaker
from ..errors import ManyModelsError, ModelNotFound
from ..invocation import Answer

logger = logging.getLogger(__name__)

JSON = "application/json"

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
_OWN |= {"transfer-encoding", "upgrade"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


class Reply:
    """Status, headers and body, ready to be sent."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, content_type: str, request_id: str) -> None:
        self.status = status
        self.body = body
        self.headers: list[tuple[bytes, bytes]] = [
            (b"content-type", _clean(content_type)),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]

    @classmethod
    def json(cls, status: int, content: Any, request_id: str) -> Reply:
        """Return a JSON reply."""
        return cls(status, orjson.dumps(content) + b"\n", JSON, request_id)

    def add(self, name: str, value: str) -> Reply:
        """Add a header; control characters in its value become spaces, so that it cannot forge others."""
        self.headers.append((name.lower().encode("latin-1"), _clean(value)))
        return self

    async def send(self, send: Send) -> None:
        """Send the reply."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def _clean(value: str) -> bytes:
    return _UNPRINTABLE.sub(" ", value).encode("latin-1", "replace")


def answer(result: Answer, request_id: str) -> Reply:
    """Return the reply to an invocation."""
    reply = Reply(result.status, result.body, result.content_type, request_id)
    for name, value in result.headers.items():
        if name.lower() not in _OWN and _TOKEN.fullmatch(name):
            reply.add(name, value)
    return reply.add("server-timing", timing(result.timings))


def timing(timings: Mapping[str, float]) -> str:
    """Return a Server-Timing value; milliseconds, as the header wants them."""
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in timings.items())


def container_error(error: ManyModelsError, request_id: str) -> Reply:
    """Return an error of the container API, worded as multi-model-server does."""
    return _error(error, error.status, _MMS_TYPES.get(error.status, type(error).__name__), request_id)


def invocations_error(error: ManyModelsError, request_id: str) -> Reply:
    """Return an error of ``/invocations``."""
    return _error(error, error.invocations_status or error.status, type(error).__name__, request_id)


def _error(error: ManyModelsError, status: int, kind: str, request_id: str) -> Reply:
    content = {"code": status, "type": kind, "message": str(error)}
    reply = Reply.json(status, content, request_id)
    return reply if error.retry_after is None else reply.add("retry-after", str(error.retry_after))


def aws_error(error: ManyModelsError, endpoint: str, request_id: str) -> Reply:
    """Return an error of the endpoint API, which boto3 raises as the modelled exception."""
    status, kind = error.aws
    if kind == "ModelError":
        original = error.status if error.original_status is None else error.original_status
        return model_error(original, str(error), endpoint, request_id)
    message = str(error)
    if isinstance(error, ModelNotFound):
        message = f"Failed to download model data: {message}"
    return _aws(status, kind, {"Message": message}, request_id)


def model_error(original: int, message: str, endpoint: str, request_id: str) -> Reply:
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
    return _aws(424, "ModelError", content, request_id)


def _aws(status: int, kind: str, content: dict[str, Any], request_id: str) -> Reply:
    return Reply.json(status, content, request_id).add(sagemaker.ERROR_TYPE, kind)

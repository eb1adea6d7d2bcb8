"""SageMaker's control plane over HTTP: AWS's JSON protocol, version 1.1."""

from __future__ import annotations

import msgspec
import orjson

from ..emulation import BadJson, ControlPlane, Failure
from ..errors import ManyModelsError
from .replies import Reply
from .request import Request

#: What the header X-Amz-Target begins with.
_SERVICE = "SageMaker."


class Control:
    """The handler of ``/``."""

    def __init__(self, plane: ControlPlane, limit: int) -> None:
        """Answer for a control plane.

        :param limit: bytes of the largest body, for the message.
        """
        self._plane = plane
        self._limit = limit

    async def call(self, request: Request) -> Reply:
        """``POST /``: carry out the operation that the header X-Amz-Target names."""
        operation = (request.operation or "").removeprefix(_SERVICE)
        try:
            content = msgspec.json.decode(request.content(self._limit) or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadJson(f"the body is not JSON: {error}") from error
        return _reply(200, await self._plane.call(operation, content, request.region))


def control_error(error: ManyModelsError, _: Request) -> Reply:
    """Return an error of the control plane, which boto3 raises under its code."""
    if isinstance(error, Failure):
        return _reply(400, {"__type": error.kind, "message": str(error)})
    status, kind = (400, "ValidationException") if error.status < 500 else (500, "InternalFailure")
    return _reply(status, {"__type": kind, "message": str(error)})


def _reply(status: int, content: object) -> Reply:
    return Reply.of(status, orjson.dumps(content), "application/x-amz-json-1.1")

"""Read an ASGI request: headers, body, and whether the client is still there."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from starlette.types import Receive, Scope

from ..errors import BadTargetModel, BodyTooLarge
from ..invocation import Invocation
from ..sagemaker import TARGET_MODEL

_TARGET_MODEL = TARGET_MODEL.encode()
_SAGEMAKER = b"x-amzn-sagemaker-"

#: An oversized body is read to its end, up to this many bytes, so that the client reads the answer
#: instead of a connection cut off while it sends.
DRAIN = 256 << 20
#: Seconds after which a request that is not answered yet is watched for its client going away.
WATCH_AFTER = 0.25


class ClientGone(Exception):
    """The client closed the connection; nobody waits for the answer."""


class Request:
    """A request to a model, read from ASGI."""

    __slots__ = ("_receive", "_scope", "accept", "content_type", "headers", "id", "length", "target")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self.id = str(uuid.uuid4())
        self.content_type: str | None = None
        self.accept: str | None = None
        self.length: int | None = None
        self.target: bytes | None = None
        #: What SageMaker passes on to a model: content type, accept, and its own headers.
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name == b"content-type":
                self.content_type = self.headers["content-type"] = value.decode("latin-1")
            elif name == b"accept":
                accept = value.decode("latin-1")
                # A list may come as several headers.
                self.accept = self.headers["accept"] = accept if self.accept is None else f"{self.accept}, {accept}"
            elif name == b"content-length":
                self.length = int(value)
            elif name == _TARGET_MODEL:
                self.target = value
                self.headers[TARGET_MODEL] = value.decode("utf-8", "replace")
            elif name.startswith(_SAGEMAKER):
                self.headers[name.decode("latin-1")] = value.decode("latin-1")

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self._scope["method"])

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in the path."""
        parameters: dict[str, str] = self._scope["path_params"]
        return parameters

    @property
    def query(self) -> bytes:
        """The query string, undecoded."""
        return bytes(self._scope["query_string"])

    def target_model(self) -> str | None:
        """Return the TargetModel header; None if absent.

        :raises BadTargetModel: if it is not UTF-8, as which boto3 sends it.
        """
        if self.target is None:
            return None
        try:
            return self.target.decode()
        except UnicodeDecodeError as error:
            raise BadTargetModel(f"the TargetModel header is not valid UTF-8: {error.reason}") from error

    async def body(self, limit: int) -> bytes:
        """Read the body.

        :param limit: most bytes it may have.
        :raises BodyTooLarge: if it has more.
        :raises ClientGone: if the client went away while sending it.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False) and len(body) <= limit:
            return body
        chunks = [body]
        size = len(body)
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            if size > max(DRAIN, limit):
                break
            if size > limit or (self.length or 0) > limit:
                chunks.clear()
            else:
                chunks.append(message.get("body", b""))
        if size > limit:
            raise BodyTooLarge(
                f"the body has more than {limit} bytes, which is the limit; "
                f"send fewer rows at a time, or raise --max-body"
            )
        return b"".join(chunks)

    async def invocation(self, limit: int) -> Invocation:
        """Read the body and return the invocation the request makes."""
        return Invocation(await self.body(limit), self.content_type, self.accept, self.headers, self.id)

    def watch(self) -> asyncio.TimerHandle:
        """Cancel the present task when the client goes away; cancel what is returned once it is answered."""
        task = asyncio.current_task()
        assert task is not None
        return _Watch(self._receive, task).handle


class _Watch:
    """Waits for the client to go away, from a while on: most requests are answered before that costs anything."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any]) -> None:
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        self.handle = asyncio.get_running_loop().call_later(WATCH_AFTER, self._start)

    def _start(self) -> None:
        if not self._task.done():
            self._watcher = asyncio.ensure_future(self._wait())
            self._task.add_done_callback(lambda _: self._watcher.cancel() if self._watcher else None)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._task.cancel()

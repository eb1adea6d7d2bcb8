"""Streamed answers on their way to clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ManyModelsError
from ..invocation import Answer
from ..server.streams import Stream, Streamed
from .replies import Reply, answer, type_line, with_headers


class Body:
    """The bytes of a reply that is still being made."""

    def __init__(
        self,
        first: bytes,
        stream: Stream,
        encode: Callable[[Sequence[bytes]], bytes] = b"".join,
        broken: Callable[[ManyModelsError], bytes] | None = None,
    ) -> None:
        """Pass on a stream.

        :param first: the part before those of the stream.
        :param encode: makes what is sent of parts that came together.
        :param broken: makes what is sent when the stream breaks off; None: the reply breaks off, too.
        """
        self._first = [first] if first else []
        self._stream = stream
        self._encode = encode
        self._broken = broken
        self._over = False

    async def read(self) -> bytes:
        """Return the next bytes; none at the end.

        :raises ManyModelsError: where the reply breaks off.
        """
        parts, self._first = self._first, []
        if parts:
            return self._encode(parts)
        try:
            parts = [] if self._over else await self._stream.read()
        except ManyModelsError as error:
            if self._broken is None:
                raise
            self._over = True
            return self._broken(error)
        return self._encode(parts) if parts else b""

    def close(self) -> None:
        """End the stream, if its end was not read: nobody reads on."""
        self._stream.close()


class StreamedReply(Reply, kw_only=True):
    """A reply whose body is still being made; `body` is empty."""

    rest: Body

    def framing(self) -> str:
        """Return nothing: how long the body will be is not known, and whoever sends it says how it ends."""
        return ""


def reply_to(result: Answer) -> Reply:
    """Return the reply to an invocation, streamed where the model streams."""
    if not isinstance(result, Streamed):
        return answer(result)
    return streamed(result, result.content_type, Body(result.body, result.stream))


def streamed(result: Answer, content_type: str, body: Body) -> StreamedReply:
    """Return the reply of an answer whose body is still being made."""
    return with_headers(StreamedReply(result.status, b"", type_line(content_type), rest=body), result)

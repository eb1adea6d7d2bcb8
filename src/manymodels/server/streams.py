"""Answers that are passed on while they are still being made: their reader's end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from ..errors import ManyModelsError, PredictionFailed
from ..invocation import PART, Answer
from .messages import WINDOW


class Stream:
    """The parts of an answer, which come as fast as they are read."""

    def __init__(self, pull: Callable[[int], None], stop: Callable[[], None]) -> None:
        """Wait for parts.

        :param pull: lets the sender send that many bytes more.
        :param stop: tells the sender that no more is wanted.
        """
        self._pull = pull
        self._stop = stop
        self._parts: list[bytes] = []
        #: Bytes that came and were not read, and that were read and not pulled.
        self._held = 0
        self._read = 0
        #: Whether all parts came, or no more are wanted.
        self.ended = False
        self._error: ManyModelsError | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._after: list[Callable[[ManyModelsError | None], None]] = []

    # -- The sender's side --

    def feed(self, part: bytes) -> None:
        """Take a part.

        :raises LookupError: if the sender sends more than it was told to.
        """
        if self.ended:
            return  # it was sent before the sender was told to stop
        self._held += len(part)
        if self._held > WINDOW + PART:
            raise LookupError(f"{self._held} bytes came of a stream, and {WINDOW} were asked for")
        self._parts.append(part)
        self._wake()

    def finish(self, error: ManyModelsError | None = None) -> None:
        """Take note that all parts came, or why no more come."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        self._wake()
        for callback in self._after:
            callback(error)

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    # -- The reader's side --

    def after(self, callback: Callable[[ManyModelsError | None], None]) -> None:
        """Call back once it has ended, with the error if it broke off."""
        if self.ended:
            callback(self._error)
        else:
            self._after.append(callback)

    def close(self, error: ManyModelsError | None = None) -> bool:
        """End it, whatever is still to come; False if it had ended."""
        if self.ended:
            return False
        self._stop()
        self.finish(error)
        return True

    async def read(self) -> list[bytes]:
        """Return the parts that came, after waiting for one; none at the end.

        :raises ManyModelsError: after the last part, if it broke off.
        """
        while not self._parts and not self.ended:
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        parts, self._parts = self._parts, []
        if not parts and self._error is not None:
            raise self._error.again()
        self._read += self._held
        self._held = 0
        if self._read >= WINDOW // 4 and not self.ended:
            self._pull(self._read)
            self._read = 0
        return parts


class Streamed(Answer, kw_only=True):
    """An answer whose `body` is only the first part."""

    stream: Stream


def once_whole(answer: Answer, callback: Callable[..., None], *args: object) -> None:
    """Call back once an answer has come to its end: at once, unless it is streamed.

    :param args: passed before the error, or None, with which it ended.
    """
    if isinstance(answer, Streamed):
        answer.stream.after(functools.partial(callback, *args))
    else:
        callback(*args, None)


def discard(answer: object) -> None:
    """End an answer that nobody is to have, if it is one that is streamed."""
    if isinstance(answer, Streamed):
        answer.stream.close()


async def collected(answer: Answer, limit: int) -> Answer:
    """Return an answer in one piece.

    :param limit: most bytes it may have, if it is streamed.
    :raises ManyModelsError: if it breaks off, or is longer.
    """
    if not isinstance(answer, Streamed):
        return answer
    stream = answer.stream
    body = bytearray(answer.body)
    try:
        while parts := await stream.read():
            for part in parts:
                body += part
            if len(body) > limit:
                raise PredictionFailed(f"the model streams more than {limit} bytes; ask for the answer as a stream")
    finally:
        stream.close()
    return Answer(
        bytes(body),
        answer.content_type,
        answer.status,
        answer.headers,
        answer.timings,
        answer.version,
        answer.target_model,
    )

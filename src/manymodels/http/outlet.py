"""Pass streamed replies on to a front process, as fast as its clients read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import ManyModelsError
from ..invocation import PART
from ..server.messages import WINDOW, Failure
from .link import Answered, Ended, Piece
from .replies import Reply
from .streaming import StreamedReply


class Outlet:
    """The owner's end of one streamed reply."""

    def __init__(self, send: Callable[[Answered | Piece | Ended, int], None], number: int) -> None:
        self._send = send
        self._number = number
        #: Bytes that may be sent.
        self._room = WINDOW
        self._has_room = asyncio.Event()
        self._has_room.set()

    def read(self, count: int) -> None:
        """Take note that the client took that many bytes."""
        self._room += count
        if self._room > 0:
            self._has_room.set()

    async def send(self, reply: StreamedReply) -> None:
        """Send a reply to its end; cancelled, the model is told that nobody reads it."""
        number = self._number
        failure = None
        self._send(Answered(number, Reply(reply.status, b"", reply.head, reply.timings), streamed=True), 0)
        try:
            while data := await reply.rest.read():
                for start in range(0, len(data), PART):
                    await self._has_room.wait()
                    piece = data[start : start + PART]
                    self._room -= len(piece)
                    if self._room <= 0:
                        self._has_room.clear()
                    self._send(Piece(number, piece), len(piece))
        except ManyModelsError as error:
            failure = Failure.of(error)
        finally:
            reply.rest.close()
        self._send(Ended(number, failure), 0)

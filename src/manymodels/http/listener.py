"""Listens on a socket and answers what comes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from .codings import Codings
from .connection import Connection
from .replies import Reply
from .request import Ids, Request
from .sigv4 import AccessKeys

logger = logging.getLogger(__name__)

#: Connections that wait to be taken; the system may allow fewer (net.core.somaxconn).
BACKLOG = 2048
#: Seconds between looks at who is too slow.
TICK = 1.0
#: Seconds between looks whether the last connection has ended.
POLL = 0.02


class Listener:
    """The connections of one process, and what they have in common."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Reply]],
        max_body: int,
        receive_timeout: float,
        access_keys: AccessKeys | None = None,
    ) -> None:
        self._codings = Codings(answer, max_body)
        self.answer: Callable[[Request], Awaitable[Reply]] = self._codings.answer
        self.access_keys = access_keys
        self.max_body = max_body
        self.receive_timeout = receive_timeout
        self.stopping = False
        self.ids = Ids()
        self.connections: set[Connection] = set()
        self.date = ""

    async def start(self, sock: socket.socket) -> None:
        """Take connections of a socket that is bound."""
        self._loop = asyncio.get_running_loop()
        self._tick()
        if self.access_keys is not None:
            self.access_keys.start()
        self._server = await self._loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)

    def _tick(self) -> None:
        self.date = formatdate(time.time(), usegmt=True)
        now = self._loop.time()
        for connection in list(self.connections):
            connection.expire(now)
        self._timer = self._loop.call_later(TICK, self._tick)

    async def stop(self, grace: float) -> None:
        """Take no more requests, and let those that are being read or answered end.

        :param grace: seconds they have.
        """
        self.stopping = True
        self._server.close()
        for connection in list(self.connections):
            connection.stop()
        await asyncio.sleep(POLL)  # in which those that had nothing to answer are gone
        if self.connections:
            logger.info("stopping: what is being answered has %d s; Ctrl-C again hangs up on it", grace)
        end = self._loop.time() + grace
        while self.connections and self._loop.time() < end:  # noqa: ASYNC110 - at the end only
            await asyncio.sleep(POLL)
        self.abort()
        self._timer.cancel()
        if self.access_keys is not None:
            self.access_keys.stop()
        self._codings.close()

    def abort(self) -> None:
        """End all connections now."""
        for connection in list(self.connections):
            connection.abort()

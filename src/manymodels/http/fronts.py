"""The front processes, as the owner of the models sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ..settings import Settings
from .front import FrontConfig
from .link import Answered, Asked, Link, Read, Stop, ToOwner, to_owner_decoder
from .outlet import Outlet
from .replies import Reply
from .request import Request
from .streaming import StreamedReply

logger = logging.getLogger(__name__)

#: Seconds before a front that ended is started again, if it had not even served that long.
RETRY = 0.5
#: Seconds a front has to end, beyond those for its requests.
EXIT_WAIT = 2.0

Answer = Callable[[Request], Awaitable[Reply]]


class _Front:
    """One front process and what it asked."""

    def __init__(self, answer: Answer) -> None:
        self.link = Link(to_owner_decoder, self._received, self._lost)
        self._answer = answer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outlets: dict[int, Outlet] = {}

    def _received(self, message: ToOwner) -> None:
        if isinstance(message, Asked):
            task = asyncio.get_running_loop().create_task(self._reply(message))
            self._tasks[message.number] = task
        elif isinstance(message, Read):
            if (outlet := self._outlets.get(message.number)) is not None:
                outlet.read(message.bytes)
        elif (gone := self._tasks.get(message.number)) is not None:
            gone.cancel()

    async def _reply(self, asked: Asked) -> None:
        try:
            reply = await self._answer(asked.request)
            if isinstance(reply, StreamedReply):
                self._outlets[asked.number] = outlet = Outlet(self.link.send, asked.number)
                await outlet.send(reply)
            else:
                self.link.send(Answered(asked.number, reply), len(reply.body))
        finally:
            self._outlets.pop(asked.number, None)
            del self._tasks[asked.number]

    def _lost(self) -> None:
        for task in self._tasks.values():
            task.cancel()


class Fronts:
    """Keeps a front process running for each of some listening sockets.

    The sockets stay open here: when a front ends, clients that connect wait until the next one has started.
    """

    def __init__(self, answer: Answer, settings: Settings, grace: float) -> None:
        self._answer = answer
        self._settings = settings
        self._grace = grace
        self._stopping = False
        self._fronts: set[_Front] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, socks: Sequence[socket.socket]) -> None:
        """Start the fronts."""
        self._tasks = [asyncio.get_running_loop().create_task(self._keep(sock)) for sock in socks]

    async def stop(self) -> None:
        """Let the fronts answer what they were asked, and end."""
        self._stopping = True
        for front in self._fronts:
            front.link.send(Stop())
        _, late = await asyncio.wait(self._tasks, timeout=self._grace + EXIT_WAIT)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def abort(self) -> None:
        """End the fronts now."""
        for task in self._tasks:
            task.cancel()

    async def _keep(self, sock: socket.socket) -> None:
        """Run a front, again and again."""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            code = await self._run(sock)
            if not self._stopping:
                logger.error("a front process ended with exit code %s and is started again", code)
                if loop.time() - began < RETRY:
                    await asyncio.sleep(RETRY)

    async def _run(self, sock: socket.socket) -> int | str:
        """Run a front to its end; return its exit code, or why it could not be started."""
        front = _Front(self._answer)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "manymodels.http.front",
                    msgspec.json.encode(self._config(sock, theirs)).decode(),
                    pass_fds=(sock.fileno(), theirs.fileno()),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                return str(error)
        await asyncio.get_running_loop().create_unix_connection(lambda: front.link, sock=ours)
        self._fronts.add(front)
        if self._stopping:
            front.link.send(Stop())
        try:
            return await process.wait()
        finally:
            self._fronts.discard(front)
            front.link.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _config(self, sock: socket.socket, owner: socket.socket) -> FrontConfig:
        return FrontConfig(
            listening=sock.fileno(),
            owner=owner.fileno(),
            max_body=int(self._settings.max_body),
            receive_timeout=self._settings.receive_timeout,
            grace=self._grace,
            log_level=self._settings.log_level,
            log_format=self._settings.log_format,
            access_keys=None if self._settings.access_keys is None else str(self._settings.access_keys),
        )

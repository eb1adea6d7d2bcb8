"""A front process: speaks HTTP, and asks the owner of the models for every answer."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop

from .. import log
from ..server.streams import Stream
from . import interpreter
from .link import Answered, Asked, Ended, Gone, Link, Piece, Read, ToFront, to_front_decoder
from .listener import Listener
from .replies import Reply
from .request import Request
from .sigv4 import AccessKeys
from .streaming import Body, StreamedReply


class FrontConfig(msgspec.Struct):
    """What a front process is started with."""

    #: File descriptors of the listening socket and of the connection to the owner.
    listening: int
    owner: int
    max_body: int
    receive_timeout: float
    #: Seconds that running requests have when it stops.
    grace: float
    log_level: str
    log_format: str
    #: The file of access keys.
    access_keys: str | None


class Owner:
    """The owner of the models, as a front process sees it."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.lost = asyncio.Event()
        self.link = Link(to_front_decoder, self._received, self._on_lost)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count()

    async def answer(self, request: Request) -> Reply:
        """Have a request answered."""
        number = next(self._numbers)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.link.send(Asked(number, request), len(request.body or b""))
        try:
            return await future
        except asyncio.CancelledError:
            self._streams.pop(number, None)
            self.link.send(Gone(number))
            raise
        finally:
            del self._waiting[number]

    def _received(self, message: ToFront) -> None:
        if isinstance(message, Answered):
            future = self._waiting.get(message.number)
            if future is not None and not future.done():
                future.set_result(self._streamed(message) if message.streamed else message.reply)
        elif isinstance(message, Piece):
            if (stream := self._streams.get(message.number)) is not None:
                stream.feed(message.body)
        elif isinstance(message, Ended):
            if (stream := self._streams.pop(message.number, None)) is not None:
                stream.finish(None if message.failure is None else message.failure.error())
        else:
            self.stop.set()

    def _streamed(self, message: Answered) -> StreamedReply:
        """Return a reply whose body is still to come."""
        number, reply = message.number, message.reply

        def stop() -> None:
            self._streams.pop(number, None)
            self.link.send(Gone(number))

        stream = self._streams[number] = Stream(lambda count: self.link.send(Read(number, count)), stop)
        return StreamedReply(reply.status, b"", reply.head, reply.timings, rest=Body(b"", stream))

    def _on_lost(self) -> None:
        self.lost.set()
        self.stop.set()


async def _run(config: FrontConfig) -> None:
    owner = Owner()
    access_keys = None if config.access_keys is None else AccessKeys.read(Path(config.access_keys))
    listener = Listener(owner.answer, config.max_body, config.receive_timeout, access_keys)
    connection = socket.socket(fileno=config.owner)
    await asyncio.get_running_loop().create_unix_connection(lambda: owner.link, sock=connection)
    with socket.socket(fileno=config.listening) as sock:
        await listener.start(sock)
        interpreter.tune()
        await owner.stop.wait()
        # Without an owner nothing can be answered.
        await listener.stop(0 if owner.lost.is_set() else config.grace)
    owner.link.close()


def main() -> None:
    """Serve until the owner says to stop, or ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the owner gets them too, and stops its fronts in order
        signal.signal(number, signal.SIG_IGN)
    config = msgspec.json.decode(sys.argv[1], type=FrontConfig)
    log.configure(config.log_level, config.log_format)
    uvloop.run(_run(config))


if __name__ == "__main__":
    main()

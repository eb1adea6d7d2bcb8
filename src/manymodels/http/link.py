"""What front processes and the owner of the models say to each other.

Frames as between the front and workers (`server.messages`). All that is to be said in one turn of the
event loop goes in one frame, so the more is asked, the less a message costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from ..server.messages import Failure, Frames, frame
from .replies import Reply
from .request import Request

#: Bytes of bodies in one frame, beyond its last message.
FRAME_BYTES = 8 << 20


class Asked(msgspec.Struct, tag="asked", array_like=True):
    """Front to owner: a request."""

    number: int
    request: Request


class Gone(msgspec.Struct, tag="gone", array_like=True):
    """Front to owner: nobody waits for the answer any more."""

    number: int


class Answered(msgspec.Struct, tag="answered", array_like=True):
    """Owner to front: the answer to a request."""

    number: int
    reply: Reply
    #: Whether its body comes in `Piece`s.
    streamed: bool = False


class Read(msgspec.Struct, tag="read", array_like=True):
    """Front to owner: the client took so many bytes of a streamed answer."""

    number: int
    bytes: int


class Piece(msgspec.Struct, tag="piece", array_like=True):
    """Owner to front: the next bytes of a streamed answer."""

    number: int
    body: bytes


class Ended(msgspec.Struct, tag="ended", array_like=True):
    """Owner to front: a streamed answer has come to its end."""

    number: int
    #: Why it broke off.
    failure: Failure | None


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """Owner to front: take no more requests, and end once the last is answered."""


ToOwner = Asked | Read | Gone
ToFront = Answered | Piece | Ended | Stop
to_owner_decoder: msgspec.msgpack.Decoder[list[ToOwner]] = msgspec.msgpack.Decoder(list[ToOwner])
to_front_decoder: msgspec.msgpack.Decoder[list[ToFront]] = msgspec.msgpack.Decoder(list[ToFront])


T = TypeVar("T")


class Link(asyncio.Protocol, Generic[T]):
    """One end of the connection between a front process and the owner; what comes to it are messages of type `T`."""

    def __init__(
        self, decoder: msgspec.msgpack.Decoder[list[T]], received: Callable[[T], None], lost: Callable[[], None]
    ) -> None:
        self._frames = Frames(decoder)
        self._received = received
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[ToOwner | ToFront] = []
        self._size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the other side ended."""
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Act on messages."""
        for message in self._frames.feed(data):
            self._received(message)

    def send(self, message: ToOwner | ToFront, size: int = 0) -> None:
        """Send a message, with those that follow until the event loop's next turn.

        :param size: bytes of its body.
        """
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)
        self._size += size
        if self._size > FRAME_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            self._transport.write(frame(self._outgoing))
        self._outgoing = []
        self._size = 0

    def close(self) -> None:
        """Close the connection once all is sent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

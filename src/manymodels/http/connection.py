"""A client's connection: HTTP/1.1 in, one answer at a time out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import unquote

import httptools

from ..errors import ManyModelsError
from ..spool import LARGE as SPOOLED
from ..spool import SUPPORTED, Spool, release
from .codings import supported
from .replies import BODILESS, Reply
from .request import Ids, Request
from .sigv4 import AccessKeys
from .streaming import StreamedReply

logger = logging.getLogger(__name__)

#: Bytes a request's first line and headers, or its trailers, may have, give or take what one read returns.
HEAD = 64 << 10
#: An oversized body is read to its end, up to this many bytes, so that the client reads the answer
#: instead of a connection cut off while it sends.
DRAIN = 256 << 20
#: Seconds a connection is kept without a request; load balancers in front keep theirs for 60.
KEEP_ALIVE = 75.0
#: Seconds a client has to read why it was hung up on, and bytes that it may send meanwhile.
LINGER = 2.0
DISCARD = 1 << 20
#: Bytes from which a body is not copied to stand behind its head.
LARGE = 64 << 10


class Shared(Protocol):
    """What the connections of a server have in common."""

    #: Answers a request, whatever goes wrong.
    answer: Callable[[Request], Awaitable[Reply]]
    #: Bytes a body may have.
    max_body: int
    #: Seconds a client has to send a request.
    receive_timeout: float
    #: Who checks that requests are signed; None where they need not be.
    access_keys: AccessKeys | None
    #: The Date header.
    date: str
    #: Whether the server takes no more requests.
    stopping: bool
    ids: Ids
    connections: set[Connection]


class Connection(asyncio.Protocol):
    """Reads requests, has them answered in their order, and ends the connection of who is too slow or sends no HTTP."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made
        #: Bytes since the request last got on: its headers or a piece of its body were complete.
        self._kept = 0
        self._in_head = False
        self._in_request = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        #: The body instead, once it is large.
        self._spool: Spool | None = None
        #: Of the body, where requests have to be signed.
        self._digest = hashlib.sha256()
        self._size = 0
        self._expected = b""
        #: When the client must have got on, by the loop's clock.
        self._deadline = self._loop.time() + KEEP_ALIVE
        #: The answer being made; those that wait for it.
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Request | Reply] = deque()
        #: Whether the client does not read its answers as fast as they come.
        self._full = False
        #: Done when a streamed answer may go on, which waits for the client to read it.
        self._room: asyncio.Future[None] | None = None
        #: Whether the client of the last request knows chunks.
        self._chunked = True
        #: Bytes of answers that it had not read when it was last looked at.
        self._unread = 0
        #: Whether the connection ends with the last answer, and nothing more is read.
        self._last = False
        self._ended = False

    # -- The transport --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        self._transport = transport
        self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        self._shared.connections.discard(self)
        self._ended = True
        self._waiting.clear()
        self._spool = None
        self._parser = None  # type: ignore[assignment]  # they refer to each other
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        size = len(data)
        self._kept += size
        if self._last:
            if self._kept > DISCARD:
                self.abort()
            return
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserCallbackError:
            logger.exception("a request could not be read")
            self._refuse(500, "Internal error; the server's log has more.")
        except httptools.HttpParserError:
            if not self._last:  # else it follows the last request
                self._refuse(400, "Invalid HTTP request received.")
        if self._kept > HEAD + size and not self._last:
            self._refuse(400, f"The headers or trailers have more than {HEAD} bytes.")

    def _feed(self, data: bytes) -> bytes:
        """Feed the parser; return what is to be fed next.

        A request that offers another protocol, as the first one of Java's client does, is read on as if it had not.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._last:
                return b""
            version = self._parser.get_http_version().encode()
            lines = [self._method() + b" " + self._url + b" HTTP/" + version]
            for name, value in self._headers:
                if name == b"connection":
                    value = b",".join(token for token in value.split(b",") if token.strip().lower() != b"upgrade")
                if name != b"upgrade":
                    lines.append(name + b": " + value)
            self._parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*lines, b"", data[upgrade.args[0] :]])
        return b""

    def pause_writing(self) -> None:
        """Make no more answers than the client reads."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._next()

    # -- The parser --

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._kept = 0
        self._in_head = self._in_request = True
        self._url = b""
        self._headers = []
        self._body = []
        self._spool = None
        if self._shared.access_keys is not None:
            self._digest = hashlib.sha256()
        self._size = 0
        self._expected = b""
        self._deadline = self._loop.time() + self._shared.receive_timeout

    def on_url(self, url: bytes) -> None:
        """Take a piece of the first line's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are left out."""
        if self._in_head:
            name = name.lower()
            self._headers.append((name, value))
            if name == b"expect":
                self._expected = value.lower()

    def on_headers_complete(self) -> None:
        """Tell a client that asks whether to send its body."""
        self._kept = 0
        self._in_head = False
        if self._expected and not self._last and not self._parser.should_upgrade():
            self._meet()

    def _meet(self) -> None:
        """Have the body sent that a client asks about, or refuse it at once if it would be refused in the end."""
        if self._parser.get_http_version() == "1.0":
            return
        if self._expected != b"100-continue":
            self._refuse(417, "Of all expectations, 100-continue can be met.")
            return
        length = next((int(value) for name, value in self._headers if name == b"content-length"), 0)
        if length > self._shared.max_body or not supported(self._headers):
            self._size = length
            self._give_up()
        elif self._task is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._kept = 0
        self._size += len(body)
        if self._size <= self._shared.max_body:
            if self._shared.access_keys is not None:
                self._digest.update(body)
            if self._spool is not None:
                self._spool.write(body)
                return
            self._body.append(body)
            if self._size >= SPOOLED and SUPPORTED:
                self._spool = Spool(self._body)
                self._body = []
        else:
            self._body.clear()
            self._spool = None
            if self._size > max(DRAIN, self._shared.max_body) and not self._last:
                self._give_up()

    def _give_up(self) -> None:
        """Have a request answered whose body is not waited for, as the last of the connection."""
        self._last = True
        self._complete()
        self._in_request = True

    def on_message_complete(self) -> None:
        """Have the request answered."""
        self._kept = 0
        if self._parser.should_upgrade() and self._method() != b"CONNECT":
            return  # its body is still to come
        if not self._last:
            self._complete()

    def _complete(self) -> None:
        self._in_request = False
        parser = self._parser
        self._chunked = parser.get_http_version() != "1.0"
        lasting = parser.should_keep_alive() and self._chunked and not parser.should_upgrade()
        self._last = self._last or not lasting or self._shared.stopping
        raw, _, query = self._url.partition(b"?")
        if raw[:1] != b"/" and b"://" in raw:  # as to a proxy
            raw = b"/" + raw.partition(b"://")[2].partition(b"/")[2]
        path = raw.decode("utf-8", "replace")
        if "%" in path:
            path = unquote(path)
        body: bytes | None = None
        if self._size <= self._shared.max_body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        request = Request(self._method().decode("latin-1"), path, query, body, next(self._shared.ids), headers={})
        if self._spool is not None:
            request.upload = self._spool.end()
            self._spool = None
        request.read(self._headers)
        refused: Reply | None = None
        if (access_keys := self._shared.access_keys) is not None:
            digest = None if body is None else self._digest.hexdigest()
            refused = access_keys.refused(self._method(), raw, query, self._headers, digest, request.id)
        self._waiting.append(refused or request)
        self._next()

    def _method(self) -> bytes:
        method: bytes = self._parser.get_method()
        return method

    # -- Answers --

    def _next(self) -> None:
        """Begin the next answer, if none is being made; read on once there is none."""
        while self._task is None and self._waiting and not self._full:
            following = self._waiting.popleft()
            if isinstance(following, Request):
                self._task = self._loop.create_task(self._answer(following))
            else:
                self._send(following, head_only=False)
        if self._ended:
            return
        if self._waiting:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._shared.answer(request)
            if isinstance(reply, StreamedReply):
                if reply.status in BODILESS:
                    reply.rest.close()
                    reply = Reply(reply.status, b"", reply.head)
                else:
                    await self._stream(reply)
        except asyncio.CancelledError:  # the client went away, or the server does not wait any longer
            logger.debug("nobody waits for the answer", extra={"request_id": request.id})
            self.abort()
            return
        finally:
            if request.upload is not None:
                release(request.upload)
        self._task = None
        if not isinstance(reply, StreamedReply):
            self._send(reply, head_only=request.method == "HEAD")
        if self._waiting:
            self._next()

    async def _stream(self, reply: StreamedReply) -> None:
        """Send a reply while it is being made, no faster than the client reads."""
        chunked = self._chunked
        if chunked:
            reply.head += "transfer-encoding: chunked\r\n"
        data = reply.encode(self._shared.date, close=self._last and not self._waiting)
        try:
            while part := await reply.rest.read():
                self._transport.write(b"%b%x\r\n%b\r\n" % (data, len(part), part) if chunked else data + part)
                data = b""
                if self._full:
                    await self._read()
        except ManyModelsError as error:
            # Without its end, which is how the client knows.
            logger.warning("a streamed answer broke off: %s", error)
            self._transport.write(data)
            self._waiting.clear()
            self._ended = True
            self._deadline = self._loop.time() + self._shared.receive_timeout
            if chunked:
                self._transport.close()
            else:
                self.abort()
            return
        finally:
            reply.rest.close()
        self._transport.write(data + b"0\r\n\r\n" if chunked else data)
        self._sent(last=self._last and not self._waiting)

    async def _read(self) -> None:
        """Wait until the client has read most of what was sent; `expire` looks whether it does."""
        self._room = self._loop.create_future()
        self._unread = self._transport.get_write_buffer_size()
        self._deadline = self._loop.time() + self._shared.receive_timeout
        try:
            await self._room
        finally:
            self._room = None

    def _send(self, reply: Reply, *, head_only: bool) -> None:
        if self._ended:
            return
        last = self._last and not self._waiting
        head = reply.encode(self._shared.date, close=last)
        if head_only or reply.status in BODILESS:
            self._transport.write(head)
        elif len(reply.body) < LARGE:
            self._transport.write(head + reply.body)
        else:
            self._transport.writelines((head, reply.body))
        self._sent(last=last)

    def _sent(self, *, last: bool) -> None:
        """Take note that an answer was given to the transport whole."""
        now = self._loop.time()
        self._unread = self._transport.get_write_buffer_size()
        if last:
            self._end(now)
        elif self._unread:
            self._deadline = now + self._shared.receive_timeout
        elif not self._in_request:
            self._deadline = now + KEEP_ALIVE

    def _end(self, now: float) -> None:
        """End the connection, once the client has read its last answer."""
        self._ended = True
        if self._in_request and self._transport.can_write_eof():
            # Closed with bytes unread, the kernel would reset it, and the answer might be lost.
            self._deadline = now + LINGER
            self._kept = 0
            self._transport.write_eof()
        else:
            self._deadline = now + self._shared.receive_timeout
            self._transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, after those before it, and hang up."""
        self._last = True
        self._waiting.append(Reply.of(status, f"{message}\n".encode(), "text/plain; charset=utf-8"))
        self._next()

    # -- The server --

    def expire(self, now: float) -> None:
        """End the connection if the client took too long."""
        if now < self._deadline or (self._task is not None and self._room is None and not self._ended):
            return
        unread = self._transport.get_write_buffer_size()
        if unread < self._unread:  # it reads, if slowly
            self._deadline = now + (self._shared.receive_timeout if unread else KEEP_ALIVE)
            self._unread = unread
        elif self._ended or self._full or not self._in_request or unread:
            self.abort()
        else:
            seconds = self._shared.receive_timeout
            self._refuse(408, f"The request was not complete within {seconds:g} s.")

    def stop(self) -> None:
        """End the connection after the requests that are being read or answered."""
        if self._in_request:
            return  # it will be the last
        self._last = True
        if self._task is None and not self._waiting and not self._ended:
            self._end(self._loop.time())

    def abort(self) -> None:
        """End the connection now."""
        self._ended = True
        self._transport.abort()

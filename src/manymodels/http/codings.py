"""Content codings: bodies of requests that come as gzip or zstd, and of replies that may go so."""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from ..errors import BadInput, ManyModelsError, UnsupportedAccept, UnsupportedContentType
from ..invocation import Upload
from ..media import media_type
from ..server.messages import Failure
from ..spool import LARGE, SUPPORTED, Spool
from .replies import Reply
from .request import Request
from .streaming import StreamedReply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IDENTITY = "identity"
#: What is spoken, the preferred one first: zstd takes a fifth to a third of gzip's time, and makes bodies smaller.
CODINGS = ("zstd", "gzip")
#: Bytes of a body that are unpacked without a thread.
INLINE = 64 << 10
#: Bytes from which a reply is packed. Less goes out in one flight of packets (ten, as TCP begins) as it is.
WORTHWHILE = 16 << 10
#: Of either. On JSON of numbers gzip's usual 6 takes 5 to 9 times as long, for bodies 4 to 31 % smaller.
LEVEL = 1
#: A zstd frame may ask for a window of up to 2 GiB; HTTP allows 8 MiB (RFC 9659).
WINDOW_LOG = 23
# Arrays of floats lose a tenth at most.
_TEXT = re.compile(
    r"content-type: *(text/|application/(json|jsonl|jsonlines|x-ndjson|openmetrics-text)\b)", re.IGNORECASE
)
_WBITS = 31  # of zlib: gzip's head and trailer


class Codings:
    """Unpacks requests and packs replies, around what answers them."""

    def __init__(self, answer: Callable[[Request], Awaitable[Reply]], limit: int) -> None:
        """Stand in front of `answer`.

        :param limit: most bytes of an unpacked body.
        """
        self._answer = answer
        self._limit = limit
        self._threads = ThreadPoolExecutor(2, "coding")

    def answer(self, request: Request) -> Awaitable[Reply]:
        """Answer a request."""
        if request.content_encoding is None and request.accept_encoding is None:
            return self._answer(request)
        return self._coded(request)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)

    async def _coded(self, request: Request) -> Reply:
        try:
            coding, plain = accepted(request.accept_encoding or "")
            if request.content_encoding is not None:
                await self._unpack(request, coding_of(request.content_encoding))
        except ManyModelsError as error:
            request.fault = Failure.of(error)
            coding, plain = IDENTITY, True
        reply = await self._answer(request)
        if coding != IDENTITY and _packable(reply, plain=plain):
            await self._pack(reply, coding, plain=plain)
        return reply

    async def _unpack(self, request: Request, coding: str) -> None:
        body, limit = request.body, self._limit
        if coding == IDENTITY or body is None:
            return
        unpacked: bytes | None = None
        if request.upload is None and len(body) <= INLINE:
            unpacked = unpack(body, coding, min(limit, INLINE))
        if unpacked is None and limit > INLINE:
            loop = asyncio.get_running_loop()
            packed = body if request.upload is None else request.upload
            request.body, request.upload = await loop.run_in_executor(self._threads, _large, packed, coding, limit)
        else:
            request.body = unpacked

    async def _pack(self, reply: Reply, coding: str, *, plain: bool) -> None:
        packed = await asyncio.get_running_loop().run_in_executor(self._threads, pack, reply.body, coding)
        if plain:
            reply.add("vary", "accept-encoding")
        if len(packed) < len(reply.body) or not plain:
            reply.body = packed
            reply.add("content-encoding", coding)


def _packable(reply: Reply, *, plain: bool) -> bool:
    if isinstance(reply, StreamedReply) or "\r\ncontent-encoding: " in reply.head:
        return False  # it is sent as it is made, or a model's script has done it
    return not plain or (len(reply.body) >= WORTHWHILE and _TEXT.match(reply.head) is not None)


def supported(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether a body of these headers, whose names are in lower case, can be unpacked."""
    try:
        for name, value in headers:
            if name == b"content-encoding":
                coding_of(value.decode("latin-1"))
    except UnsupportedContentType:
        return False
    return True


def coding_of(content_encoding: str) -> str:
    """Return the coding that a Content-Encoding names.

    :raises UnsupportedContentType: if it names several, or one that is not spoken.
    """
    coding = content_encoding.strip().lower()
    coding = "gzip" if coding == "x-gzip" else coding or IDENTITY
    if coding not in (*CODINGS, IDENTITY):
        raise UnsupportedContentType(
            f"Content-Encoding {content_encoding!r} is not supported; send one of {', '.join(CODINGS)}, or none"
        )
    return coding


@lru_cache(maxsize=256)
def accepted(accept_encoding: str) -> tuple[str, bool]:
    """Return the coding that an Accept-Encoding likes best, and whether a reply may go without one.

    :raises UnsupportedAccept: if it takes no coding that is spoken, nor a reply without one.
    """
    qualities: dict[str, float] = {}
    for item in accept_encoding.split(","):
        name, parameters = media_type(item.strip() or IDENTITY)
        try:
            qualities["gzip" if name == "x-gzip" else name] = float(parameters.get("q", "1"))
        except ValueError:
            qualities[name] = 0.0
    others = qualities.get("*", 0.0)
    plain = qualities.get(IDENTITY, 0.0 if "*" in qualities and not others else 1e-6)
    best = max(CODINGS, key=lambda coding: qualities.get(coding, others))
    quality = qualities.get(best, others)
    if not quality > 0 and not plain > 0:
        raise UnsupportedAccept(
            f"Accept-Encoding {accept_encoding!r} takes neither {' nor '.join(CODINGS)}, nor a reply as it is"
        )
    return (best if quality > 0 and quality >= plain else IDENTITY), plain > 0


def unpack(body: bytes, coding: str, limit: int) -> bytes | None:
    """Return what was packed; None if it has more than `limit` bytes, of which no more are unpacked.

    :raises BadInput: if it is not of that coding, ends early, or has more behind its end.
    """
    try:
        if coding == "gzip":
            inflater = zlib.decompressobj(_WBITS)
            content = inflater.decompress(body, limit + 1)
            ended, rest = inflater.eof, inflater.unused_data
        else:
            decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
            content = decompressor.decompress(body, limit + 1)
            ended, rest = decompressor.eof, decompressor.unused_data
    except (zlib.error, zstd.ZstdError) as error:
        raise BadInput(f"the body is not {coding}, as its Content-Encoding says: {error}") from error
    if len(content) > limit:
        return None
    if not ended or rest:
        raise BadInput(
            f"the body, {coding} by its Content-Encoding, {'is cut off' if not ended else 'goes on after its end'}"
        )
    return content


def _large(packed: bytes | Upload, coding: str, limit: int) -> tuple[bytes | None, Upload | None]:
    """Unpack what may be large; where it is, it is kept as if it had come so."""
    content = unpack(packed if isinstance(packed, bytes) else packed.read(), coding, limit)
    if content is None or len(content) < LARGE or not SUPPORTED:
        return content, None
    return b"", Spool([content]).end()


def pack(body: bytes, coding: str) -> bytes:
    """Return a body packed."""
    return gzip.compress(body, LEVEL, mtime=0) if coding == "gzip" else zstd.compress(body, LEVEL)

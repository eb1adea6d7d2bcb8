"""Objects of a web server, which can be asked for, but not listed."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlsplit

import httpx

from ..errors import LoadFailed, NotListed, SettingsError
from . import calls
from .objects import Object

# It tells of each request.
logging.getLogger("httpx").setLevel(logging.WARNING)

_STRONG = re.compile('"[^"]+"')
_CHUNK = 256 << 10


class WebObjects:
    """The objects below ``https://host/path``, each at its name.

    A version is an ETag, or when it was modified where there is no strong one. Proxies and certificates are found as
    httpx finds them, names and passwords in ``~/.netrc``.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Take an address.

        :param timeout: seconds that a whole object may take.
        :raises SettingsError: if the address has more than a host and a path.
        """
        parts = urlsplit(url)
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise SettingsError(
                "the address of a model store on the web is a host and a path; credentials belong in ~/.netrc"
            )
        self.url = url.rstrip("/")
        loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(loop,), name="web", daemon=True).start()
        self._loop = loop
        self._calls = calls.Calls(loop, timeout, (httpx.TransportError,))
        secrets = Path.home() / ".netrc"
        self._client = httpx.AsyncClient(
            auth=httpx.NetRCAuth(str(secrets)) if secrets.exists() else None,
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None),  # the parts have a limit of their own
            timeout=httpx.Timeout(calls.READ, connect=calls.CONNECT),
        )

    def head(self, name: str) -> Object | None:
        """Return the present version of an object; see `Objects.head`."""
        try:
            reply = self._calls.run(self._client.head(self._address(name)))
        except httpx.HTTPError as error:
            raise LoadFailed(f"{name!r} cannot be read: {error}") from error
        if reply.status_code in (404, 410) or reply.url.path.endswith("/"):  # a folder, shown as a page
            return None
        if reply.status_code != 200:
            self._raise(reply.status_code, name)
        size = reply.headers.get("content-length", "")
        version = _version(reply)
        if not size.isdecimal() or not version:
            raise LoadFailed(
                f"{name!r} cannot be read: the web server tells no Content-Length, or neither ETag nor Last-Modified"
            )
        return Object(name, version, int(size))

    def fetch(self, name: str, place: Callable[[Object], Path]) -> None:
        """Return None; see `Objects.fetch`."""

    def entries(self, folder: str, after: str = "") -> Iterator[Object]:
        """Refuse to list the store; there are no folders, as far as one can see."""
        if not folder:
            raise NotListed(f"{self.url} cannot be listed: a web server has no listings; models are served by name")
        return iter(())

    def files(self, folder: str) -> Iterator[Object]:
        """Yield nothing."""
        return iter(())

    def download(self, wanted: Object, path: Path) -> None:
        """Fetch an object, a large one in parts; see `Objects.download`."""
        condition = "If-Match" if _STRONG.fullmatch(wanted.version) else "If-Unmodified-Since"

        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            headers = {"Range": f"bytes={start}-{end - 1}", condition: wanted.version}
            async with self._client.stream("GET", self._address(wanted.name), headers=headers) as reply:
                if reply.status_code not in (200, 206):
                    self._raise(reply.status_code, wanted.name)
                if _version(reply) != wanted.version:  # not every server knows conditions
                    self._raise(412, wanted.name)
                first = reply.headers.get("content-range", "bytes 0-").removeprefix("bytes ").partition("-")[0]
                if first != str(start):
                    raise LoadFailed(f"{wanted.name!r} cannot be fetched: the web server answers no ranges")
                # As they are: an archive may be told to be a tar with an encoding.
                async for chunk in reply.aiter_raw(_CHUNK):
                    yield chunk

        try:
            self._calls.fetch(wanted, path, read)
        except httpx.HTTPError as error:
            raise LoadFailed(f"{wanted.name!r} cannot be read: {error}") from error

    def close(self) -> None:
        """End what is under way; see `Objects.close`."""
        self._calls.close()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    async def _end(self) -> None:
        await self._client.aclose()
        self._loop.stop()

    def _address(self, name: str) -> str:
        return f"{self.url}/{quote(name)}"

    def _raise(self, status: int, name: str) -> NoReturn:
        raise calls.refused(status, "", name, "reading", None)


connect = WebObjects


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _version(reply: httpx.Response) -> str:
    tag: str = reply.headers.get("etag", "")
    return tag if _STRONG.fullmatch(tag) else reply.headers.get("last-modified", "")

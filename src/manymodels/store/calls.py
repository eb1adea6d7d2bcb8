"""What remote stores share: requests with a time limit, downloads in parts, errors in words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import LoadFailed, StoreDenied, StoreUnavailable
from .objects import Object

T = TypeVar("T")

#: Seconds for a connection, and for the next bytes of an answer.
CONNECT, READ = 5, 15
#: Seconds for an answer without a body to speak of, the library's own retries included.
ANSWER = 15.0
#: Bytes that one request fetches; larger objects are fetched by several at a time.
PART = 8 << 20
#: Parts of all objects that are fetched at a time.
AT_A_TIME = 32
#: Times a part is asked for without a byte of it, and seconds before the second time; they double.
TRIES = 4
BACK_OFF = 0.25


class Calls:
    """Coroutines run in the event loop of fsspec, for threads that wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, broken: tuple[type[Exception], ...]) -> None:
        """Run in a loop.

        :param timeout: seconds that a whole object may take.
        :param broken: how a connection ends that ends too early, or never begins.
        """
        self._loop = loop
        self._timeout = timeout
        self._broken = broken
        self._cut: tuple[type[Exception], ...] = (*broken, asyncio.TimeoutError)
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._at_a_time = asyncio.Semaphore(AT_A_TIME)

    def run(self, call: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Return what a coroutine returns.

        :param timeout: seconds; None: as for an answer without a body.
        :raises ConnectionError: if the store is not reached, or does not answer in time.
        """
        seconds = ANSWER if timeout is None else timeout
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, seconds), self._loop)
        self._running.add(future)
        try:
            with worded(seconds, self._broken):
                return future.result()
        finally:
            self._running.discard(future)

    def close(self) -> None:
        """End what is under way, which then fails."""
        for future in list(self._running):
            future.cancel()

    def fetch(self, wanted: Object, path: Path, read: Callable[[int, int], AsyncIterator[bytes]]) -> None:
        """Write an object to a new file, a large one in parts; what is cut off is asked for again from there.

        :param read: yields the object's bytes from one offset up to another.
        :raises ConnectionError: if it takes too long, or does not come.
        """
        with path.open("wb") as file:
            if wanted.size:
                file.truncate(wanted.size)
                self.run(self._fetch(wanted, file.fileno(), read), self._timeout)

    async def _fetch(self, wanted: Object, file: int, read: Callable[[int, int], AsyncIterator[bytes]]) -> None:
        tasks = [asyncio.ensure_future(self._part(wanted, file, at, read)) for at in range(0, wanted.size, PART)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # none writes once the file is closed

    async def _part(
        self, wanted: Object, file: int, start: int, read: Callable[[int, int], AsyncIterator[bytes]]
    ) -> None:
        end = min(start + PART, wanted.size)
        tries = 0
        async with self._at_a_time:
            while True:
                before = start
                broken: Exception = ConnectionError("it was cut off")
                try:
                    async for chunk in read(start, end):
                        if len(chunk) > end - start:
                            raise unranged(wanted.name)
                        os.pwrite(file, chunk, start)
                        start += len(chunk)
                except self._cut as error:
                    broken = error
                if start == end:
                    return
                tries = 1 if start > before else tries + 1
                if tries == TRIES:
                    raise broken
                await asyncio.sleep(pause(tries))


@contextlib.contextmanager
def worded(seconds: float, broken: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn how a request ends that is waited for without an answer into a `ConnectionError`.

    :param seconds: that it had.
    :param broken: how a connection ends that ends too early, or never begins.
    """
    try:
        yield
    except concurrent.futures.CancelledError as error:
        raise ConnectionError("the server is stopping") from error
    except (asyncio.TimeoutError, concurrent.futures.TimeoutError) as error:  # the built-in one from Python 3.11 on
        raise ConnectionError(f"no full answer within {seconds:g} s") from error
    except broken as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def pause(tries: int) -> float:
    """Return the seconds before a part is asked for again that was asked for so often."""
    return BACK_OFF * 2.0 ** (tries - 1) * (1 + random.random())  # noqa: S311


def unranged(name: str) -> LoadFailed:
    """Return the error for more bytes than a part has."""
    return LoadFailed(f"{name!r} cannot be fetched: the store answers no ranges")


def check_md5(path: Path, name: str, expected: str) -> None:
    """Compare a file's MD5, in hexadecimal.

    :raises StoreUnavailable: if it is another.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(256 << 10):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise damaged(name, "MD5")


def damaged(name: str, what: str) -> StoreUnavailable:
    """Return the error for content that is not the store's.

    :param what: by which that was noticed.
    """
    return StoreUnavailable(f"{name!r} was damaged on its way: its {what} is not the one that the model store tells")


def refused(status: int, code: str, name: str, permission: str, said: str | None) -> LoadFailed:
    """Return the error for an answer that is an error.

    :param code: what the store calls it; ``""`` if that is not known.
    :param permission: what has to be allowed, where it is that.
    :param said: the store's own words, for what has none here.
    """
    answer = f"{status} {code}" if code and code != str(status) else str(status)
    if status >= 500 or status in (408, 429):
        return StoreUnavailable(f"{name!r} cannot be fetched: the model store answers {answer}; try again")
    if status == 412:
        return LoadFailed(f"{name!r} was replaced while it was read; ask again")
    if status == 404:
        return LoadFailed(f"{name!r} has gone while it was read; ask again")
    remedy = said or "the request is refused"
    if status in (401, 403):
        remedy = f"access is denied; allow {permission} on it to the server's credentials"
        return StoreDenied(f"{name!r} cannot be read: {remedy} (the model store answers {answer})")
    return LoadFailed(f"{name!r} cannot be read: {remedy} (the model store answers {answer})")

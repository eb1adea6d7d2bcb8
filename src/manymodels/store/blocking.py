"""Requests of a client that blocks, with a time limit; downloads in parts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from . import calls
from .objects import Object

T = TypeVar("T")

#: Bytes that are read at a time.
CHUNK = 256 << 10


class Body(Protocol):
    """The content of an answer, as botocore gives it."""

    def readinto(self, buffer: memoryview) -> int:
        """Read what comes next; 0 at the end."""

    def set_socket_timeout(self, timeout: float) -> None:
        """Limit the seconds that each next read may take."""

    def close(self) -> None:
        """Take the connection out of use, if it was not read to its end."""


class Requests:
    """Requests in threads of their own, for threads that wait for them.

    A thread that reads a socket cannot be interrupted. So whoever waits goes when the time is up or the server ends,
    and nothing waits for what is left behind: that ends when the socket's own time is up.
    """

    def __init__(self, timeout: float, broken: tuple[type[Exception], ...]) -> None:
        """Begin with none.

        :param timeout: seconds that a whole object may take.
        :param broken: how a connection ends that ends too early, or never begins.
        """
        self._timeout = timeout
        self._broken = broken
        self._running: set[Future[Any]] = set()
        self._at_a_time = threading.Semaphore(calls.AT_A_TIME)

    def run(self, call: Callable[[], T]) -> T:
        """Return what a call returns.

        :raises ConnectionError: if the store is not reached, or does not answer in time.
        """
        return self._wait(begin(call), calls.ANSWER)

    def close(self) -> None:
        """End what is under way, which then fails."""
        for future in list(self._running):
            future.cancel()

    def fetch(self, wanted: Object, path: Path, read: Callable[[int, int], Body]) -> None:
        """Write an object to a new file, a large one in parts; what is cut off is asked for again from there.

        :param read: returns the object's bytes from one offset up to another.
        :raises ConnectionError: if it takes too long, or does not come.
        """
        with path.open("wb") as file:
            file.truncate(wanted.size)
        parts = -(-wanted.size // calls.PART)
        if parts:
            download = _Download(wanted, path, read, self._broken, self._at_a_time)
            try:
                self._wait(download.begin(min(parts, calls.AT_A_TIME)), self._timeout)
            finally:
                download.stop()

    def _wait(self, future: Future[T], seconds: float) -> T:
        self._running.add(future)
        try:
            with calls.worded(seconds, self._broken):
                return future.result(seconds)
        finally:
            self._running.discard(future)


def begin(call: Callable[[], T]) -> Future[T]:
    """Run a call in a thread of its own, for which the end of the process does not wait."""
    future: Future[T] = Future()
    _spawn(lambda: future.set_result(call()), future)
    return future


def _spawn(call: Callable[[], None], future: Future[Any]) -> None:
    """Run a call in a thread; if it fails, that is what the future comes to."""

    def run() -> None:
        with contextlib.suppress(InvalidStateError):  # nobody waits any more
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                future.set_exception(error)

    threading.Thread(target=run, name="store-request", daemon=True).start()


class _Download:
    """An object's way into a file, by several threads where it has several parts."""

    def __init__(
        self,
        wanted: Object,
        path: Path,
        read: Callable[[int, int], Body],
        broken: tuple[type[Exception], ...],
        at_a_time: threading.Semaphore,
    ) -> None:
        self._wanted = wanted
        self._path = path
        self._read = read
        self._broken = broken
        self._at_a_time = at_a_time
        self._starts = iter(range(0, wanted.size, calls.PART))
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        #: What is being read.
        self._bodies: set[Body] = set()

    def begin(self, count: int) -> Future[None]:
        """Fetch in so many threads; done once all have ended, or one has failed."""
        future: Future[None] = Future()
        left = iter(range(count - 1, -1, -1))

        def run() -> None:
            self._fetch()
            if not next(left):
                future.set_result(None)

        for _ in range(count):
            _spawn(run, future)
        return future

    def _fetch(self) -> None:
        """Fetch one part after the other, until none is left."""
        # Each thread opens the file itself: one that is left behind must not write into what has its number then.
        with self._path.open("r+b") as file:
            for start in self._starts:
                file.seek(start)
                with self._at_a_time:
                    self._part(start, min(start + calls.PART, self._wanted.size), file)

    def stop(self) -> None:
        """Let go of what is not there yet."""
        with self._lock:
            self._stopped.set()
            for body in self._bodies:
                with contextlib.suppress(AttributeError):  # it has just come to its end
                    body.set_socket_timeout(0.001)

    def _part(self, start: int, end: int, file: BinaryIO) -> None:
        tries = 0
        while not self._stopped.is_set():
            before = start
            broken: Exception = ConnectionError("it was cut off")
            try:
                for chunk in self._chunks(start, end):
                    if len(chunk) > end - start:
                        raise calls.unranged(self._wanted.name)
                    file.write(chunk)
                    start += len(chunk)
            except self._broken as error:
                broken = error
            if start == end:
                return
            tries = 1 if start > before else tries + 1
            if tries == calls.TRIES:
                raise broken
            self._stopped.wait(calls.pause(tries))

    def _chunks(self, start: int, end: int) -> Iterator[memoryview]:
        body = self._read(start, end)
        buffer = memoryview(bytearray(CHUNK))
        with self._lock:
            self._bodies.add(body)
        try:
            while not self._stopped.is_set() and (count := body.readinto(buffer)):
                yield buffer[:count]
        finally:
            with self._lock:
                self._bodies.discard(body)
            body.close()

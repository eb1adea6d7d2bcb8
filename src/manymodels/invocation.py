"""One request to a model and its answer, as they travel between processes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec

#: Most bytes of a part of a streamed answer.
PART = 64 << 10
#: Of an answer; with another, clients would wait for a second one, or not take it for HTTP.
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]


class Upload(msgspec.Struct, array_like=True, frozen=True, weakref=True):
    """A large body, in memory that each process reads for itself."""

    path: str
    size: int
    #: Tells it from another that has the path by now.
    inode: int

    def read(self) -> bytes:
        """Return the body.

        :raises OSError: if it is gone, with the process that took it or with whoever waited for the answer.
        """
        with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_ino != self.inode:
                raise FileNotFoundError(f"{self.path} is not the body any more")
            return file.read()


class Invocation(msgspec.Struct, array_like=True, frozen=True):
    """A request to one model."""

    #: Empty while it is an upload; plugins get it whole.
    body: bytes
    #: As the client sent it, parameters included; None if absent.
    content_type: str | None = None
    accept: str | None = None
    #: The request's headers, names in lower case.
    headers: dict[str, str] = {}
    request_id: str = ""
    #: When the client has no use for an answer any more, by the monotonic clock.
    deadline: float = math.inf
    #: Seconds the model has for it; None: as many as the settings say.
    timeout: float | None = None
    upload: Upload | None = None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if self.upload is None else self.upload.size

    def whole(self) -> Invocation:
        """Return the invocation with its body.

        :raises OSError: if an upload cannot be read.
        """
        return self if self.upload is None else msgspec.structs.replace(self, body=self.upload.read(), upload=None)


class Answer(msgspec.Struct, array_like=True):
    """What the model answered."""

    body: bytes
    content_type: str
    status: Status = 200
    headers: dict[str, str] = {}
    #: Seconds spent by stage (`queue`, `fetch`, `load`, `predict`), for Server-Timing.
    timings: dict[str, float] = {}
    #: The version of the artifact that answered; empty where there is no store that has versions.
    version: str = ""
    #: The artifact that answered, where a name above artifacts was asked for.
    target_model: str | None = None


class Parts(Iterator[bytes]):
    """What a generator of a plugin's yields, as bytes of `PART` at most."""

    def __init__(self, made: Iterator[Any], failed: Callable[[BaseException], Exception]) -> None:
        """Take what is yielded, when it is asked for.

        :param failed: makes of an exception of the generator's the one to raise.
        """
        self._made = made
        self._failed = failed
        self._rest = memoryview(b"")

    def __next__(self) -> bytes:
        while not self._rest:
            try:
                self._rest = memoryview(_as_bytes(next(self._made))).cast("B")
            except StopIteration:
                raise
            except (Exception, SystemExit) as error:
                raise self._failed(error) from error
        part, self._rest = bytes(self._rest[:PART]), self._rest[PART:]
        return part

    def close(self) -> None:
        """Let the generator end where it is."""
        close = getattr(self._made, "close", None)
        try:
            if close is not None:
                close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - logged there
            self._failed(error)  # which logs it: nobody waits for it any more


class Streaming(Answer, kw_only=True):
    """An answer of which `body` is the first part, and the rest is still to be made."""

    rest: Parts

    def whole(self) -> Answer:
        """Return it once it is made.

        :raises Exception: if it breaks off.
        """
        return Answer(b"".join([self.body, *self.rest]), self.content_type, self.status, self.headers, self.timings)


def _as_bytes(part: Any) -> bytes | bytearray | memoryview:
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, (bytes, bytearray, memoryview)):
        return part
    raise TypeError(f"an answer is streamed as bytes or str; it yields {type(part).__name__}")

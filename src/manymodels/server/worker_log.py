"""Read what a worker prints and logs, without letting it flood the server's own log."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

import msgspec

from ..log import RECORD_MARK

logger = logging.getLogger("manymodels.worker")

#: Longest line kept, in bytes.
LINE = 8192
#: Lines a second that a worker may log; the rest is counted and dropped.
RATE = 200

_MARK = RECORD_MARK.encode()
_decode = msgspec.json.Decoder(tuple[int, str, str]).decode


class WorkerLog(asyncio.Protocol):
    """The reading end of a worker's standard output and error."""

    def __init__(self, pid: int, model: Callable[[], str | None]) -> None:
        """Read the output of process `pid`; `model` names the model it is running, for the log."""
        self._pid = pid
        self._model = model
        self._line = bytearray()
        self._second = 0
        self._count = 0
        self._dropped = 0

    @classmethod
    async def attach(cls, fd: int, pid: int, model: Callable[[], str | None]) -> None:
        """Read from a file descriptor until the worker closes it."""
        pipe = os.fdopen(fd, "rb", buffering=0)
        try:
            await asyncio.get_running_loop().connect_read_pipe(lambda: cls(pid, model), pipe)
        except BaseException:
            pipe.close()
            raise

    def data_received(self, data: bytes) -> None:
        """Log the lines that `data` completes."""
        if self._over_rate() and b"\n" not in data[-LINE:]:
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            if len(self._line) < LINE:
                self._line += line[: LINE - len(self._line)]
            self._log(bytes(self._line))
            self._line.clear()
        self._line += rest[: LINE - len(self._line)]

    def connection_lost(self, exc: Exception | None) -> None:
        """Log what is left."""
        self._log(bytes(self._line))
        self._report()

    def _over_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
            self._report()
        return self._count >= RATE

    def _report(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._emit(logging.WARNING, logger.name, f"{dropped} lines dropped: more than {RATE} a second")

    def _log(self, line: bytes) -> None:
        if not line.strip():
            return
        if self._over_rate():
            self._dropped += 1
            return
        self._count += 1
        if line.startswith(_MARK):
            try:
                level, name, text = _decode(line[1:])
            except (msgspec.DecodeError, UnicodeDecodeError):  # cut off at LINE, or printed by a script
                pass
            else:
                # Within the levels there are: a logger remembers each it was asked about.
                self._emit(min(max(level, logging.DEBUG), logging.CRITICAL), name, text)
                return
        self._emit(logging.INFO, logger.name, line.decode(errors="replace"))

    def _emit(self, level: int, name: str, text: str) -> None:
        if logger.isEnabledFor(level):
            extra = {"model": self._model(), "worker": self._pid}
            # Not through the logger of that name: what a script makes up would be kept for ever.
            logger.handle(logger.makeRecord(name, level, "", 0, "%s", (text,), None, extra=extra))

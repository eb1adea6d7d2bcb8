"""Read what the Java process prints: records of its own, and what model processes print and log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable

import msgspec

from manymodels.log import RECORD_MARK
from manymodels.server.worker_log import WorkerLog

from .config import FIELD

#: The thread in which multi-model-server passes on the output of a model's process.
_OUTPUT = re.compile(r"W-(?:\d+-)?(m\d+)(?:-\d+)?-std(?:out|err)")
#: What is said there that is of no use: the signs by which it knows a process, and its own remarks.
_SIGNS = re.compile(r"\[PID\] \d+|MMS worker started\.|Stopped Scanner - .*")
_record = msgspec.json.Decoder(tuple[int, str, str]).decode


class JavaLog(WorkerLog):
    """The reading end of the Java process's standard output and error.

    `config.logging` says how it writes its records.
    """

    def __init__(self, pid: int, named: Callable[[str], str | None]) -> None:
        """Read the output of process `pid`; `named` returns the TargetModel of a model's process."""
        super().__init__(pid, lambda: self._about)
        self._named = named
        self._about: str | None = None

    @classmethod
    async def attach_java(cls, fd: int, pid: int, named: Callable[[str], str | None]) -> None:
        """Read from a file descriptor until the Java process closes it."""
        pipe = os.fdopen(fd, "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: cls(pid, named), pipe)

    def _emit(self, level: int, name: str, text: str) -> None:
        if not text.startswith(FIELD):  # the virtual machine itself
            self._about = None
            super()._emit(logging.DEBUG, "multi-model-server", text)
            return
        _, number, thread, text = text.split(FIELD, 3)
        output = _OUTPUT.fullmatch(thread)
        if output is None:
            self._about = None
            super()._emit(int(number) if int(number) >= logging.ERROR else logging.DEBUG, "multi-model-server", text)
            return
        self._about = self._named(output[1])
        text = text.removesuffix(" ")  # where an exception would stand
        if text.startswith(RECORD_MARK):
            with contextlib.suppress(msgspec.DecodeError):  # cut off, or printed by a script
                level, name, text = _record(text[1:])
        elif _SIGNS.fullmatch(text):
            level = logging.DEBUG
        super()._emit(level, name, text)

"""Traces: which model was asked for when, one invocation a line.

A line is the time in seconds, a tab and the TargetModel; where the model had to be loaded, also a tab and the
bytes it takes, and a tab and the seconds it took to load. A file whose name ends in ``.gz`` is compressed.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
import zlib
from array import array
from collections import Counter
from pathlib import Path
from statistics import median
from typing import BinaryIO, TextIO

from ..errors import SettingsError

logger = logging.getLogger(__name__)

#: Lines that are written at a time at the latest, and seconds after which they are in any case.
LINES = 1000
SECONDS = 1.0
#: Bytes at the end of a trace that say what is hot.
TAIL = 8 << 20
#: What a model of a trace takes that says so of none: bytes, and seconds to load.
SIZE = 64 << 10
LOAD = 0.01


class Trace:
    """A trace in memory: 12 bytes for each invocation, and the names."""

    def __init__(self) -> None:
        self.times = array("d")
        #: For each invocation, the number of its model.
        self.models = array("I")
        self.names: list[str] = []
        #: By model: bytes, and seconds to load, as last said.
        self.sizes = array("q")
        self.loads = array("d")

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Read a trace; models whose size it does not say are given the median of the others'.

        :raises SettingsError: if it cannot be read, or a line is none of a trace.
        """
        trace = cls()
        numbers: dict[str, int] = {}
        number = 0
        try:
            with _open(path) as file:
                for line in file:
                    number += 1
                    fields = line.rstrip("\n").split("\t")
                    model = numbers.get(fields[1])
                    if model is None:
                        model = numbers[fields[1]] = len(numbers)
                        trace.sizes.append(0)
                        trace.loads.append(0.0)
                    if len(fields) > 2:
                        trace.sizes[model] = int(fields[2])
                        trace.loads[model] = float(fields[3])
                    trace.times.append(float(fields[0]))
                    trace.models.append(model)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(path, error) from error
        except (ValueError, IndexError, OverflowError) as error:
            raise SettingsError(
                f"line {number} of {str(path)!r} is none of a trace: "
                f"write time, TargetModel and, if known, bytes and load seconds, with tabs between"
            ) from error
        trace.names = list(numbers)
        known = [model for model, size in enumerate(trace.sizes) if size > 0]
        size = int(median(trace.sizes[model] for model in known)) if known else SIZE
        load = median(trace.loads[model] for model in known) if known else LOAD
        for model in range(len(trace.names)):
            if trace.sizes[model] <= 0:
                trace.sizes[model], trace.loads[model] = size, load
        return trace


def hottest(path: Path) -> list[str]:
    """Return the models that the end of a trace asks for, the one it asks for most often first.

    :raises SettingsError: if it cannot be read.
    """
    counts: Counter[str] = Counter()
    try:
        if path.suffix != ".gz" and (size := path.stat().st_size) > TAIL:
            with path.open("rb") as tail:
                tail.seek(size - TAIL)
                lines = tail.read().decode(errors="surrogateescape").split("\n")[1:]
        else:
            with _open(path) as file:
                lines = file.read().split("\n")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    for line in lines:
        fields = line.split("\t", 2)
        if len(fields) > 1:
            counts[fields[1]] += 1
    return [name for name, _ in counts.most_common()]


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")
    return path.open(encoding="utf-8", errors="surrogateescape", newline="\n")


def _unreadable(path: Path, error: Exception) -> SettingsError:
    return SettingsError(f"the trace {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}")


class Recorder:
    """Appends invocations to a trace, many at a time and in a thread."""

    def __init__(self, path: Path) -> None:
        """Open the trace.

        :raises SettingsError: if it cannot be written to.
        """
        if path.suffix == ".gz":
            raise SettingsError(f"a trace is recorded uncompressed: name {str(path)!r} without .gz")
        try:
            self._file: BinaryIO | None = path.open("ab")
        except OSError as error:
            raise SettingsError(f"the trace {str(path)!r} cannot be written to: {error.strerror}") from error
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def invoked(self, name: str) -> None:
        """Take note of an invocation."""
        self._add(f"{time.time():.3f}\t{name}\n")

    def loaded(self, name: str, size: int, seconds: float) -> None:
        """Take note of an invocation that had its model loaded."""
        self._add(f"{time.time():.3f}\t{name}\t{size}\t{seconds:.6f}\n")

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._write_soon)
        if len(self._lines) >= LINES:
            self._write_soon()

    def _write_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None and not self._writing.done():  # one at a time, so that lines keep their order
            self._timer = loop.call_later(SECONDS, self._write_soon)
            return
        lines, self._lines = self._lines, []
        self._writing = loop.run_in_executor(None, self._write, lines)

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            return
        try:
            self._file.write("".join(lines).encode(errors="surrogateescape"))
            self._file.flush()
        except OSError as error:
            logger.error("the trace is not recorded any more: %s", error.strerror)
            self._file = None

    async def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        self._write(self._lines)
        if self._file is not None:
            self._file.close()
            self._file = None

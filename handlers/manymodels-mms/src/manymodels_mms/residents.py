"""What the backend holds: models, and the runs of their processes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from manymodels.server.awaited import Awaited
from manymodels.server.held import Held
from manymodels.server.worker_log import WorkerLog

from .engine import Engine


@dataclass(eq=False)
class Run:
    """One life of a model's process, known to multi-model-server by a name of its own."""

    engine: Engine
    lane: Lane
    #: A new one for each life, so that what is late of an earlier one is never taken for it.
    name: str
    #: Done when its process ended, with the exit code; only where processes are forks of the zygote.
    exited: asyncio.Future[int | None]
    #: Why it was ended, where we did it.
    ending: str | None = None
    pids: tuple[int, ...] = ()
    #: Whether it makes and tries a faster predictor.
    trying: bool = False
    #: A writing end of what it prints, so that its log does not end before its process has begun it.
    _writing: int | None = None

    @property
    def folder(self) -> Path:
        """The folder with its description and reports."""
        return self.engine.store / self.name

    @property
    def output(self) -> Path:
        """The FIFO that takes what the model prints."""
        return self.folder / "output"

    async def listen(self, model: str) -> None:
        """Log what the model prints, until its process has ended and `close` was called."""
        assert self.engine.guard is not None
        os.mkfifo(self.output)
        reading = os.open(self.output, os.O_RDONLY | os.O_NONBLOCK)
        self._writing = os.open(self.output, os.O_WRONLY)
        await WorkerLog.attach(reading, self.engine.guard.pid, lambda: model)

    def close(self) -> None:
        """Let the log end with the process."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None


@dataclass(eq=False)
class Lane:
    """The place of one of a model's processes."""

    #: None after its process was lost; the next invocation that comes here loads the model again.
    run: Run | None = None
    #: Memory of the process, as last measured.
    bytes: int = 0
    #: Whether invocations are being sent there.
    busy: bool = False
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class Resident(Held):
    """A model in processes of its own."""

    lanes: list[Lane] = field(default_factory=list)
    calls: deque[Awaited] = field(default_factory=deque)
    #: Whether a process of it ended that is held against it.
    blamed: bool = False

    def idle(self) -> Lane | None:
        """Return a lane that has nothing to do, preferably one whose process is there."""
        return min((lane for lane in self.lanes if not lane.busy), key=lambda lane: lane.run is None, default=None)

    def take(self, most: int, most_bytes: int) -> list[Awaited]:
        """Take the next invocations that go together, leaving out those nobody waits for any more."""
        taken: list[Awaited] = []
        size = 0
        while self.calls and len(taken) < most:
            if self.calls[0].future.done():
                self.calls.popleft()
                continue
            size += self.calls[0].invocation.size
            if taken and size > most_bytes:
                break
            taken.append(self.calls.popleft())
        return taken

    def drop(self) -> Iterator[Awaited]:
        """Take all invocations that wait."""
        while self.calls:
            yield self.calls.popleft()

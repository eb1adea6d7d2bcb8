"""One worker as the front sees it: what it holds, what it is doing, what waits for it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from ..errors import InvocationTimeout, ManyModelsError
from ..invocation import Answer, Invocation
from ..plugins import Binding
from .launcher import Process
from .messages import (
    Answered,
    Cancel,
    Dropped,
    Failed,
    Failure,
    Frames,
    Load,
    Loaded,
    Run,
    ToWorker,
    Unload,
    frame,
    to_front_decoder,
)
from .worker_log import WorkerLog

logger = logging.getLogger(__name__)

#: Bytes of bodies in one frame, beyond its first invocation.
FRAME_BYTES = 8 << 20

_numbers = itertools.count(1)


@dataclass(eq=False)
class Resident:
    """A model that is loaded, or being loaded for the first time."""

    name: str
    path: str
    binding: Binding
    #: Differs for another content under the same name.
    version: str
    #: Shared slots by preference; the first is its home.
    ranking: list[Slot] = field(default_factory=list)
    #: The slot it has for itself, once it has shown that it is no good neighbour.
    own: Slot | None = None
    #: Memory a copy takes, in bytes, as last measured.
    bytes: int = 0
    load_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    #: Invocations that wait or run.
    waiting: int = 0
    loaded: bool = False
    removed: bool = False
    #: What workers know it by: a name may come back for another model before the worker let go of the first.
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass(eq=False)
class Call:
    """An invocation that waits for its answer."""

    resident: Resident
    invocation: Invocation
    future: asyncio.Future[Answer]
    #: Event loop times, in seconds.
    deadline: float
    asked: float
    began: float = 0.0


@dataclass(eq=False)
class Job:
    """Something a worker was told to do."""

    resident: Resident
    #: The invocations of a `Run`; empty for a load or unload, and when they were moved elsewhere.
    calls: list[Call] = field(default_factory=list)
    kind: type[Run] | type[Load] | type[Unload] = Run
    #: Whether it was given up, and the worker asked to leave it out.
    moved: bool = False
    #: Done when a load or unload that somebody waits for is.
    done: asyncio.Future[None] | None = None
    number: int = field(default_factory=lambda: next(_numbers))

    def message(self) -> ToWorker:
        """Return what the worker is sent."""
        if self.kind is Run:
            return Run(self.number, self.resident.number, [call.invocation for call in self.calls])
        if self.kind is Load:
            resident = self.resident
            return Load(self.number, resident.number, resident.name, resident.path, resident.binding)
        return Unload(self.number, self.resident.number)


class Owner(Protocol):
    """What a slot tells of itself."""

    def on_loaded(self, slot: Slot, resident: Resident, message: Loaded) -> None:
        """A model was loaded."""

    def on_load_failed(self, slot: Slot, resident: Resident, job: Job, error: ManyModelsError) -> None:
        """A model could not be loaded; `job` may be waited for."""

    def on_lost(self, slot: Slot) -> None:
        """The worker ended."""


class Slot(asyncio.Protocol):
    """A place for one worker process at a time, which outlives it."""

    def __init__(self, owner: Owner, name: str, max_batch: int) -> None:
        self.name = name
        self.process: Process | None = None
        #: Jobs the worker was sent, in order; it is running the first.
        self.sent: deque[Job] = deque()
        #: When it began the first, by the event loop's clock.
        self.began = 0.0
        #: Loads and unloads to be sent.
        self.control: deque[Job] = deque()
        #: Invocations to be sent, by model.
        self.pending: dict[Resident, deque[Call]] = {}
        #: Memory of each model it holds, in bytes.
        self.held: dict[Resident, int] = {}
        self.loading: set[Resident] = set()
        #: Whether its job has run for so long that others should not wait for it.
        self.stalled = False
        #: Why it is being ended, if it is.
        self.ending: str | None = None
        #: When it last had something to do.
        self.last_active = 0.0
        #: When its process was connected.
        self.connected = 0.0
        self._owner = owner
        self._max_batch = max_batch
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(to_front_decoder)

    def __repr__(self) -> str:
        return f"Slot({self.name!r}, pid={self.process.pid if self.process else None})"

    # -- The connection --

    async def connect(self, process: Process) -> None:
        """Put a process into the slot and send it what waits."""
        self._frames = Frames(to_front_decoder)
        self.ending = None
        try:
            await WorkerLog.attach(process.log, process.pid, lambda: self.running.name if self.running else None)
            self.process = process
            self.connected = self._loop.time()
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=process.connection)
        except BaseException:  # the server may be stopping meanwhile
            process.connection.close()
            raise
        self.flush()

    def close(self) -> None:
        """Close the connection, which ends the worker once it is done with what it runs."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner that the worker ended."""
        self._transport = None
        self._owner.on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Act on the worker's messages."""
        try:
            for message in self._frames.feed(data):
                self._received(message)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError) as error:
            logger.error("a worker broke the protocol and is ended: %s", error, extra={"worker": self.name})
            self.close()
            return
        if not self.sent:
            self.flush()

    # -- Work --

    @property
    def running(self) -> Resident | None:
        """The model whose job the worker is running."""
        return self.sent[0].resident if self.sent else None

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not (self.sent or self.pending or self.control)

    def submit(self, call: Call) -> None:
        """Queue an invocation; it is sent at once if the worker is idle."""
        calls = self.pending.get(call.resident)
        if calls is None:
            calls = self.pending[call.resident] = deque()
        calls.append(call)
        if not self.sent:
            self.flush()

    def order(self, job: Job) -> None:
        """Queue a load or unload."""
        self.control.append(job)
        if not self.sent:
            self.flush()

    def flush(self) -> None:
        """Send all that waits in one frame: no timer, what comes while the worker is busy goes together."""
        if self.sent or self._transport is None:
            return
        jobs: list[Job] = []
        while self.control:
            job = self.control.popleft()
            if job.kind is Load:
                if job.resident.removed:
                    continue  # who asked for it is gone
                self.loading.add(job.resident)
            jobs.append(job)
        room = FRAME_BYTES
        for resident in list(self.pending):
            if resident not in self.held:
                if resident not in self.loading:
                    self.loading.add(resident)
                    jobs.append(Job(resident, kind=Load))
            elif room > 0:
                calls, taken = self._take(resident, room)
                room -= taken
                if calls:
                    jobs.append(Job(resident, calls))
        if jobs:
            self.sent.extend(jobs)
            self._begin()
            self._transport.write(frame([job.message() for job in jobs]))

    def _take(self, resident: Resident, room: int) -> tuple[list[Call], int]:
        """Take a model's next invocations; what is left of them waits behind the other models'."""
        queue = self.pending.pop(resident)
        calls: list[Call] = []
        taken = 0
        while queue and len(calls) < self._max_batch and taken < room:
            call = queue.popleft()
            if not call.future.done():  # the client may be gone
                calls.append(call)
                taken += len(call.invocation.body)
        if queue:
            self.pending[resident] = queue
        return calls, taken

    def _begin(self) -> None:
        """Note that the worker begins the first job sent."""
        self.last_active = self.began = self._loop.time()
        self.stalled = False
        if self.sent:
            for call in self.sent[0].calls:
                call.began = self.began

    def _received(self, message: Any) -> None:
        if isinstance(message, Dropped):
            dropped = set(message.jobs)
            self.loading -= {job.resident for job in self.sent if job.number in dropped}
            self.sent = deque(job for job in self.sent if job.number not in dropped)
            return
        job = self.sent[0]
        if job.number != message.job or not _fits(message, job):
            raise LookupError(f"{type(message).__name__} of job {message.job} came, {job.number} was next")
        self.sent.popleft()
        self._begin()
        if isinstance(message, Answered):
            for call, outcome in zip(job.calls, message.outcomes, strict=False):  # none, if they were moved elsewhere
                _settle(call, outcome)
        elif isinstance(message, Loaded):
            self.loading.discard(job.resident)
            self.held[job.resident] = message.bytes
            self._owner.on_loaded(self, job.resident, message)
            _finish(job.done)
        elif isinstance(message, Failed) and job.kind is Load:
            self.loading.discard(job.resident)
            self._owner.on_load_failed(self, job.resident, job, message.failure.error())
        elif isinstance(message, Failed):
            for call in job.calls:
                _settle(call, message.failure)
        else:
            self.held.pop(job.resident, None)
            _finish(job.done)

    # -- When others should not wait for it --

    def give_up(self) -> tuple[list[Call], list[Job]]:
        """Give up what waits behind the running job: invocations of other models, and loads.

        The running model's own invocations stay: elsewhere they would only hold up others.
        """
        self.stalled = True
        running = self.running
        calls: list[Call] = []
        loads: list[Job] = []
        cancelled: list[int] = []
        for job in itertools.islice(self.sent, 1, None):
            if job.resident is running or job.kind is Unload or job.moved:
                continue
            job.moved = True
            cancelled.append(job.number)
            calls += job.calls
            job.calls = []
            if job.kind is Load and job.done is not None:
                loads.append(Job(job.resident, kind=Load, done=job.done))
                job.done = None
        if cancelled and self._transport is not None:
            self._transport.write(frame([Cancel(cancelled)]))
        loads += [job for job in self.control if job.kind is Load]
        self.control = deque(job for job in self.control if job.kind is not Load)
        for resident in [resident for resident in self.pending if resident is not running]:
            calls += self.pending.pop(resident)
        return calls, loads

    def reset(self) -> tuple[Job | None, list[Job]]:
        """Forget the worker that ended; return the job it ran and those it had not begun."""
        running = self.sent.popleft() if self.sent else None
        rest = list(self.sent)
        self.process = None
        self.sent.clear()
        self.held.clear()
        self.loading.clear()
        self.stalled = False
        return running, rest

    def waiting(self) -> Iterator[Call]:
        """Return all invocations it was given and has not answered."""
        for job in self.sent:
            yield from job.calls
        for calls in self.pending.values():
            yield from calls

    def drop(self, resident: Resident) -> Iterator[Call]:
        """Take a model's waiting invocations out of the queue."""
        yield from self.pending.pop(resident, ())

    def expire(self, now: float) -> None:
        """Answer waiting and running invocations whose deadline has passed."""
        for resident, calls in list(self.pending.items()):
            for call in calls:
                if call.deadline <= now:
                    _expire(call, "was still waiting for its turn")
            if all(call.future.done() for call in calls):
                del self.pending[resident]
        if self.sent:
            for call in self.sent[0].calls:
                if call.deadline <= now:
                    _expire(call, "was still running")


def _fits(message: Any, job: Job) -> bool:
    """Say whether a worker may answer a job like this."""
    if isinstance(message, Answered):
        return job.kind is Run and len(message.outcomes) >= len(job.calls)
    return isinstance(message, Failed) or job.kind is (Load if isinstance(message, Loaded) else Unload)


def _settle(call: Call, outcome: Answer | Failure) -> None:
    if call.future.done():
        return
    if isinstance(outcome, Failure):
        call.future.set_exception(outcome.error())
    else:
        outcome.timings["queue"] = call.began - call.asked
        call.future.set_result(outcome)


def _expire(call: Call, state: str) -> None:
    if not call.future.done():
        seconds = call.deadline - call.asked
        call.future.set_exception(
            InvocationTimeout(f"{call.resident.name!r} did not answer within {seconds:.3g} s: the invocation {state}")
        )


def _finish(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)

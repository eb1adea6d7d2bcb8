"""One worker as the front sees it: what it holds, what it is doing, what waits for it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from ..errors import ManyModelsError
from ..invocation import Answer
from .jobs import Call, Job, Resident
from .launcher import Launcher, Process
from .messages import (
    Answered,
    Begins,
    Cancel,
    Dropped,
    Failed,
    Failure,
    Frames,
    Load,
    Loaded,
    Notice,
    OfJob,
    Part,
    Run,
    Serves,
    ToFront,
    ToWorker,
    Tries,
    Unload,
    frame,
    to_front_decoder,
)
from .worker_log import WorkerLog

logger = logging.getLogger(__name__)

#: Bytes of bodies in one frame, beyond its first invocation.
FRAME_BYTES = 8 << 20
#: Answers handed over in one turn of the event loop: the front's time for them is what others wait for.
PORTION = 8


class Owner(Protocol):
    """What a slot tells of itself."""

    @property
    def crowded(self) -> bool:
        """Whether several models are being asked."""

    def on_loaded(self, slot: Slot, resident: Resident, message: Loaded) -> None:
        """A model was loaded."""

    def on_serves(self, slot: Slot, message: Serves) -> None:
        """Another predictor serves a model."""

    def on_memory(self, slot: Slot) -> None:
        """The worker said how much memory it has grown by."""

    def on_lost(self, slot: Slot) -> None:
        """The worker ended."""


class Slot(asyncio.Protocol):
    """A place for one worker process at a time, which outlives it."""

    def __init__(
        self, owner: Owner, name: str, launcher: Launcher, max_batch: int, batched: Callable[[int], None]
    ) -> None:
        """Prepare for a process.

        :param launcher: starts and ends its processes.
        :param batched: told of the number of invocations that were sent together, for one prediction.
        """
        self.name = name
        self.launcher = launcher
        self.process: Process | None = None
        #: Jobs the worker was sent, in order; it is running the first.
        self.sent: deque[Job] = deque()
        #: When it began the first, by the monotonic clock.
        self.began = 0.0
        #: Loads and unloads to be sent.
        self.control: deque[Job] = deque()
        #: Invocations to be sent, by model.
        self.pending: dict[Resident, deque[Call]] = {}
        #: Memory of each model it holds, in bytes.
        self.held: dict[Resident, int] = {}
        #: Their sum.
        self.bytes = 0
        #: Private memory its process has grown by, in bytes, as last reported.
        self.private = 0
        #: The model of which it tries a faster predictor in idle moments.
        self.tries: Resident | None = None
        self.loading: set[Resident] = set()
        #: Seconds its worker ran each model since the last time somebody asked.
        self._busy: dict[Resident, float] = {}
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
        self._batched = batched
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
            await WorkerLog.attach(process.log, process.pid, lambda: self._model(process))
            self.process = process
            self.connected = time.monotonic()
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=process.connection)
            # At once: uvloop would write only after it has dealt with all that clients sent meanwhile.
            self._transport.set_write_buffer_limits(high=0)
        except BaseException:  # the server may be stopping meanwhile
            process.connection.close()
            raise
        self.flush()

    def _model(self, process: Process) -> str | None:
        """Return the name of the model that a process is running, for its log."""
        return self.running.name if self.running is not None and self.process is process else None

    def detach(self) -> Slot:
        """Give the process away, with what it was sent, to a slot of its own; what waits stays here."""
        old = Slot(self._owner, f"{self.name}-old", self.launcher, self._max_batch, self._batched)
        old.process, old.connected, old.last_active = self.process, self.connected, self.last_active
        old.sent, old.began, old.loading = self.sent, self.began, self.loading
        old.tries, self.tries = self.tries, None
        old._frames, old._transport = self._frames, self._transport
        if self._transport is not None:
            self._transport.set_protocol(old)
        self.process = self._transport = None
        self.sent, self.loading = deque(), set()
        self.held.clear()
        self.bytes = self.private = 0
        for job in self.control:
            if job.kind is Unload:
                job.finish()  # the model goes with the process
        self.control = deque(job for job in self.control if job.kind is Load)
        return old

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
    def free(self) -> bool:
        """Whether there is a process that nobody holds up."""
        return self.process is not None and not self.stalled and self.ending is None

    def queue(self, resident: Resident) -> tuple[bool, int]:
        """Return how long a further invocation of a model would wait here, for comparison."""
        return bool(self.sent), len(self.pending.get(resident, ()))

    def take_busy(self, now: float, window: float) -> dict[Resident, float]:
        """Return each model's share of the last `window` seconds of the worker, and begin anew."""
        busy, self._busy = self._busy, {}
        if self.sent:
            running = self.sent[0].resident
            busy[running] = busy.get(running, 0.0) + now - self.began
        return {resident: min(seconds / window, 1.0) for resident, seconds in busy.items()}

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not (self.sent or self.pending or self.control)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for an answer or a load; an unload is done as well once the process has ended."""
        loads = (job.done for job in itertools.chain(self.sent, self.control) if job.kind is Load)
        return any(not call.over for call in self.waiting()) or any(done and not done.done() for done in loads)

    def submit(self, call: Call) -> None:
        """Queue an invocation; it is sent at once if the worker is idle."""
        calls = self.pending.get(call.resident)
        if calls is None:
            calls = self.pending[call.resident] = deque()
        calls.append(call)
        call.slot = self
        if not self.sent:
            self.flush()

    def order(self, job: Job, calls: Sequence[Call] = ()) -> None:
        """Queue a load or unload, and invocations of the model to be loaded."""
        self.control.append(job)
        for call in calls:
            call.slot = self
            self.pending.setdefault(job.resident, deque()).append(call)
        if not self.sent:
            self.flush()

    def release(self, resident: Resident) -> asyncio.Future[None]:
        """Let the worker unload a model it holds; done when its memory is free."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.order(Job(resident, kind=Unload, done=done, bytes=self.held.pop(resident)))
        return done

    def flush(self) -> None:
        """Send all that waits in one frame: no timer, what comes while the worker is busy goes together."""
        if self.sent or self._transport is None:
            return
        # First what frees memory; behind all else what may take long, loads: one that was ordered, and one of a
        # model that is asked for. What comes for other models meanwhile waits for these at most.
        jobs = [job for job in self.control if job.kind is Unload]
        loads = deque(job for job in self.control if job.kind is Load and not job.resident.removed)
        self.control = loads
        coming = self.loading.union(job.resident for job in loads)
        room = FRAME_BYTES
        wanted: Resident | None = None
        for resident in list(self.pending):
            if resident not in self.held:
                if resident not in coming and wanted is None:
                    wanted = resident
            elif room > 0:
                room -= self._take_job(resident, room, jobs)
        jobs.sort(key=lambda job: len(job.calls))  # nobody waits for more than others have
        ordered = [loads.popleft()] if loads else []
        if wanted is not None:
            ordered.append(Job(wanted, kind=Load))
        for job in ordered:
            self.loading.add(job.resident)
            jobs.append(job)
            if job.resident in self.pending:  # what waits for the load goes with it
                self._take_job(job.resident, FRAME_BYTES, jobs)
        if jobs:
            self.sent.extend(jobs)
            self._begin()
            self._transport.write(frame([job.message() for job in jobs]))

    def _take_job(self, resident: Resident, room: int, jobs: list[Job]) -> int:
        """Add a job with a model's next invocations, if there are any, and return the bytes of their bodies."""
        calls, taken = self._take(resident, room)
        if calls:
            jobs.append(Job(resident, calls))
        return taken

    def _take(self, resident: Resident, room: int) -> tuple[list[Call], int]:
        """Take a model's next invocations; what is left of them waits behind the other models'."""
        queue = self.pending.pop(resident)
        calls: list[Call] = []
        taken = 0
        most = min(self._max_batch, resident.share) if self._owner.crowded else self._max_batch
        if resident.streams:
            most = 1
        now = time.monotonic()
        while queue and len(calls) < most and taken < room:
            call = queue.popleft()
            if call.deadline <= now:
                call.expire("was still waiting for its turn")
            elif not call.future.done():  # the client may be gone
                calls.append(call)
                taken += call.invocation.size
        if queue:
            self.pending[resident] = queue
        return calls, taken

    def _begin(self) -> None:
        """Note that the worker begins the first job sent."""
        self.last_active = self.began = time.monotonic()
        self.stalled = False
        if self.sent:
            for call in self.sent[0].calls:
                call.began = self.began

    def _received(self, message: ToFront) -> None:
        if isinstance(message, Notice):
            self._noticed(message)
            return
        job = self.sent[0]
        if job.number != message.job or not _fits(message, job):
            raise LookupError(f"{type(message).__name__} of job {message.job} came, {job.number} was next")
        if isinstance(message, (Begins, Part)):
            assert self._transport is not None  # what comes, comes from it
            job.stream(message, functools.partial(_tell, self._transport))
            return
        self.sent.popleft()
        self._begin()
        if isinstance(message, Answered):
            self._batched(len(message.outcomes))
            job.resident.learn(message.outcomes, message.seconds)
            self._busy[job.resident] = self._busy.get(job.resident, 0.0) + message.seconds
            self._hand_back(list(zip(job.calls, message.outcomes, strict=False)))  # none, if moved elsewhere
        elif isinstance(message, Loaded):
            self.loading.discard(job.resident)
            self.weigh(job.resident, message.bytes)
            self._owner.on_loaded(self, job.resident, message)
            job.finish()
        elif isinstance(message, Failed) and job.kind is Load:
            self.loading.discard(job.resident)
            error = message.failure.error()
            job.fail(error)
            self.fail(job.resident, error)
            for later in self.sent:
                if later.resident is job.resident:
                    later.fail(error)
        elif isinstance(message, Failed):
            for call in job.calls:
                call.fail(message.failure.error())
        else:
            self.bytes -= job.bytes
            job.finish()

    def _noticed(self, message: Notice) -> None:
        if isinstance(message, Dropped):
            dropped = set(message.jobs)
            if any(job.number in dropped and not job.moved for job in self.sent):
                raise LookupError("a job was left out that nobody had cancelled")
            self.loading -= {job.resident for job in self.sent if job.kind is Load and job.number in dropped}
            self.sent = deque(job for job in self.sent if job.number not in dropped)
        elif isinstance(message, Tries):
            self.tries = next((resident for resident in reversed(self.held) if resident.number == message.model), None)
        elif isinstance(message, Serves):
            self.tries = None
            self._owner.on_serves(self, message)
        else:
            self.private = message.private
            self._owner.on_memory(self)

    def _hand_back(self, outcomes: Sequence[tuple[Call, Answer | Failure]], start: int = 0) -> None:
        """Hand over answers, some in each turn of the loop: a flood of them holds up other models otherwise."""
        for call, outcome in outcomes[start : start + PORTION]:
            call.settle(outcome)
        if len(outcomes) > start + PORTION:
            self._loop.call_soon(self._hand_back, outcomes, start + PORTION)

    # -- When others should not wait for it --

    def give_up(self) -> tuple[list[Call], list[Job]]:
        """Give up what waits behind the running job: invocations of other models, and loads.

        The running model's own invocations stay: elsewhere they would only hold up others. So do those of sessions.
        """
        self.stalled = True
        running = self.running
        calls: list[Call] = []
        loads: list[Job] = []
        cancelled: list[int] = []
        for job in itertools.islice(self.sent, 1, None):
            if job.resident is running or job.kind is Unload or job.moved or any(call.bound for call in job.calls):
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
            queue = self.pending.pop(resident)
            calls += [call for call in queue if not call.bound]
            if bound := [call for call in queue if call.bound]:
                self.pending[resident] = deque(bound)
        return calls, loads

    def reset(self) -> tuple[Job | None, list[Job]]:
        """Forget the worker that ended; return the job it ran and those it had not begun."""
        running = self.sent.popleft() if self.sent else None
        rest = list(self.sent)
        self.process = None
        self.sent.clear()
        self.held.clear()
        self.bytes = 0
        self.private = 0
        self.tries = None
        self.loading.clear()
        self.stalled = False
        return running, rest

    def waiting(self) -> Iterator[Call]:
        """Return all invocations it was given and has not answered."""
        for job in self.sent:
            yield from job.calls
        for calls in self.pending.values():
            yield from calls

    def weigh(self, resident: Resident, count: int) -> None:
        """Take note of the bytes that a model takes here."""
        self.bytes += count - self.held.get(resident, 0)
        self.held[resident] = count

    def fail(self, resident: Resident, error: ManyModelsError) -> None:
        """Answer a model's waiting invocations: it cannot be loaded."""
        for call in self.drop(resident):
            call.fail(error)

    def drop(self, resident: Resident) -> Iterator[Call]:
        """Take a model's waiting invocations out of the queue."""
        yield from self.pending.pop(resident, ())

    def expire(self, now: float) -> None:
        """Answer waiting and running invocations whose deadline has passed."""
        for resident, calls in list(self.pending.items()):
            for call in calls:
                if call.deadline <= now:
                    call.expire("was still waiting for its turn")
            if all(call.future.done() for call in calls):
                del self.pending[resident]
        state = "was still running"
        left: list[int] = []
        for job in self.sent:
            for call in job.calls:
                if call.deadline <= now:
                    call.expire(state)
            if job is not self.sent[0] and job.calls and all(call.future.done() for call in job.calls):
                left.append(job.number)
                job.moved = True
                job.calls = []
            state = "was still waiting for its turn"
        if left and self._transport is not None:
            self._transport.write(frame([Cancel(left)]))


def _tell(transport: asyncio.Transport, message: ToWorker) -> None:
    """Tell a worker something, whatever slot it is in now."""
    if not transport.is_closing():
        transport.write(frame([message]))


def _fits(message: OfJob, job: Job) -> bool:
    """Say whether a worker may answer a job like this."""
    if isinstance(message, Answered):
        return job.kind is Run and len(message.outcomes) >= len(job.calls)
    if isinstance(message, (Begins, Part)):
        return job.kind is Run
    return isinstance(message, Failed) or job.kind is (Load if isinstance(message, Loaded) else Unload)

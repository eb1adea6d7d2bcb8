"""The model server of our own worker processes."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..errors import (
    LoadFailed,
    WorkerDied,
)
from ..invocation import Answer, Invocation
from ..schema import LIMIT
from ..settings import Settings
from . import renewal, sessions
from .fleet import Fleet
from .holder import Holder
from .jobs import Call, Job, Resident, unloaded
from .messages import Load, Loaded, Run, Serves
from .placement import Placement
from .recovery import Recovery
from .renewal import Renewal
from .replicas import Replicas
from .slot import Slot
from .streams import once_whole
from .worker import WorkerConfig

logger = logging.getLogger(__name__)

#: How long other models wait for a load, as a share of `slow_after`: most are done by then, and those that are
#: not take long.
LOAD_PATIENCE = 0.3
#: Seconds after invocations of two models for which they count as asked at the same time.
CROWDED = 1.0
#: Seconds between looks at deadlines and at jobs that hold up others.
TICK = 0.05
#: Bytes a worker may allocate beyond the budget: libraries imported late, and what a load or a
#: prediction needs for a moment. A model within the budget must not meet the limit for runaways.
HEADROOM = 128 << 20
#: Seconds that what somebody waits for has when the server stops, and workers to end by themselves.
STOP_TIMEOUT = 10.0


class WorkerPool(Holder[Resident]):
    """Holds models in worker processes and answers for them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Resident)
        self._fleet = Fleet(settings, self, self.metrics)
        self._placement = Placement(self._fleet, self._budget, self._conduct)
        self._replicas = Replicas(self._fleet, self._placement, self._budget)
        self._recovery = Recovery(self._fleet, self._placement, self._conduct)
        self._renewal = Renewal(self._fleet, self._recovery)
        self._ticking = False
        #: The model of the latest invocation, and until when there counts as being more than one.
        self._asked: Resident | None = None
        self._crowded_until = 0.0

    # -- Start and stop --

    async def start(self, frameworks: Sequence[str] | None) -> None:
        """Start the workers."""
        await self._fleet.start(self._config(frameworks))

    def _config(self, plugins: Sequence[str] | None) -> WorkerConfig:
        """Return the configuration of workers that import what plugins (None: all) want imported."""
        return WorkerConfig(
            blocked=tuple(self._settings.block_plugins),
            modules=tuple(self._plugins.warm_up_imports(plugins)),
            memory=self._budget.limit + HEADROOM,
            front=os.getpid(),
            settings=self._settings.model_settings(),
        )

    async def stop(self) -> None:
        """End the workers, once what somebody waits for is done or the time is up."""
        await self._environments.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_TIMEOUT
        while any(slot.awaited for slot in self._fleet.slots()) and loop.time() < end:  # noqa: ASYNC110 - at the end only
            await asyncio.sleep(TICK)
        for slot in self._fleet.slots():
            if slot.sent:
                self._fleet.end(slot, "was ended because nobody waits for what it does")
        await self._fleet.stop(max(end - loop.time(), TICK))
        for slot in self._fleet.slots():
            for call in slot.waiting():
                call.fail(WorkerDied(f"the server stopped before {call.resident.name!r} answered"))

    def healthy(self) -> bool:
        """Say whether at least one worker is there."""
        return not self._fleet.stopping and any(slot.process is not None for slot in self._fleet.shared)

    # -- Models --

    async def _make_room(self, count: int) -> None:
        self._fleet.environments.retire(idle=0)
        await self._replicas.make_room(count, self._settings.slow_after)

    async def _bring(self, resident: Resident) -> None:
        if (interpreter := resident.interpreter) is not None:
            await self._fleet.environments.enter(resident, interpreter, self._config(interpreter.plugins))
        self._placement.rank(resident)
        resident.trial = self._conduct.may_try(resident.name, resident.version)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._placement.load(Job(resident, kind=Load, done=done), self._sent_along(resident))
        self._tick_on()
        seconds = self._settings.load_timeout
        try:
            await asyncio.wait([done], timeout=seconds)
            if done.done():
                return done.result()
        finally:
            done.cancel()  # from here on nobody waits for it
        for slot in self._fleet.slots():
            if slot.running is resident:
                self._fleet.end(slot, f"was ended because it loaded for more than {seconds:g} s")
        raise LoadFailed(f"{resident.name!r} did not load within {seconds:g} s")

    def _sent_along(self, resident: Resident) -> list[Call]:
        """Return the invocations that are sent along with a load: as many as the worker would be sent at a time."""
        calls: list[Call] = []
        for asked in itertools.islice((one for one in resident.asked if not one.dropped), resident.share):
            call = self._call(resident, asked.invocation, asked.limit)
            asked.sent(call, functools.partial(self._answer, call))
            calls.append(call)
        return calls

    async def _abandon(self, resident: Resident) -> None:
        self._remove(resident)

    def _leave(self, resident: Resident) -> None:
        self._remove(resident)

    def _taken(self) -> int:
        # A worker that has grown by more than its models account for counts with that.
        grown = sum(max(slot.bytes, slot.private - renewal.SPARE) for slot in self._fleet.slots())
        return grown + self._recovery.room() + self._fleet.environments.bytes()

    def _start_of(self, resident: Resident) -> int:
        return 0 if resident.interpreter is None else self._fleet.environments.estimate(resident.interpreter)

    def _where(self, resident: Resident) -> tuple[int, list[int]]:
        holders = [slot for slot in self._fleet.slots() if resident in slot.held]
        taken = sum(slot.held[resident] for slot in holders) or resident.bytes
        return taken, [slot.process.pid for slot in holders if slot.process is not None]

    def _processes(self) -> int:
        return sum(slot.process is not None for slot in self._fleet.slots())

    async def unload(self, name: str) -> bool:
        """Unload a model."""
        resident = self._loaded(name)
        if not (acknowledged := self._remove(resident)):
            return True
        # Not for longer: who waits here would wait for another model, and maybe with room to make for a third.
        _, late = await asyncio.wait(acknowledged, timeout=self._settings.slow_after)
        return not late

    def _remove(self, resident: Resident) -> list[asyncio.Future[Any]]:
        """Forget a model; return what to wait for until its memory is free."""
        resident.removed = True
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]
        self._recovery.settle(resident)
        self._fleet.environments.leave(resident)
        self._tick_on()
        acknowledged: list[asyncio.Future[Any]] = []
        if (own := resident.own) is not None:
            # At once: what it runs is slow, or ends its worker.
            unloaded(own.drop(resident))
            unloaded(call for job in own.sent for call in job.calls)
            if own.process is not None:
                acknowledged.append(own.process.exited)
            self._fleet.remove_own(own)
        for slot in self._fleet.slots():
            unloaded(slot.drop(resident))
            if resident in slot.held:
                acknowledged.append(slot.release(resident))
        resident.copies.clear()
        return acknowledged

    # -- Invocations --

    def invoke(self, name: str, invocation: Invocation, timeout: float) -> Coroutine[Any, Any, Answer]:
        """Answer one invocation."""
        call = self._call(self._invoked(name), invocation, time.monotonic() + timeout)
        return self._answer(call, self._submit)

    def _call(self, resident: Resident, invocation: Invocation, limit: float) -> Call:
        now = time.monotonic()
        if resident is not self._asked:
            if self._asked is not None:
                self._crowded_until = now + CROWDED
            self._asked = resident
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return Call(invocation, future, now, min(limit, invocation.deadline), resident, limit)

    def _submit(self, call: Call) -> None:
        resident = call.resident
        slot = sessions.slot_of(resident, call.invocation)
        call.bound = slot is not None
        (slot or self._placement.slot_for(resident)).submit(call)
        if not self._ticking:
            self._tick_on()

    async def _answer(self, call: Call, submit: Callable[[Call], None] | None = None) -> Answer:
        """Wait for an answer.

        :param submit: called first; None: it was sent already.
        """
        resident = call.resident
        resident.waiting += 1
        try:
            if submit is not None:
                submit(call)
            answer = await call.future
        except BaseException:
            self._over(resident)
            if call.stream is not None:  # it began, and who asked went away before taking it
                call.stream.close()
            raise
        answer.version = resident.version
        if answer.headers:
            sessions.note(call, answer)
        once_whole(answer, self._over, resident)
        return answer

    def _over(self, resident: Resident, _: object = None) -> None:
        """Take note that an invocation is answered."""
        resident.waiting -= 1
        if resident.replaced is not None:
            self._answered(resident)

    # -- What slots ask and report --

    @property
    def crowded(self) -> bool:
        """Whether several models are being asked."""
        return time.monotonic() < self._crowded_until

    def on_loaded(self, slot: Slot, resident: Resident, message: Loaded) -> None:
        """Take note of a load, or undo it if the model was unloaded meanwhile."""
        if resident.removed or resident.own not in (None, slot):
            slot.release(resident)
            return
        if slot in self._fleet.retiring:
            self._recovery.keep(resident)
        else:
            self._replicas.note(resident, slot, time.monotonic())
            self._recovery.settle(resident)
        resident.bytes = message.bytes
        resident.measured = message.measured
        resident.load_seconds = message.seconds
        resident.notes = message.notes
        resident.golden = message.golden
        resident.schema = message.schema if len(message.schema) <= LIMIT else b""

    def on_serves(self, slot: Slot, message: Serves) -> None:
        """Take note of which predictor serves a model, if it is still there."""
        resident = self._residents.get(message.name)
        if resident is not None and resident.number == message.model:
            resident.predictor = message.predictor
            if resident in slot.held:
                slot.weigh(resident, message.bytes)
                resident.bytes = message.bytes

    def on_memory(self, slot: Slot) -> None:
        """Look whether the worker leaks."""
        self._tick_on()

    def on_lost(self, slot: Slot) -> None:
        """Settle what the worker that ended was doing, and start another."""
        if not self._fleet.stopping and slot.process is not None:
            self._fleet.run(self._recovery.recover(slot))

    # -- Upkeep --

    def _tick_on(self) -> None:
        """Look at deadlines regularly, for as long as there is work."""
        if not self._ticking and not self._fleet.stopping:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = time.monotonic()
        busy = False
        free = any(not slot.stalled for slot in (*self._fleet.shared, *self._fleet.extra))
        environments = self._fleet.environments.slots()
        for slot in self._fleet.slots():
            slot.expire(now)
            busy = busy or not slot.idle
            # What found no other place then may find one now.
            patience = self._settings.slow_after
            if slot.sent and slot.sent[0].kind is Load:
                patience *= LOAD_PATIENCE
            elsewhere = free and slot not in environments
            if slot.sent and now - slot.began > patience and (elsewhere or not slot.stalled):
                self._placement.hold_up(slot)
            if slot.sent and self._deadline(slot) <= now:
                self._fleet.end(slot, "was ended because it ran past the deadline")
        self._replicas.review(now)
        self._renewal.review(now)
        self._fleet.retire_extra(now)
        self._fleet.environments.retire()
        leaving = self._fleet.extra or self._fleet.retiring or self._fleet.environments.idle
        if busy or leaving or self._replicas.copied:
            self._tick_on()

    def _deadline(self, slot: Slot) -> float:
        """Return when the job a worker runs must have ended."""
        job = slot.sent[0]
        if job.kind is not Run:
            return slot.began + self._settings.load_timeout
        # Without calls: they were moved elsewhere, but the worker had begun them.
        return max((call.limit for call in job.calls), default=slot.began + self._settings.invocation_timeout)


def create(settings: Settings) -> WorkerPool:
    """Return the model server; the entry point of the backend ``workers``."""
    return WorkerPool(settings)

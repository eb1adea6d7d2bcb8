"""The model server of our own worker processes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..errors import (
    LoadFailed,
    ManyModelsError,
    ModelAlreadyLoaded,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    PluginError,
    WorkerDied,
)
from ..invocation import Answer, Invocation
from ..plugins import Binding, Plugins
from ..settings import Settings
from .base import ModelDescription
from .conduct import Conduct
from .launcher import create_launcher, describe_exit
from .memory import Estimator, check_room, default_budget
from .messages import Load, Loaded, Run, Unload
from .slot import Call, Job, Resident, Slot
from .worker import WorkerConfig

logger = logging.getLogger(__name__)

#: Seconds between looks at deadlines and at jobs that hold up others.
TICK = 0.05
#: Workers that models have for themselves, for each shared one; each is a process.
OWN_PER_WORKER = 4
#: Seconds an extra worker is kept without work.
EXTRA_IDLE = 10.0
#: Bytes a worker may allocate beyond the budget: libraries imported late, and what a load or a
#: prediction needs for a moment. A model within the budget must not meet the limit for runaways.
HEADROOM = 128 << 20
#: Seconds to wait before a worker that could not be started is tried again.
RETRY = 0.5
#: Seconds a worker that closed its connection has to end by itself.
EXIT_WAIT = 1.0
#: Seconds a worker has to end by itself when the server stops.
STOP_TIMEOUT = 10.0


class WorkerPool:
    """Places models on worker processes and keeps these running."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plugins = Plugins.installed(settings.block_plugins)
        self._budget = int(settings.memory) if settings.memory is not None else default_budget()
        self._residents: dict[str, Resident] = {}
        self._reserved = 0
        #: Models whose worker ended: they are loaded again when they are asked for, and keep their room.
        self._lost: set[Resident] = set()
        self._estimator = Estimator()
        self._conduct = Conduct()
        #: The workers that models have their home on; then those started while all of these are held up.
        self._shared: list[Slot] = []
        self._extra: list[Slot] = []
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking = False

    # -- Start and stop --

    async def start(self, frameworks: Sequence[str] | None) -> None:
        """Start the workers."""
        config = WorkerConfig(
            blocked=tuple(self._settings.block_plugins),
            modules=tuple(self._plugins.warm_up_imports(frameworks)),
            memory=self._budget + HEADROOM,
            settings=self._settings.model_settings(),
        )
        self._launcher = create_launcher(self._settings.start_method, config)
        await self._launcher.start()
        self._shared = [self._slot(f"worker-{number}") for number in range(1, self._settings.workers + 1)]
        for slot in self._shared:
            await slot.connect(await self._launcher.launch())

    async def stop(self) -> None:
        """End the workers, once what they have to do is done or the time is up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_TIMEOUT
        while not all(slot.idle for slot in self._slots()) and loop.time() < end:  # noqa: ASYNC110 - at the end only
            await asyncio.sleep(TICK)
        self._stopping = True
        slots = self._slots()
        for slot in slots:
            slot.close()
        processes = [slot.process.exited for slot in slots if slot.process is not None]
        if processes:
            await asyncio.wait(processes, timeout=max(end - loop.time(), TICK))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._launcher.stop()
        for slot in slots:
            for call in slot.waiting():
                if not call.future.done():
                    call.future.set_exception(WorkerDied(f"the server stopped before {call.resident.name!r} answered"))

    def healthy(self) -> bool:
        """Say whether at least one worker is there."""
        return not self._stopping and any(slot.process is not None for slot in self._shared)

    # -- Models --

    async def load(self, name: str, path: Path, binding: Binding, version: str = "") -> ModelDescription:
        """Load a model."""
        if name in self._residents:
            raise ModelAlreadyLoaded(f"{name!r} is loaded already")
        self._conduct.check(name, version or str(path))
        resident = self._residents[name] = Resident(name, str(path), binding, version or str(path))
        reserved = 0
        try:
            size = await asyncio.get_running_loop().run_in_executor(None, lambda: Artifact(path).size)
            estimate = self._estimator.estimate(binding.plugin, size)
            check_room(name, estimate, self.used(), self._budget)
            reserved = estimate
            self._reserved += reserved
            resident.ranking = sorted(self._shared, key=lambda slot: _weight(name, slot.name), reverse=True)
            await self._load(resident)
            self._estimator.learn(binding.plugin, size, resident.bytes)
        except BaseException:
            self._remove(resident)
            raise
        finally:
            self._reserved -= reserved
        resident.loaded = True
        for note in resident.notes:
            logger.warning("%s", note, extra={"model": name})
        return self._description(resident)

    async def _load(self, resident: Resident) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._place_load(Job(resident, kind=Load, done=done))
        self._tick_on()
        seconds = self._settings.load_timeout
        try:
            await asyncio.wait([done], timeout=seconds)
            if done.done():
                return done.result()
        finally:
            done.cancel()  # from here on nobody waits for it
        for slot in self._slots():
            if slot.running is resident:
                self._end(slot, f"was ended because it loaded for more than {seconds:g} s")
        raise LoadFailed(f"{resident.name!r} did not load within {seconds:g} s")

    def used(self) -> int:
        """Return the bytes that models take, and those about to be loaded, again or for the first time."""
        held = sum(sum(slot.held.values()) for slot in self._slots())
        return held + sum(resident.bytes for resident in self._lost) + self._reserved

    async def unload(self, name: str) -> bool:
        """Unload a model."""
        resident = self._residents.get(name)
        if resident is None or not resident.loaded:
            raise ModelNotFound(f"{name!r} is not loaded")
        if not (acknowledged := self._remove(resident)):
            return True
        # Not for longer: who waits here would wait for another model, and maybe with room to make for a third.
        _, late = await asyncio.wait(acknowledged, timeout=self._settings.slow_after)
        return not late

    def _remove(self, resident: Resident) -> list[asyncio.Future[Any]]:
        """Forget a model; return what to wait for until its memory is free."""
        resident.removed = True
        self._residents.pop(resident.name, None)
        self._lost.discard(resident)
        acknowledged: list[asyncio.Future[Any]] = []
        if (own := resident.own) is not None:
            # At once: what it runs is slow, or ends its worker.
            _unloaded(own.drop(resident))
            _unloaded(call for job in own.sent for call in job.calls)
            if own.process is not None:
                acknowledged.append(own.process.exited)
            own.close()
        for slot in self._slots():
            _unloaded(slot.drop(resident))
            if resident in slot.held:
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                slot.order(Job(resident, kind=Unload, done=done))
                acknowledged.append(done)
        return acknowledged

    def models(self) -> list[ModelDescription]:
        """Return all loaded models, sorted by name."""
        return [self._description(self._residents[name]) for name in sorted(self._residents) if self._loaded(name)]

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model."""
        if not self._loaded(name):
            raise ModelNotFound(f"{name!r} is not loaded")
        return self._description(self._residents[name])

    def _loaded(self, name: str) -> bool:
        resident = self._residents.get(name)
        return resident is not None and resident.loaded

    def _description(self, resident: Resident) -> ModelDescription:
        holders = [slot for slot in self._slots() if resident in slot.held]
        return ModelDescription(
            name=resident.name,
            path=resident.path,
            plugin=resident.binding.plugin,
            framework=resident.binding.framework,
            bytes=sum(slot.held[resident] for slot in holders) or resident.bytes,
            load_seconds=resident.load_seconds,
            notes=tuple(resident.notes),
            workers=tuple(slot.process.pid for slot in holders if slot.process is not None),
        )

    # -- Invocations --

    async def invoke(self, name: str, invocation: Invocation, timeout: float) -> Answer:
        """Answer one invocation."""
        resident = self._residents.get(name)
        if resident is None or not resident.loaded:
            raise ModelNotFound(f"{name!r} is not loaded")
        if resident.waiting >= self._settings.queue_size:
            raise Overloaded(f"{resident.waiting} invocations of {name!r} are waiting already; try again later")
        self._conduct.check(name, resident.version)
        loop = asyncio.get_running_loop()
        now = loop.time()
        call = Call(resident, invocation, loop.create_future(), now + timeout, now)
        resident.waiting += 1
        try:
            self._slot_for(resident).submit(call)
            if not self._ticking:
                self._tick_on()
            return await call.future
        finally:
            resident.waiting -= 1

    def _slot_for(self, resident: Resident) -> Slot:
        """Return the slot for a model's next job: its home, or where it is not held up."""
        if resident.own is not None:
            return resident.own
        home = resident.ranking[0]
        if not home.stalled or home.running is resident:
            return home
        others = [slot for slot in (*resident.ranking[1:], *self._extra) if not slot.stalled]
        room = self.used() + resident.bytes <= self._budget
        for slot in others:
            if resident in slot.held or room:
                return slot
        if room and len(self._extra) < self._settings.workers:
            slot = self._slot(f"extra-{len(self._extra) + 1}")
            self._extra.append(slot)
            self._run(self._connect(slot))
            return slot
        return home

    def _place_load(self, job: Job) -> None:
        if job.resident.removed:
            return  # nobody waits for it any more
        if job.resident.own is None and self._conduct.isolated(job.resident.name, job.resident.version):
            self._isolate(job.resident)
        self._slot_for(job.resident).order(job)

    def _move(self, calls: Iterable[Call]) -> None:
        """Queue invocations again that their worker did not begin."""
        for call in calls:
            if call.resident.removed:
                _unloaded([call])
            elif not call.future.done():
                self._slot_for(call.resident).submit(call)

    def _isolate(self, resident: Resident) -> None:
        """Give a model a worker of its own, if there are not too many such yet."""
        owners = sum(other.own is not None for other in self._residents.values())
        if resident.own is not None or owners >= OWN_PER_WORKER * self._settings.workers:
            return
        logger.warning("gets a worker of its own", extra={"model": resident.name})
        calls = [call for slot in self._slots() for call in slot.drop(resident)]
        for slot in self._slots():
            if resident in slot.held:
                slot.order(Job(resident, kind=Unload))
        resident.own = self._slot(f"own-{resident.name}")
        for call in calls:
            resident.own.submit(call)
        self._run(self._connect(resident.own))

    # -- What slots report --

    def on_loaded(self, slot: Slot, resident: Resident, message: Loaded) -> None:
        """Take note of a load, or undo it if the model was unloaded meanwhile."""
        if resident.removed:
            slot.order(Job(resident, kind=Unload))
            return
        self._lost.discard(resident)
        resident.bytes = message.bytes
        resident.load_seconds = message.seconds
        resident.notes = message.notes

    def on_load_failed(self, slot: Slot, resident: Resident, job: Job, error: ManyModelsError) -> None:
        """Answer those who waited for the load."""
        if job.done is not None and not job.done.done():
            job.done.set_exception(error)
        for call in slot.drop(resident):
            if not call.future.done():
                call.future.set_exception(error)

    def on_lost(self, slot: Slot) -> None:
        """Settle what the worker that ended was doing, and start another."""
        if self._stopping or slot.process is None:
            return
        self._run(self._recover(slot))

    async def _recover(self, slot: Slot) -> None:
        assert slot.process is not None
        exited = slot.process.exited
        # A worker of its own that goes with its model did nothing wrong.
        blamed = slot.ending is not None or self._wanted(slot)
        if blamed and slot.ending is None:
            await asyncio.wait([exited], timeout=EXIT_WAIT)
        if not exited.done():
            self._end(slot, "closed its connection and was ended")
        code = await asyncio.shield(exited)  # others wait for it too
        self._lost.update(resident for resident in slot.held if not resident.removed)
        running, rest = slot.reset()
        reason = slot.ending or describe_exit(code)
        if running is not None and blamed:
            self._blame(running, reason, by_kernel=code == -signal.SIGKILL and slot.ending is None)
        for job in rest:
            self._replace(job)
        if self._wanted(slot):
            logger.info("%s is started again: it %s", slot.name, reason)
            if running is None and asyncio.get_running_loop().time() - slot.connected < RETRY:
                await asyncio.sleep(RETRY)  # it cannot even start
            await self._connect(slot)

    def _wanted(self, slot: Slot) -> bool:
        return slot in self._slots()

    def _replace(self, job: Job) -> None:
        """Do elsewhere, or again, a job that a worker which ended had not begun."""
        if job.kind is Run:
            self._move(job.calls)
        elif job.kind is Load and job.done is not None:
            self._place_load(job)
        elif job.done is not None and not job.done.done():
            job.done.set_result(None)  # the model went with the worker

    def _blame(self, job: Job, reason: str, *, by_kernel: bool) -> None:
        """Answer the job a worker ended in, and remember whose it was."""
        resident = job.resident
        logger.error("its worker process %s", reason, extra={"model": resident.name})
        error: ManyModelsError
        if job.kind is Run:
            error = WorkerDied(f"the worker process of {resident.name!r} {reason} while it answered")
        elif by_kernel:
            error = OutOfMemory(f"memory ran out while loading {resident.name!r}: its worker process {reason}")
        else:
            error = LoadFailed(f"the worker process {reason} while it loaded {resident.name!r}")
        self._conduct.killed(resident.name, resident.version, reason)
        for call in job.calls:
            if not call.future.done():
                call.future.set_exception(error)
        if job.kind is Load:
            for slot in self._slots():
                self.on_load_failed(slot, resident, job, error)
        elif job.done is not None and not job.done.done():
            job.done.set_result(None)
        if resident.loaded and not resident.removed and self._conduct.isolated(resident.name, resident.version):
            self._isolate(resident)

    # -- Upkeep --

    def _tick_on(self) -> None:
        """Look at deadlines regularly, for as long as there is work."""
        if not self._ticking and not self._stopping:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        loop = asyncio.get_running_loop()
        now = loop.time()
        busy = False
        free = any(not slot.stalled for slot in (*self._shared, *self._extra))
        for slot in self._slots():
            slot.expire(now)
            busy = busy or not slot.idle
            # What found no other place then may find one now.
            if slot.sent and now - slot.began > self._settings.slow_after and (free or not slot.stalled):
                self._hold_up(slot)
            if slot.sent and self._deadline(slot) <= now:
                self._end(slot, "was ended because it ran past the deadline")
        self._retire_extra(now)
        if busy or self._extra:
            self._tick_on()

    def _deadline(self, slot: Slot) -> float:
        """Return when the job a worker runs must have ended."""
        job = slot.sent[0]
        if job.kind is not Run:
            return slot.began + self._settings.load_timeout
        # Without calls: they were moved elsewhere, but the worker had begun them.
        return max((call.deadline for call in job.calls), default=slot.began + self._settings.invocation_timeout)

    def _hold_up(self, slot: Slot) -> None:
        """Move what waits behind a long job to other workers."""
        running = None if slot.stalled else slot.running  # noted the first time only
        calls, loads = slot.give_up()
        for job in loads:
            self._place_load(job)
        self._move(calls)
        if running is not None and slot.sent[0].kind is Run and running.own is None and not running.removed:
            logger.info("holds up its worker", extra={"model": running.name})
            if self._conduct.slow(running.name, running.version):
                self._isolate(running)

    def _retire_extra(self, now: float) -> None:
        if any(slot.stalled for slot in self._shared):
            return
        for slot in list(self._extra):
            if slot.idle and now - slot.last_active > EXTRA_IDLE:
                self._extra.remove(slot)
                slot.close()

    def _end(self, slot: Slot, reason: str) -> None:
        if slot.process is not None and slot.ending is None:
            slot.ending = reason
            self._launcher.kill(slot.process)

    async def _connect(self, slot: Slot) -> None:
        """Start a process for a slot, for as long as it takes."""
        while not self._stopping:
            try:
                await slot.connect(await self._launcher.launch())
            except (WorkerDied, PluginError, OSError) as error:
                logger.error("%s cannot be started: %s", slot.name, error)
                await asyncio.sleep(RETRY)
            else:
                if not self._wanted(slot):  # its model was unloaded meanwhile
                    slot.close()
                return

    def _slot(self, name: str) -> Slot:
        return Slot(self, name, self._settings.max_batch)

    def _slots(self) -> list[Slot]:
        own = [resident.own for resident in self._residents.values() if resident.own is not None]
        return [*self._shared, *self._extra, *own]

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("keeping the workers failed", exc_info=error)


def create(settings: Settings) -> WorkerPool:
    """Return the model server; the entry point of the backend ``workers``."""
    return WorkerPool(settings)


def _unloaded(calls: Iterable[Call]) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(ModelNotFound(f"{call.resident.name!r} was unloaded"))


def _weight(model: str, slot: str) -> bytes:
    """Rendezvous hashing: a model's home stays the same whatever other models come and go."""
    return hashlib.blake2b(f"{slot}\0{model}".encode(errors="surrogatepass"), digest_size=8).digest()

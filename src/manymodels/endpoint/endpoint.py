"""The endpoint: finds the model a client names, has it loaded, and makes room for it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..artifact import Artifact
from ..errors import (
    BadTargetModel,
    LoadFailed,
    ManyModelsError,
    ModelAlreadyLoaded,
    ModelNotFound,
    ModelNotReady,
    OutOfMemory,
)
from ..invocation import Answer, Invocation
from ..plugins import Binding, Plugins
from ..server import ModelDescription, ModelServer
from ..settings import Settings
from ..store import Found, Store
from .journal import Eviction
from .measured import Measured, counted
from .residents import Resident, Residents
from .trace import Recorder
from .warm_up import retire, warm_up

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds a failed load is remembered: at first, and at most. It doubles each time.
FORGET_FIRST = 1.0
FORGET_MOST = 60.0
#: Failed loads remembered; beyond, the oldest are forgotten.
FAILURES = 10_000
#: Times an artifact that is replaced while it is read is tried, before its client is told to ask again.
REPLACED = 3
#: Seconds a load waits for one of the loaded models to be out of use, or for its memory; and between looks.
ROOM_WAIT = 3.0
ROOM_POLL = 0.1
#: Fetches, and looks at the store, at a time.
THREADS = 32
#: Artifacts looked at when the server starts, to learn which frameworks the store needs: how many
#: at most, how large at most (in bytes), and for how many seconds.
SAMPLE = 100
SAMPLE_SIZE = 16 << 20
SAMPLE_SECONDS = 2.0


@dataclass
class _Opened:
    """What a look at the store found."""

    found: Found
    #: Its files, its plugins, its bytes, and whether it is to be alone; None where the version was known.
    files: tuple[Path, Binding, int, bool] | None = None
    #: Why it could not be opened.
    error: LoadFailed | None = None


@dataclass
class _Failure:
    """A load that failed."""

    version: str
    error: ManyModelsError
    delay: float
    until: float


@dataclass
class _Timings:
    """What a request that had to wait for its model waited for, in seconds."""

    fetch: float = 0.0
    load: float = 0.0


class Endpoint(Measured):
    """Serves a model store."""

    multi_model = True

    def __init__(self, store: Store, server: ModelServer, plugins: Plugins, settings: Settings) -> None:
        super().__init__(server, settings)
        self._store = store
        self._plugins = plugins
        self._model_settings = settings.model_settings()
        self._recorder = Recorder(settings.trace) if settings.trace is not None else None
        self._residents = Residents(settings.eviction, settings.pin, self._recorder)
        #: Warming up, and unloading what nobody asks for.
        self._chores: list[asyncio.Task[None]] = []
        self._flights: dict[str, asyncio.Task[_Timings]] = {}
        #: Models being unloaded; set once they are.
        self._leaving: dict[str, asyncio.Event] = {}
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        #: What is kept on the local disk.
        self._opened: dict[str, Found] = {}
        #: Until when, by the loop's clock, the memory of an unloaded model is waited for.
        self._late_until = 0.0
        #: Set when there may be room, or a model to evict, for a load that waits for it.
        self._room = asyncio.Event()
        #: Held by the load that makes room.
        self._making_room = asyncio.Lock()
        #: When room was last made, by the loop's clock.
        self._made_room = 0.0
        # The loop's own pool is too small for many slow stores, and is the server's for other things.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    # -- Start and stop --

    async def start(self) -> None:
        """Start the model server, with the frameworks that the store needs imported in advance."""
        await self._start(await self._in_thread(self._frameworks))
        settings = self._settings
        if settings.pin or settings.warm_up is not None:
            chore = warm_up(self, self._store, self._residents, settings.pin, settings.warm_up)
            self._chores.append(asyncio.create_task(chore))
        if settings.idle_ttl is not None:
            self._chores.append(asyncio.create_task(retire(self, self._residents, settings.idle_ttl)))

    def _frameworks(self) -> list[str] | None:
        """Return the plugins that a sample of the store needs; None, for all, where that says nothing."""
        names: set[str] = set()
        until = time.monotonic() + SAMPLE_SECONDS
        for target_model in itertools.islice(self._store.list(), SAMPLE):
            try:
                found = self._store.find(target_model)
                if found.size > SAMPLE_SIZE:
                    return None  # a framework imported in each worker instead takes more memory than all do here
                opened = self._open(found)
                if opened.error is not None:
                    raise opened.error
            except ManyModelsError as error:
                logger.warning("cannot be served: %s", error, extra={"model": target_model})
                continue
            assert opened.files is not None
            binding = opened.files[1]
            names.update(name for name in (binding.plugin, binding.framework) if name is not None)
            if time.monotonic() > until:
                break
        return sorted(names) or None

    async def stop(self) -> None:
        """Stop the model server."""
        for task in (*self._chores, *self._flights.values()):
            task.cancel()
        await self._stop()
        if self._recorder is not None:
            await self._recorder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- Invocations --

    @counted
    async def invoke(self, target_model: str | None, invocation: Invocation) -> Answer:
        """Answer an invocation; the model is fetched and loaded first if it has to be."""
        if target_model is None:
            raise BadTargetModel(
                "the TargetModel header (X-Amzn-SageMaker-Target-Model) is missing; "
                "name an artifact of the model store, such as 'team/model.tar.gz'"
            )
        timeout = self._settings.invocation_timeout
        resident = self._residents.get(target_model)
        start = time.monotonic()
        if resident is not None:
            if start < resident.fresh_until:
                self._metrics.hits += 1
                return await self._invoke(resident, invocation, timeout)
            answer = await self._invoke_while_looking(resident, invocation, timeout)
            if answer is not None:
                return answer
        deadline = min(start + timeout, invocation.deadline)
        timings = await self._ready(target_model, deadline)
        while (resident := self._residents.get(target_model)) is None:  # it had to make room for others at once
            timings = await self._ready(target_model, deadline)
        if timings.load:
            self._metrics.missed(time.monotonic() - start)
        else:
            self._metrics.hits += 1
        answer = await self._invoke(resident, invocation, max(start + timeout - time.monotonic(), 0.001))
        answer.timings["fetch"] = timings.fetch
        answer.timings["load"] = timings.load
        return answer

    async def _invoke_while_looking(self, resident: Resident, invocation: Invocation, timeout: float) -> Answer | None:
        """Answer while the store is asked whether this is still its version of the model; None if it is not."""
        deadline = min(time.monotonic() + timeout, invocation.deadline)
        self._flight(resident.name)
        result: Answer | ManyModelsError
        try:
            result = await self._invoke(resident, invocation, timeout)
        except ManyModelsError as error:
            result = error
        if resident.name in self._flights:
            await self._ready(resident.name, deadline)
        if self._residents.get(resident.name) is not resident:
            return None
        self._metrics.hits += 1
        if isinstance(result, ManyModelsError):
            raise result
        return result

    async def _invoke(self, resident: Resident, invocation: Invocation, timeout: float) -> Answer:
        self._residents.begin(resident)
        try:
            return await self._server.invoke(resident.name, invocation, timeout)
        finally:
            if self._residents.end(resident):
                self._room.set()

    async def _ready(self, target_model: str, deadline: float) -> _Timings:
        """Wait until the model is loaded; whoever asks meanwhile waits for the same load."""
        flight = self._flight(target_model)
        done, _ = await asyncio.wait([flight], timeout=deadline - time.monotonic())
        if not done:
            raise ModelNotReady(f"{target_model!r} is still being loaded; try again")
        if flight.cancelled():
            raise ModelNotReady("the server is stopping")
        error = flight.exception()
        if isinstance(error, ManyModelsError):
            raise error.again()
        return flight.result()

    def _flight(self, target_model: str) -> asyncio.Task[_Timings]:
        flight = self._flights.get(target_model)
        if flight is None:
            flight = asyncio.create_task(self._refresh(target_model))
            self._flights[target_model] = flight
            flight.add_done_callback(functools.partial(self._landed, target_model))
        return flight

    def _landed(self, target_model: str, flight: asyncio.Task[_Timings]) -> None:
        self._flights.pop(target_model, None)
        if not flight.cancelled():
            flight.exception()  # whoever waited may be gone, and asyncio would log it as never retrieved
        self._room.set()

    # -- Loading --

    async def _refresh(self, target_model: str) -> _Timings:
        """Bring the loaded model to the version in the store."""
        timings = _Timings()
        start = time.monotonic()
        try:
            opened = await self._in_thread(functools.partial(self._look, target_model, self._known(target_model)))
        except ModelNotFound:
            await self._evict(target_model, "gone")
            await self._forget(target_model)
            raise
        except LoadFailed as error:
            if (resident := self._residents.get(target_model)) is None:
                raise
            logger.warning("served as it was loaded: %s", error, extra={"model": target_model})
            resident.fresh_until = time.monotonic() + self._settings.store_refresh
            return timings
        found = opened.found
        if (leaving := self._leaving.get(target_model)) is not None:
            await leaving.wait()
        if (resident := self._residents.get(target_model)) is not None:
            if resident.found.version == found.version:
                resident.fresh_until = time.monotonic() + self._settings.store_refresh
                return timings
            await self._evict(target_model, "replaced")
        if (old := self._opened.get(target_model)) is not None and old.version != found.version:
            await self._forget(target_model)
        failure = self._failures.get(target_model)
        if failure is not None and failure.version == found.version and time.monotonic() < failure.until:
            raise failure.error
        self._opened[target_model] = found
        try:
            if opened.files is None and opened.error is None:  # it was loaded, or refused, when the look began
                opened = await self._in_thread(functools.partial(self._open, found))
                found = self._opened[target_model] = opened.found
            timings.fetch = time.monotonic() - start
            if opened.error is not None:
                raise opened.error
            await self._load(opened, timings)
        except (LoadFailed, OutOfMemory) as error:
            logger.error("cannot be loaded: %s", error, extra={"model": target_model})
            self._metrics.load_failed(error)
            if not (isinstance(error, OutOfMemory) and error.eviction_helps):
                self._remember(target_model, found.version, error.again())
                await self._forget(target_model)
            raise
        self._failures.pop(target_model, None)
        return timings

    async def _load(self, opened: _Opened, timings: _Timings) -> None:
        found = opened.found
        name = found.target_model
        assert opened.files is not None
        path, binding, size, alone = opened.files
        start = time.monotonic()
        description = await self._load_with_room(
            lambda: self._server.load(name, path, binding, found.version, size, isolated=alone)
        )
        now = time.monotonic()
        timings.load = now - start
        self._metrics.loaded(timings.load, timings.fetch)
        self._residents.add(found, description.bytes, description.load_seconds, now + self._settings.store_refresh)
        logger.info(
            "loaded",
            extra={
                "model": name,
                "plugin": description.plugin,
                "bytes": description.bytes,
                "fetch_ms": round(timings.fetch * 1e3, 1),
                "load_ms": round(timings.load * 1e3, 1),
            },
        )

    def _known(self, target_model: str) -> tuple[str, ...]:
        """Return the versions of an artifact that need not be opened: what is loaded, and what cannot be."""
        resident = self._residents.get(target_model)
        failure = self._failures.get(target_model)
        known = [] if resident is None else [resident.found.version]
        if failure is not None and time.monotonic() < failure.until:
            known.append(failure.version)
        return tuple(known)

    def _look(self, target_model: str, known: tuple[str, ...]) -> _Opened:
        """Find an artifact, and open it if it is none of the known versions."""
        found = self._store.find(target_model)
        return _Opened(found) if found.version in known else self._open(found)

    def _open(self, found: Found, tries: int = REPLACED) -> _Opened:
        """Fetch the artifact's files and bind its plugin; one that is replaced meanwhile is found again."""
        try:
            path = self._store.open(found)
            artifact = Artifact(path, found.target_model)
            binding = self._plugins.bind(artifact, self._model_settings)
            size = artifact.size if found.kind == "archive" else found.size
            return _Opened(found, (path, binding, size, artifact.manifest.isolated))
        except LoadFailed as error:
            newer = self._store.find(found.target_model)
            if newer.version == found.version or tries == 1:
                return _Opened(found, error=error)
        return self._open(newer, tries - 1)

    def _remember(self, target_model: str, version: str, error: ManyModelsError) -> None:
        old = self._failures.pop(target_model, None)
        repeated = old is not None and old.version == version
        delay = min(old.delay * 2, FORGET_MOST) if old is not None and repeated else FORGET_FIRST
        self._failures[target_model] = _Failure(version, error, delay, time.monotonic() + delay)
        while len(self._failures) > FAILURES:
            self._failures.popitem(last=False)

    async def _forget(self, target_model: str) -> None:
        """Delete what is kept of an artifact on the local disk."""
        if (opened := self._opened.pop(target_model, None)) is not None:
            await self._in_thread(lambda: self._store.forget(opened))

    # -- Making room --

    async def _load_with_room(self, load: Callable[[], Coroutine[Any, Any, ModelDescription]]) -> ModelDescription:
        """Load a model, and evict others where there is no room for it."""
        tried = False
        loading = asyncio.create_task(load())
        try:
            while True:
                try:
                    return await loading
                except OutOfMemory as error:
                    if not error.eviction_helps:
                        raise
                    full = error
                # One at a time, so that no two loads count on the same room; each looks again once it is its turn.
                began = asyncio.get_running_loop().time()
                async with self._making_room:
                    while True:
                        if tried and not await self._evict_for(full, began):
                            raise full
                        loading = asyncio.create_task(load())
                        await asyncio.sleep(0)  # what there is no room for has failed by then, as a rule
                        tried = True
                        if not loading.done() or not isinstance(again := loading.exception(), OutOfMemory):
                            self._late_until = 0.0
                            break
                        full = again
                        if not full.eviction_helps:
                            raise full
        finally:
            loading.cancel()

    async def _evict_for(self, error: OutOfMemory, began: float) -> bool:
        """Evict models for a load, or wait for memory that is free soon; False if there were none for a while."""
        loop = asyncio.get_running_loop()
        if loop.time() < (late_until := self._late_until):
            await asyncio.sleep(ROOM_POLL)
            return loop.time() < late_until
        # Others that were given room meanwhile are no reason to give up.
        until = max(began, self._made_room) + ROOM_WAIT
        while True:
            self._room.clear()
            names, enough = self._residents.victims(max(error.missing, 1))
            if names and (enough or loop.time() >= until):
                await asyncio.gather(*(self._evict(name, "room") for name in names))
                self._made_room = loop.time()
                return True
            try:
                await asyncio.wait_for(self._room.wait(), max(until - loop.time(), 0))
            except asyncio.TimeoutError:
                if not names:
                    logger.warning("%s, and all loaded models are in use", error)
                    return False

    async def _evict(self, name: str, reason: str) -> None:
        """Unload a model once its last invocation has ended.

        :param reason: a key of `REASONS`.
        """
        resident = self._residents.remove(name, reason)
        if resident is None:
            return
        start = time.monotonic()
        left = self._leaving[name] = asyncio.Event()
        try:
            if resident.in_use:
                resident.idle = asyncio.Event()
                await resident.idle.wait()
            if not await self._server.unload(name):
                self._late_until = asyncio.get_running_loop().time() + ROOM_WAIT
        finally:
            del self._leaving[name]
            left.set()
        self._metrics.evicted(reason, time.monotonic() - start)
        if reason not in ("room", "idle"):
            await self._forget(name)

    def evictions(self, before: int | None, limit: int) -> list[Eviction]:
        """Return the newest evictions, of those with a number below `before` if it is given."""
        return self._residents.evictions(before, limit)

    # -- What is done without being asked --

    def fullness(self) -> float:
        """Return the share of the memory that is taken."""
        state = self._server.state()
        return state.bytes / state.budget

    async def stand_back(self, seconds: float) -> None:
        """Wait until no load is under way, or the time is up."""
        if self._flights:
            await asyncio.wait(self._flights.values(), timeout=seconds)

    async def warm(self, name: str) -> None:
        """Load a model if it is not there."""
        if name not in self._residents:
            await self._ready(name, time.monotonic() + self._settings.load_timeout)

    async def retire(self, name: str) -> None:
        """Unload a model that nobody asks for."""
        await self._evict(name, "idle")

    # -- The container API --

    @counted
    async def invoke_loaded(self, name: str, invocation: Invocation) -> Answer:
        """Answer an invocation of a loaded model."""
        resident = self._residents.get(name)
        if resident is None:
            raise ModelNotFound(f"{name!r} is not loaded")
        return await self._invoke(resident, invocation, self._settings.invocation_timeout)

    async def load(self, name: str, url: str) -> None:
        """Load an artifact of the store; the name is its TargetModel, and `url` may only repeat it."""
        if url != name:
            raise BadTargetModel(
                f"this server loads from its model store: send the TargetModel as both model_name and url, "
                f"not {name!r} and {url!r}"
            )
        if name in self._residents:
            raise ModelAlreadyLoaded(f"{name!r} is loaded already")
        await self._ready(name, time.monotonic() + self._settings.load_timeout)

    async def unload(self, name: str) -> None:
        """Unload a model once its last invocation has ended."""
        if name not in self._residents:
            raise ModelNotFound(f"{name!r} is not loaded")
        await self._evict(name, "request")

    def artifacts(self) -> Iterator[str]:
        """Yield the TargetModels of the store; blocks."""
        return self._store.list()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

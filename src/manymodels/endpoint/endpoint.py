"""The endpoint: finds the model a client names, has it loaded, and makes room for it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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
from ..server import ModelServer
from ..settings import Settings
from ..store import Found, Store
from .measured import Measured, counted

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
#: Why a model is unloaded, in the metrics and in the log.
REASONS = {
    "room": "to make room",
    "replaced": "its artifact was replaced",
    "gone": "its artifact is gone",
    "request": "on request",
}


@dataclass
class _Resident:
    """A loaded model."""

    found: Found
    #: When the store is to be asked again, by the monotonic clock.
    fresh_until: float
    in_use: int = 0
    #: Set when the last invocation ended, for who waits to unload it.
    idle: asyncio.Event | None = None


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
        #: Least recently used first.
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
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
        # The loop's own pool is too small for many slow stores, and is the server's for other things.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    # -- Start and stop --

    async def start(self) -> None:
        """Start the model server, with the frameworks that the store needs imported in advance."""
        await self._start(await self._in_thread(self._frameworks))

    def _frameworks(self) -> list[str] | None:
        """Return the plugins that a sample of the store needs; None, for all, where that says nothing."""
        names: set[str] = set()
        until = time.monotonic() + SAMPLE_SECONDS
        for target_model in itertools.islice(self._store.list(), SAMPLE):
            try:
                found = self._store.find(target_model)
                if found.size > SAMPLE_SIZE:
                    return None  # a framework imported in each worker instead takes more memory than all do here
                _, _, binding = self._open(found)
            except ManyModelsError as error:
                logger.warning("cannot be served: %s", error, extra={"model": target_model})
                continue
            names.update(name for name in (binding.plugin, binding.framework) if name is not None)
            if time.monotonic() > until:
                break
        return sorted(names) or None

    async def stop(self) -> None:
        """Stop the model server."""
        for task in self._flights.values():
            task.cancel()
        await self._stop()
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
        if resident is not None and time.monotonic() < resident.fresh_until:
            self._metrics.hits += 1
            return await self._invoke(target_model, resident, invocation, timeout)
        start = time.monotonic()
        deadline = min(start + timeout, invocation.deadline)
        timings = await self._ready(target_model, deadline)
        while (resident := self._residents.get(target_model)) is None:  # it had to make room for others at once
            timings = await self._ready(target_model, deadline)
        if timings.load:
            self._metrics.missed(time.monotonic() - start)
        else:
            self._metrics.hits += 1
        answer = await self._invoke(target_model, resident, invocation, max(start + timeout - time.monotonic(), 0.001))
        answer.timings["fetch"] = timings.fetch
        answer.timings["load"] = timings.load
        return answer

    async def _invoke(self, name: str, resident: _Resident, invocation: Invocation, timeout: float) -> Answer:
        self._residents.move_to_end(name)
        resident.in_use += 1
        try:
            return await self._server.invoke(name, invocation, timeout)
        finally:
            resident.in_use -= 1
            if resident.in_use == 0:
                self._room.set()
                if resident.idle is not None:
                    resident.idle.set()

    async def _ready(self, target_model: str, deadline: float) -> _Timings:
        """Wait until the model is loaded; whoever asks meanwhile waits for the same load."""
        flight = self._flights.get(target_model)
        if flight is None:
            flight = asyncio.create_task(self._refresh(target_model))
            self._flights[target_model] = flight
            flight.add_done_callback(functools.partial(self._landed, target_model))
        done, _ = await asyncio.wait([flight], timeout=deadline - time.monotonic())
        if not done:
            raise ModelNotReady(f"{target_model!r} is still being loaded; try again")
        if flight.cancelled():
            raise ModelNotReady("the server is stopping")
        error = flight.exception()
        if isinstance(error, ManyModelsError):
            raise error.again()
        return flight.result()

    def _landed(self, target_model: str, flight: asyncio.Task[_Timings]) -> None:
        self._flights.pop(target_model, None)
        if not flight.cancelled():
            flight.exception()  # whoever waited may be gone, and asyncio would log it as never retrieved
        self._room.set()

    # -- Loading --

    async def _refresh(self, target_model: str) -> _Timings:
        """Bring the loaded model to the version in the store."""
        timings = _Timings()
        try:
            found = await self._in_thread(lambda: self._store.find(target_model))
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
        if (leaving := self._leaving.get(target_model)) is not None:
            await leaving.wait()
        if (resident := self._residents.get(target_model)) is not None:
            if resident.found.version == found.version:
                resident.fresh_until = time.monotonic() + self._settings.store_refresh
                return timings
            await self._evict(target_model, "replaced")
        if (opened := self._opened.get(target_model)) is not None and opened.version != found.version:
            await self._forget(target_model)
        failure = self._failures.get(target_model)
        if failure is not None and failure.version == found.version and time.monotonic() < failure.until:
            raise failure.error
        try:
            await self._load(found, timings)
        except (LoadFailed, OutOfMemory) as error:
            logger.error("cannot be loaded: %s", error, extra={"model": target_model})
            self._metrics.load_failed(error)
            if not (isinstance(error, OutOfMemory) and error.eviction_helps):
                self._remember(target_model, found.version, error.again())
                await self._forget(target_model)
            raise
        self._failures.pop(target_model, None)
        return timings

    async def _load(self, found: Found, timings: _Timings) -> None:
        name = found.target_model
        start = time.monotonic()
        self._opened[name] = found
        found, path, binding = await self._in_thread(functools.partial(self._open, found))
        self._opened[name] = found
        timings.fetch = time.monotonic() - start
        while True:
            try:
                description = await self._server.load(name, path, binding, found.version)
                break
            except OutOfMemory as error:
                if not error.eviction_helps or not await self._make_room(error):
                    raise
        now = time.monotonic()
        timings.load = now - start - timings.fetch
        self._metrics.loaded(timings.load, timings.fetch)
        self._residents[name] = _Resident(found, now + self._settings.store_refresh)
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

    def _open(self, found: Found, tries: int = REPLACED) -> tuple[Found, Path, Binding]:
        """Return the artifact's files and its plugin; one that is replaced meanwhile is found again."""
        try:
            path = self._store.open(found)
            return found, path, self._plugins.bind(Artifact(path, found.target_model), self._model_settings)
        except LoadFailed:
            newer = self._store.find(found.target_model)
            if newer.version == found.version or tries == 1:
                raise
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

    async def _make_room(self, error: OutOfMemory) -> bool:
        """Evict the least recently used model that is not in use; False if there is none for a while.

        Where the memory of the last one is not free yet, it is waited for, instead of evicting more in vain.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._late_until:
            await asyncio.sleep(ROOM_POLL)
            return loop.time() < self._late_until
        until = loop.time() + ROOM_WAIT
        while True:
            victim = next((name for name, resident in self._residents.items() if resident.in_use == 0), None)
            if victim is not None:
                await self._evict(victim, "room")
                return True
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), until - loop.time())
            except asyncio.TimeoutError:
                logger.warning("%s, and all loaded models are in use", error)
                return False

    async def _evict(self, name: str, reason: str) -> None:
        """Unload a model once its last invocation has ended.

        :param reason: a key of `REASONS`.
        """
        resident = self._residents.pop(name, None)
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
        logger.info("unloaded %s", REASONS[reason], extra={"model": name})
        if reason != "room":
            await self._forget(name)

    # -- The container API --

    @counted
    async def invoke_loaded(self, name: str, invocation: Invocation) -> Answer:
        """Answer an invocation of a loaded model."""
        resident = self._residents.get(name)
        if resident is None:
            raise ModelNotFound(f"{name!r} is not loaded")
        return await self._invoke(name, resident, invocation, self._settings.invocation_timeout)

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

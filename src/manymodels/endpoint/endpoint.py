"""The endpoint: finds the model a client names, has it loaded, and makes room for it."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from msgspec import structs

from ..errors import (
    BadTargetModel,
    LoadFailed,
    ManyModelsError,
    ModelAlreadyLoaded,
    ModelNotFound,
    ModelNotReady,
    OutOfMemory,
    StoreUnavailable,
)
from ..invocation import Answer, Invocation
from ..metrics.state import DiskCacheState
from ..plugins import Plugins
from ..server import ModelDescription, ModelServer
from ..server.awaited import Asked
from ..server.streams import discard, once_whole
from ..settings import Settings
from ..store import Store
from .failures import Failures
from .fetch import Fetcher, Opened, Timings
from .flights import Flights
from .journal import Eviction
from .measured import Measured, counted
from .names import NameDescription, Names
from .patience import patience, patiently
from .residents import Newer, Resident, Residents
from .room import Room
from .routes import Outputs, Routes
from .trace import Recorder
from .warm_up import retire, warm_up

logger = logging.getLogger(__name__)

#: Seconds after which a loaded model's answer is given though the store has not said yet if it changed.
LOOK = 1.0
#: Share of `store_refresh` before whose end a request has the store asked and does not wait for it: the models that are
#: asked all the time never do.
AHEAD = 0.25


class Endpoint(Measured):
    """Serves a model store."""

    multi_model = True

    def __init__(
        self, store: Store, server: ModelServer, plugins: Plugins, settings: Settings, routes: Routes | None = None
    ) -> None:
        """Serve a store.

        :param routes: endpoints and the models in the store that they stand for; None: any stands for all.
        """
        super().__init__(server, settings)
        self._routes = routes
        self._store = store
        self._fetcher = Fetcher(store, plugins, settings)
        self._failures = Failures()
        self._recorder = Recorder(settings.trace) if settings.trace is not None else None
        self._residents = Residents(settings.eviction, settings.pin, self._recorder)
        #: Warming up, and unloading what nobody asks for.
        self._chores: list[asyncio.Task[None]] = []
        #: Whether a look took too long and none has come to its end since: no other is waited for then.
        self._slow = False
        self._ahead = 0.0 if math.isinf(settings.store_refresh) else AHEAD * settings.store_refresh
        #: Models being unloaded; set once they are.
        self._leaving: dict[str, asyncio.Event] = {}
        self._room = Room(self._residents, functools.partial(self._evict, reason="room"))
        self._flights = Flights(self._refresh, self._room.changed)
        self._names: Names | None = None
        if settings.names is not None:
            ask = functools.partial(self._answer, shadow=True)
            self._names = Names(settings.names, self._counted_answer, ask, store.find, self._metrics)

    # -- Start and stop --

    async def start(self) -> None:
        """Start the model server, with the frameworks that the store needs imported in advance."""
        await self._start(await self._fetcher.frameworks())
        settings = self._settings
        if settings.pin or settings.warm_up is not None:
            chore = warm_up(self, self._store, self._residents, settings.pin, settings.warm_up)
            self._chores.append(asyncio.create_task(chore))
        if self._names is not None:
            self._names.start()
        if settings.idle_ttl is not None:
            self._chores.append(asyncio.create_task(retire(self, self._residents, settings.idle_ttl)))

    async def stop(self) -> None:
        """Stop the model server."""
        if self._names is not None:
            self._names.stop()
        for task in self._chores:
            task.cancel()
        self._flights.cancel()
        await self._stop()
        if self._recorder is not None:
            await self._recorder.close()
        self._fetcher.close()

    # -- Invocations --

    def route(self, endpoint: str, target_model: str | None, variant: str | None) -> tuple[str | None, str]:
        """Return the name by which to invoke a model of an endpoint, and the variant that serves it."""
        if self._routes is None:
            return super().route(endpoint, target_model, variant)
        return self._routes.find(endpoint, target_model, variant)

    def outputs(self, endpoint: str) -> Outputs | None:
        """Return where an endpoint that is invoked asynchronously has its answers written."""
        return None if self._routes is None else self._routes.outputs(endpoint)

    def invoke(self, target_model: str | None, invocation: Invocation) -> Coroutine[Any, Any, Answer]:
        """Answer an invocation; the model is fetched and loaded first if it has to be."""
        if self._names is None or target_model is None:
            return self._counted_answer(target_model, invocation)
        return self._names.invoke(target_model, invocation)

    async def _answer(self, target_model: str | None, invocation: Invocation, *, shadow: bool = False) -> Answer:
        if target_model is None:
            raise BadTargetModel(
                "the TargetModel header (X-Amzn-SageMaker-Target-Model) is missing; "
                "name an artifact of the model store, such as 'team/model.tar.gz'"
            )
        timeout = self._settings.invocation_timeout if invocation.timeout is None else invocation.timeout
        resident = self._residents.get(target_model)
        start = time.monotonic()
        if resident is not None:
            if start < resident.fresh_until:
                if start >= resident.fresh_until - self._ahead:
                    self._flights.join(target_model)
                self._metrics.hits += not shadow
                return await self._invoke(resident, invocation, timeout)
            answer = await self._invoke_while_looking(resident, invocation, timeout, shadow)
            if answer is not None:
                return answer
        deadline = min(start + timeout, invocation.deadline)
        asked = Asked(invocation, start + timeout)
        try:
            timings = await self._ready(target_model, deadline, asked)
            while (resident := self._residents.get(target_model)) is None:  # it had to make room for others at once
                asked.drop()
                asked = Asked(invocation, asked.limit)
                timings = await self._ready(target_model, deadline, asked)
            if timings.load and not shadow:
                self._metrics.missed(time.monotonic() - start)
            elif not shadow:
                self._metrics.hits += 1
            answer = await self._invoke(resident, invocation, max(asked.limit - time.monotonic(), 0.001), asked.answer)
        except BaseException:
            asked.drop()
            raise
        if asked.answer is not None:  # it was with its worker while that loaded the model
            answer.timings["queue"] = max(answer.timings["queue"] - timings.load, 0.0)
        answer.timings["fetch"] = timings.fetch
        answer.timings["load"] = timings.load
        return answer

    _counted_answer = counted(_answer)

    async def _invoke_while_looking(
        self, resident: Resident, invocation: Invocation, timeout: float, shadow: bool
    ) -> Answer | None:
        """Answer while the store is asked whether this is still its version of the model; None if it is not.

        A store that takes long, or cannot be reached, is not waited for: the model is served as it was loaded.
        """
        deadline = min(time.monotonic() + timeout, invocation.deadline)
        self._flights.join(resident.name)
        result: Answer | ManyModelsError
        try:
            result = await self._invoke(resident, invocation, timeout)
        except ManyModelsError as error:
            result = error
        try:
            await self._look(resident, result, deadline)
        except BaseException:
            discard(result)
            raise
        if self._residents.get(resident.name) is not resident:
            discard(result)
            return None
        self._metrics.hits += not shadow
        if isinstance(result, ManyModelsError):
            raise result
        return result

    async def _look(self, resident: Resident, result: object, deadline: float) -> None:
        """Wait, but not for long, until the store has said whether this is still its version of the model."""
        if (flight := self._flights.get(resident.name)) is not None:
            wait = min(flight.began + LOOK, deadline) - time.monotonic()
            if await flight.wait(0 if self._slow else max(wait, 0)):
                flight.outcome()
            elif self._residents.get(resident.name) is not resident:
                discard(result)  # with it, the model would not be done that is to leave
                await self._ready(resident.name, deadline)
            else:
                self._slow = True

    async def _invoke(
        self,
        resident: Resident,
        invocation: Invocation,
        timeout: float,
        sent: Callable[[], Coroutine[Any, Any, Answer]] | None = None,
    ) -> Answer:
        """Answer an invocation of a loaded model.

        :param sent: waits for the answer where the invocation was sent along with the load.
        """
        self._residents.begin(resident)
        try:
            answer = await (self._server.invoke(resident.name, invocation, timeout) if sent is None else sent())
        except BaseException:
            self._end(resident)
            raise
        once_whole(answer, self._end, resident)
        return answer

    def _end(self, resident: Resident, _: object = None) -> None:
        """Take note that an invocation of a model has come to its end."""
        if self._residents.end(resident):
            self._room.changed()
            if resident.replaced:
                self._fetcher.release(resident.path)

    async def _ready(self, target_model: str, deadline: float, asked: Asked | None = None) -> Timings:
        """Wait until the model is loaded; whoever asks meanwhile waits for the same load.

        :param asked: what may be sent along with the load.
        """
        flight = self._flights.join(target_model)
        if asked is not None:
            flight.asked.append(asked)
        if not await flight.wait(deadline - time.monotonic()):
            raise ModelNotReady(f"{target_model!r} is still being loaded; try again")
        return flight.outcome()

    # -- Loading --

    async def _refresh(self, target_model: str) -> Timings:
        """Bring the loaded model to the version in the store."""
        timings = Timings()
        start = time.monotonic()
        try:
            resident = self._residents.get(target_model)
            loaded = None if resident is None else resident.found.version
            opened = await self._fetcher.look(target_model, (loaded, self._failures.version(target_model)))
            self._slow = False
        except ModelNotFound:
            await self._evict(target_model, "gone")
            await self._fetcher.forget(target_model)
            raise
        except LoadFailed as error:
            if (resident := self._residents.get(target_model)) is None:
                raise
            if resident.unsure is None:
                logger.warning("served as it was loaded: %s", error, extra={"model": target_model})
            resident.unsure = error
            resident.fresh_until = self._fresh_until()
            return timings
        try:
            await self._settle(opened, start, timings)
        finally:
            if opened.files is not None:
                self._fetcher.release(opened.files.path)
        return timings

    async def _settle(self, opened: Opened, start: float, timings: Timings) -> None:
        """Load what was found, unless it is loaded."""
        found = opened.found
        target_model = found.target_model
        if (leaving := self._leaving.get(target_model)) is not None:
            await leaving.wait()
        resident = self._residents.get(target_model)
        if resident is None:
            if self._flights.wanted(target_model):  # else it left during a look that was for who may come
                await self._bring(opened, start, timings)
            return
        resident.unsure = None
        if resident.found.version == found.version:
            resident.newer = None
        else:
            try:
                await self._bring(opened, start, timings)
            except ManyModelsError as error:
                if self._residents.get(target_model) is not resident:
                    raise
                resident.newer = Newer(found.version, error)
        resident.fresh_until = self._fresh_until()

    async def _bring(self, opened: Opened, start: float, timings: Timings) -> None:
        """Load a version that the store has; the one that is loaded serves until it takes its place."""
        found = opened.found
        self._failures.check(found)
        try:
            if opened.files is None and opened.error is None:  # it was loaded, or refused, when the look began
                again = await self._fetcher.open(found)
                opened.found, opened.files, opened.error = again.found, again.files, again.error
                found = opened.found
            timings.fetch = time.monotonic() - start
            if opened.error is not None:
                raise opened.error
            await self._load(opened, timings)
        except (LoadFailed, OutOfMemory) as error:
            logger.error("cannot be loaded: %s", error, extra={"model": found.target_model})
            self._metrics.load_failed(error)
            passing = isinstance(error, StoreUnavailable) or (isinstance(error, OutOfMemory) and error.eviction_helps)
            if not passing:
                self._failures.remember(found, error)
            raise
        self._failures.forget(found.target_model)

    async def _load(self, opened: Opened, timings: Timings) -> None:
        found = opened.found
        name = found.target_model
        assert opened.files is not None
        path, binding, size, isolated, needs = opened.files
        start = time.monotonic()
        load = functools.partial(self._server.load, name, path, binding, found.version, size)
        flight = self._flights.get(name)
        asked = [] if flight is None else flight.asked
        load = functools.partial(load, isolated=isolated, requirements=needs, replace=True, asked=asked)
        try:
            description = await self._room.load(load)
        except OutOfMemory as error:
            if not (error.eviction_helps and name in self._residents):
                raise
            # There is no room for two versions, and the old one is always in use: then it leaves first.
            await self._evict(name, "replaced")
            description = await self._room.load(load)
        timings.load = time.monotonic() - start
        self._metrics.loaded(timings.load, timings.fetch)
        old = self._residents.remove(name, "replaced")
        if old is not None:
            old.replaced = True
            if not old.in_use:
                self._fetcher.release(old.path)
        opened.files = None  # it is the resident's to release
        resident = self._residents.add(found, path, description.bytes, description.load_seconds, self._fresh_until())
        self._fetcher.check(resident)
        took = {"fetch_ms": round(timings.fetch * 1e3, 1), "load_ms": round(timings.load * 1e3, 1)}
        logger.info("loaded", extra={"model": name, "plugin": description.plugin, "bytes": description.bytes, **took})

    def _fresh_until(self) -> float:
        return time.monotonic() + self._settings.store_refresh

    async def _evict(self, name: str, reason: str) -> None:
        """Unload a model once its last invocation has ended.

        :param reason: a key of `EVICTIONS`.
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
                self._room.late()
        finally:
            del self._leaving[name]
            left.set()
        self._fetcher.release(resident.path)
        self._metrics.evicted(reason, time.monotonic() - start)

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
        await self._flights.settle(seconds=seconds)

    def names(self, artifact: str | None = None) -> tuple[list[NameDescription], str]:
        """Return the names above artifacts, or above one; and why their file, as it is now, is not in force."""
        return ([], "") if self._names is None else (self._names.describe(artifact), self._names.fault)

    async def warm(self, name: str) -> None:
        """Load a model if it is not there."""
        if name not in self._residents:
            await self._load_patiently(name)

    async def retire(self, name: str) -> None:
        """Unload a model that nobody asks for."""
        await self._evict(name, "idle")

    async def clear(self, prefix: str) -> None:
        """Unload every model whose name begins so, those too that are being loaded."""
        await self._flights.settle(prefix)
        for name in [model.name for model in self.models() if model.name.startswith(prefix)]:
            await self._evict(name, "request")

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
        await self._load_patiently(name)

    async def _load_patiently(self, name: str) -> None:
        seconds = patience(self._settings)
        until = time.monotonic() + seconds
        await patiently(lambda: self._ready(name, until), seconds)

    async def refresh(self, name: str) -> ModelDescription:
        """Ask the store for a loaded model at once, by its own name or another, and serve the version that it has."""
        name = self._artifact(name)
        if name not in self._residents:
            raise ModelNotFound(f"{name!r} is not loaded")
        if (flight := self._flights.get(name)) is not None:  # it may have asked before the artifact was replaced
            await flight.wait()
        self._failures.forget(name)
        await self._load_patiently(name)
        if (resident := self._residents.get(name)) is not None:
            error = resident.unsure or (resident.newer and resident.newer.error)
            if error is not None:
                raise error.again()
        return self.describe(name)

    def models(self) -> list[ModelDescription]:
        """Return the loaded models, sorted by name, with their versions."""
        return [self._versioned(model) for model in super().models()]

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model, with its version, by its own name or another."""
        name = self._artifact(name)
        if name not in self._residents and (why := self._failures.why(name)):
            raise ModelNotFound(f"{name!r} is not loaded: {why}")
        return self._versioned(super().describe(name))

    def _artifact(self, name: str) -> str:
        """Return the artifact that a name stands for, most often if there are several."""
        return name if self._names is None else self._names.artifact(name)

    def _versioned(self, model: ModelDescription) -> ModelDescription:
        if (resident := self._residents.get(model.name)) is None:
            return model
        version, error = resident.newer or ("", "")
        return structs.replace(model, version=resident.found.version, newer_version=version, newer_error=str(error))

    def disk_cache(self) -> DiskCacheState:
        """Return what the disk cache holds."""
        return self._store.cache.state()

    async def metrics(self, accept: str) -> Answer:
        """Return the metrics for Prometheus."""
        self._metrics.outdated = self._residents.outdated()
        self._metrics.disk_cache = self.disk_cache()
        return await super().metrics(accept)

    async def unload(self, name: str) -> None:
        """Unload a model once its last invocation has ended."""
        if name not in self._residents:
            raise ModelNotFound(f"{name!r} is not loaded")
        if (flight := self._flights.get(name)) is not None:  # which may bring it back, in another version
            await flight.wait()
        await self._evict(name, "request")

    def artifacts(self, after: str = "") -> Iterator[str]:
        """Yield the TargetModels of the store; see `Store.list`."""
        return self._store.list(after)

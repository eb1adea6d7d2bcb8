"""The model server that is multi-model-server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from manymodels.environments import Interpreter, Requirements
from manymodels.errors import (
    InternalFailure,
    LoadFailed,
    ManyModelsError,
    ModelNotFound,
    OutOfMemory,
    SettingsError,
    WorkerDied,
)
from manymodels.invocation import Answer, Invocation
from manymodels.plugins import Binding
from manymodels.server.awaited import Awaited
from manymodels.server.holder import Holder
from manymodels.server.launcher import describe_exit
from manymodels.server.tasks import Tasks
from manymodels.settings import Settings
from manymodels.trial import Predictor

from .api import Refused
from .engine import Engine
from .messages import Description, Exited, Report, Serves, Tries, decode_answered, encode_invocations
from .residents import Lane, Resident, Run
from .settings import MmsSettings
from .settings import load as load_settings

logger = logging.getLogger(__name__)

#: Seconds to wait before multi-model-server, which could not be started, is tried again.
RETRY = 0.5
#: Seconds that running invocations have to end when the server stops.
STOP_TIMEOUT = 10.0
#: Seconds for multi-model-server to notice that a process ended, and for the zygote to say how.
NOTICE = 2.0
#: Bytes a model process takes at least: what a fork writes to, and its launcher.
PROCESS = 12 << 20
#: Why models are not accelerated where there is no zygote.
_NOT_TRIED = "multi-model-server's own processes, of the start method spawn, have no idle moments"


class MmsServer(Holder[Resident]):
    """Has multi-model-server load models, and sends it invocations, joined where they wait."""

    def __init__(self, settings: Settings, mms_settings: MmsSettings) -> None:
        super().__init__(settings, self._new, PROCESS * mms_settings.workers_per_model)
        self._mms_settings = mms_settings
        self._numbers = itertools.count(1)
        #: By multi-model-server's names.
        self._runs: dict[str, tuple[Resident, Run]] = {}
        self._engine: Engine | None = None
        #: Set while there is an engine.
        self._up = asyncio.Event()
        self._stopping = False
        self._tasks = Tasks("keeping multi-model-server")

    # -- Start and stop --

    async def start(self, frameworks: Sequence[str] | None) -> None:
        """Start multi-model-server."""
        self._modules = tuple(self._plugins.warm_up_imports(frameworks))
        self._take(await self._started())

    async def _started(self) -> Engine:
        engine = Engine(self._settings, self._mms_settings, self._modules, self._on_told, self._named)
        await engine.start()
        return engine

    def _take(self, engine: Engine) -> None:
        self._engine = engine
        self._up.set()
        self._tasks.run(self._replace(engine))

    async def _replace(self, engine: Engine) -> None:
        """Start another engine when one ends; models are loaded again as they are asked for."""
        reason = await engine.ended
        if self._stopping:
            return
        self._engine = None
        self._up.clear()
        logger.error("%s; it is started again", reason)
        for _, run in self._runs.values():
            run.close()
            if run.lane.run is run:
                run.lane.run = None
        self._runs.clear()
        await engine.stop()
        while not self._stopping:
            try:
                self._take(await self._started())
            except (ManyModelsError, OSError) as error:
                logger.error("multi-model-server cannot be started: %s", error)
                await asyncio.sleep(RETRY)
            else:
                return

    async def stop(self) -> None:
        """End multi-model-server, once what it has to answer is answered or the time is up."""
        await self._environments.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_TIMEOUT
        while (  # noqa: ASYNC110 - at the end only
            any(resident.waiting for resident in (*self._residents.values(), *self._replaced)) and loop.time() < end
        ):
            await asyncio.sleep(0.05)
        self._stopping = True
        await self._tasks.stop()
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None
        for _, run in self._runs.values():
            run.close()
        for resident in (*self._residents.values(), *self._replaced):
            for call in resident.drop():
                call.fail(_stopped(resident))

    def healthy(self) -> bool:
        """Say whether multi-model-server is running."""
        return self._engine is not None and not self._stopping

    # -- Models --

    def _new(self, name: str, path: str, binding: Binding, version: str) -> Resident:
        lanes = [Lane() for _ in range(self._mms_settings.workers_per_model)]
        return Resident(name, path, binding, version, lanes=lanes)

    async def _bring(self, resident: Resident) -> None:
        loads = [asyncio.ensure_future(self._run_of(resident, lane)) for lane in resident.lanes]
        try:
            await asyncio.gather(*loads)
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)

    def _interpreter(self, name: str, requirements: Requirements | None, binding: Binding) -> Interpreter | None:
        if requirements is not None and self._environments.wanted(requirements):
            raise LoadFailed(
                f"{requirements.file} of {name!r} asks for an environment of its own, which models of the backend mms "
                "cannot have; serve it with --backend workers, or install what it needs beside the server"
            )
        return None

    async def _abandon(self, resident: Resident) -> None:
        await self._remove(resident)

    def _leave(self, resident: Resident) -> None:
        self._tasks.run(self._remove(resident))

    def _taken(self) -> int:
        models = (*self._residents.values(), *self._beside.values(), *self._replaced)
        return sum(resident.bytes for resident in models)

    def _where(self, resident: Resident) -> tuple[int, Sequence[int]]:
        return resident.bytes, [pid for lane in resident.lanes if lane.run is not None for pid in lane.run.pids]

    def _processes(self) -> int:
        return sum(len(run.pids) for _, run in self._runs.values())

    async def _run_of(self, resident: Resident, lane: Lane) -> Run:
        """Return the run of a lane, after loading the model there if there is none."""
        while (run := lane.run) is None:
            await self._up.wait()
            async with lane.loading:  # an unload waits for it
                if resident.removed:
                    raise ModelNotFound(f"{resident.name!r} was unloaded")
                if lane.run is None and self._engine is not None:
                    self._conduct.check(resident.name, resident.version)
                    await self._load(resident, lane, self._engine)
        return run

    async def _load(self, resident: Resident, lane: Lane, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        run = Run(engine, lane, f"m{next(self._numbers)}", loop.create_future())
        self._runs[run.name] = (resident, run)
        resident.predictor = None if engine.zygote is not None else Predictor(reason=_NOT_TRIED)
        try:
            run.folder.mkdir()
            await run.listen(resident.name)
            Description(
                name=resident.name,
                path=_absolute(resident.path),
                binding=resident.binding,
                settings=self._settings.model_settings(),
                blocked=tuple(self._settings.block_plugins),
                memory=self._budget.limit,
                news=str(engine.news),
                output=str(run.output),
                trial=self._conduct.may_try(resident.name, resident.version),
            ).write(run.folder)
            reports = await self._register(resident, run)
        except ManyModelsError:
            await self._discard(run, grace=NOTICE if run.ending is None else 0)
            raise
        except BaseException:
            await self._discard(run, grace=0)
            raise
        run.pids = tuple(report.pid for report in reports)
        lane.bytes = await engine.taken(run.name, run.pids)
        resident.bytes = sum(each.bytes for each in resident.lanes)
        resident.measured = True
        resident.load_seconds = max(report.seconds for report in reports)
        resident.notes = tuple(reports[0].notes)
        resident.golden = reports[0].golden
        resident.schema = reports[0].schema
        if run.exited.done():  # it was loaded and ended at once
            self._blame(resident, describe_exit(run.exited.result()))
            await self._discard(run, grace=0)
        elif run.name in self._runs:  # otherwise its engine ended
            lane.run = run

    async def _register(self, resident: Resident, run: Run) -> list[Report]:
        """Have multi-model-server load a model, and return what its processes report."""
        asked = asyncio.ensure_future(run.engine.api.register(run.name))
        try:
            ends: set[asyncio.Future[Any]] = {run.exited, run.engine.ended}
            seconds = self._settings.load_timeout
            await asyncio.wait({asked, *ends}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            ended = any(end.done() for end in ends)
            if ended:
                # Not for long: a process that ends early is waited for, by multi-model-server, for a minute.
                await asyncio.wait({asked}, timeout=NOTICE)
            elif not asked.done():
                run.ending = f"was ended because it loaded for more than {seconds:g} s"
                self._blame(resident, run.ending)
                raise LoadFailed(f"{resident.name!r} did not load within {seconds:g} s")
            if asked.done() and asked.exception() is None:
                reports = Report.read_all(run.folder)
                if reports:
                    return reports
        finally:
            asked.cancel()
        raise await self._load_error(resident, run, asked)

    async def _load_error(self, resident: Resident, run: Run, asked: asyncio.Future[None]) -> ManyModelsError:
        """Return why a load failed, which multi-model-server does not say."""
        for report in Report.read_all(run.folder):
            if report.failure is not None:
                return report.failure.error()
        if run.engine.ended.done():
            return WorkerDied(f"{run.engine.ended.result()} while it loaded {resident.name!r}")
        code = await self._exit_code(run)
        refused = asked.exception() if asked.done() and not asked.cancelled() else None
        reason = describe_exit(code)
        logger.error("its process %s while it was loaded (%s)", reason, refused, extra={"model": resident.name})
        self._blame(resident, reason)
        if code == -signal.SIGKILL or (isinstance(refused, Refused) and refused.status == OutOfMemory.status):
            error = OutOfMemory(f"memory ran out while loading {resident.name!r}: its process {reason}")
            error.eviction_helps = True
            return error
        return LoadFailed(f"the worker process {reason} while it loaded {resident.name!r}")

    def _blame(self, resident: Resident, reason: str) -> None:
        """Remember a process that ended: of those that load a model together, for the first time, only one."""
        if resident.loaded or not resident.blamed:
            resident.blamed = True
            self._conduct.killed(resident.name, resident.version, reason)

    async def unload(self, name: str) -> bool:
        """Unload a model."""
        resident = self._loaded(name)
        await self._remove(resident)
        return True

    async def _remove(self, resident: Resident) -> None:
        """Forget a model, and wait until its memory is free."""
        resident.removed = True
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]
        error = ModelNotFound(f"{resident.name!r} was unloaded")
        for call in resident.drop():
            call.fail(error)
        await asyncio.gather(*(self._empty(lane) for lane in resident.lanes))

    async def _empty(self, lane: Lane) -> None:
        async with lane.loading:
            run, lane.run = lane.run, None
        if run is not None:
            await self._discard(run, grace=NOTICE)

    # -- Invocations --

    async def invoke(self, name: str, invocation: Invocation, timeout: float) -> Answer:
        """Answer one invocation."""
        resident = self._invoked(name)
        loop = asyncio.get_running_loop()
        now = loop.time()
        call = Awaited(invocation, loop.create_future(), now, now + timeout)
        resident.calls.append(call)
        resident.waiting += 1
        if (lane := resident.idle()) is not None:
            lane.busy = True
            self._tasks.run(self._serve(resident, lane))
        try:
            answer = await asyncio.wait_for(call.future, min(timeout, invocation.deadline - time.monotonic()))
        except asyncio.TimeoutError:
            call.deadline = min(call.deadline, invocation.deadline)  # the client's, if that was sooner
            raise call.overdue(name, "runs" if call.began else "waits") from None
        finally:
            resident.waiting -= 1
            if resident.replaced is not None:
                self._answered(resident)
        answer.version = resident.version
        return answer

    async def _serve(self, resident: Resident, lane: Lane) -> None:
        """Send invocations, joined, until none wait."""
        try:
            while calls := resident.take(self._settings.max_batch, int(self._settings.max_body)):
                try:
                    run = await self._run_of(resident, lane)
                    # The model may have been loaded again for longer than somebody waits.
                    now = asyncio.get_running_loop().time()
                    calls = [call for call in calls if not call.future.done() and call.deadline > now]
                    if calls:
                        await self._exchange(resident, run, calls)
                except ManyModelsError as error:
                    for call in calls:
                        call.fail(error)
                except asyncio.CancelledError:
                    for call in calls:
                        call.fail(_stopped(resident))
                    raise
                except Exception:
                    logger.exception("cannot be asked", extra={"model": resident.name})
                    for call in calls:
                        call.fail(InternalFailure(f"{resident.name!r} cannot be asked; the server's log says why"))
        finally:
            lane.busy = False

    async def _exchange(self, resident: Resident, run: Run, calls: list[Awaited]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.metrics.batched(len(calls))
        for call in calls:
            call.began = now
        body = encode_invocations([call.invocation for call in calls])
        limit = max(call.deadline for call in calls) - now
        try:
            answered = decode_answered(await asyncio.wait_for(run.engine.api.invoke(run.name, body), limit))
            if len(answered.outcomes) != len(calls):
                raise msgspec.ValidationError("another number of outcomes than of invocations")
        except asyncio.TimeoutError:
            run.ending = "was ended because it ran past the deadline"
            await self._lost(resident, run)
        except (Refused, msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.debug("multi-model-server: %s", error, extra={"model": resident.name})
            raise await self._lost(resident, run) from error
        except (aiohttp.ClientError, OSError) as error:
            await asyncio.wait({run.engine.ended}, timeout=NOTICE)  # most likely it is this that ended
            raise await self._lost(resident, run) from error
        else:
            for call, outcome in zip(calls, answered.outcomes, strict=True):
                call.settle(outcome)

    async def _lost(self, resident: Resident, run: Run) -> WorkerDied:
        """Let go of a run that answers no more, and return the error of those it did not answer."""
        if run.lane.run is run:
            run.lane.run = None
        if resident.removed:
            return WorkerDied(f"{resident.name!r} was unloaded while it answered")
        if run.engine.ended.done():
            return WorkerDied(f"{run.engine.ended.result()} while {resident.name!r} answered")
        reason = run.ending or describe_exit(await self._exit_code(run))
        logger.error("its process %s", reason, extra={"model": resident.name})
        self.metrics.restarted("died" if run.ending is None else "timeout")
        if not self._failed_trial(resident, run):
            self._blame(resident, reason)
        self._tasks.run(self._discard(run, grace=0))
        return WorkerDied(f"the worker process of {resident.name!r} {reason} while it answered")

    # -- Processes --

    def _on_told(self, message: Exited | Tries | Serves) -> None:
        found = self._runs.get(message.model)
        if found is None:
            return
        resident, run = found
        if isinstance(message, Exited):
            self._on_exit(resident, run, message.code)
        elif isinstance(message, Tries):
            run.trying = True
        else:
            run.trying = False
            resident.predictor = message.predictor
            self._tasks.run(self._measure(resident, run))

    async def _measure(self, resident: Resident, run: Run) -> None:
        """Count the memory of a model whose predictor changed."""
        taken = await run.engine.taken(run.name, run.pids)
        if run.lane.run is run:
            run.lane.bytes = taken
            resident.bytes = sum(lane.bytes for lane in resident.lanes)

    def _failed_trial(self, resident: Resident, run: Run) -> bool:
        """Say whether a run that ended may have done so by the trial of a faster predictor, and take note of it."""
        if run.trying:
            logger.error("a faster predictor was being tried; it is not tried again", extra={"model": resident.name})
            self._conduct.failed_trial(resident.name, resident.version)
        return run.trying

    def _on_exit(self, resident: Resident, run: Run, code: int | None) -> None:
        """Take note of a model process that ended."""
        if not run.exited.done():
            run.exited.set_result(code)
        if run.lane.run is run and not run.lane.busy:
            logger.error("its process %s without work to do", describe_exit(code), extra={"model": resident.name})
            self.metrics.restarted("died")
            self._failed_trial(resident, run)
            run.lane.run = None
            self._tasks.run(self._discard(run, grace=0))

    async def _exit_code(self, run: Run) -> int | None:
        """Return how a run's process ended; None where nobody says."""
        if run.engine.zygote is not None:
            await asyncio.wait({run.exited}, timeout=NOTICE)
        return run.exited.result() if run.exited.done() else None

    async def _discard(self, run: Run, *, grace: float) -> None:
        """End a run; its memory is free when this returns.

        :param grace: seconds its processes have to end by themselves.
        """
        engine = run.engine
        if not engine.ended.done():
            if not grace:
                await engine.kill(run.name)
            try:
                await engine.api.unregister(run.name)
            except (Refused, aiohttp.ClientError, OSError) as error:
                logger.debug("multi-model-server: %s", error)
            await engine.end(run.name, run.exited, grace=grace)
        run.close()
        self._runs.pop(run.name, None)
        await asyncio.get_running_loop().run_in_executor(None, lambda: shutil.rmtree(run.folder, ignore_errors=True))

    def _named(self, name: str) -> str | None:
        found = self._runs.get(name)
        return found[0].name if found is not None else None


def create(settings: Settings) -> MmsServer:
    """Return the model server; the entry point of the backend ``mms``.

    :raises SettingsError: if a variable of this package is wrong, or the system is not Linux.
    """
    if sys.platform != "linux":
        raise SettingsError("the backend mms needs Linux; use the backend workers here")
    return MmsServer(settings, load_settings())


def _absolute(path: str) -> str:
    """Return a path that means the same in a process with another current folder."""
    return os.path.abspath(path)  # noqa: PTH100 - links stay what they are


def _stopped(resident: Resident) -> WorkerDied:
    return WorkerDied(f"the server stopped before {resident.name!r} answered")

"""What all roles share: the model server below, and the counting of what is asked of it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from ..errors import InternalFailure, ManyModelsError, Overloaded, RequestError
from ..invocation import Answer, Invocation
from ..metrics.cloudwatch import CloudWatch
from ..metrics.exposition import Snapshot
from ..metrics.state import DiskCacheState
from ..sagemaker import VARIANT
from ..server import ModelDescription, ModelServer
from ..server.streams import once_whole
from ..settings import Settings
from .journal import Eviction
from .names import NameDescription
from .routes import Outputs

F = TypeVar("F", bound=Callable[..., Awaitable[Answer]])

#: What the only model of a server is called where it needs no name.
SINGLE = "model"


class Measured:
    """A role in front of a model server."""

    def __init__(self, server: ModelServer, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._metrics = server.metrics
        self._reports: asyncio.Task[None] | None = None
        #: Invocations that are not answered yet.
        self._waiting = 0

    async def _start(self, frameworks: Sequence[str] | None) -> None:
        """Start the model server, and reports to CloudWatch where they are wanted."""
        await self._server.start(frameworks)
        if self._settings.cloudwatch is not None:
            cloudwatch = CloudWatch(self._metrics, self._server.state, self._settings.cloudwatch)
            self._reports = asyncio.create_task(cloudwatch.run())

    async def _stop(self) -> None:
        """Stop the model server; what happened until then is reported."""
        await self._server.stop()
        if self._reports is not None:
            self._reports.cancel()
            await asyncio.wait([self._reports])

    def route(self, endpoint: str, target_model: str | None, variant: str | None) -> tuple[str | None, str]:
        """Return the name by which to invoke a model of an endpoint: of any, where none are mapped to stores.

        They have every variant that is asked for, too.
        """
        return target_model, VARIANT if variant is None else variant

    def outputs(self, endpoint: str) -> Outputs | None:
        """Return None: no endpoint has an address of its own for asynchronous answers."""
        return None

    def ready(self) -> bool:
        """Say whether models can be loaded and invoked; none has to be."""
        return self._server.healthy()

    def models(self) -> list[ModelDescription]:
        """Return the loaded models, sorted by name."""
        return self._server.models()

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model."""
        return self._server.describe(name)

    async def bring(self, name: str) -> ModelDescription:
        """Return a model, loaded first if it has to be and that is for this role to decide."""
        await self.warm(self._artifact(name))
        return self.describe(name)

    def _artifact(self, name: str) -> str:
        """Return the model that a name stands for: itself, where there are no names above artifacts."""
        return name

    async def refresh(self, name: str) -> ModelDescription:
        """Refuse: there is no store to ask."""
        raise RequestError(f"this server has no model store to ask; unload {name!r} and load it again")

    async def warm(self, name: str) -> None:
        """Load a model if it is not there; where others decide what is loaded, do nothing."""

    def evictions(self, before: int | None, limit: int) -> list[Eviction]:
        """Return none: whoever loads and unloads keeps the journal."""
        return []

    def names(self, artifact: str | None = None) -> tuple[list[NameDescription], str]:
        """Return none: they are for whoever has a store."""
        return [], ""

    def disk_cache(self) -> DiskCacheState | None:
        """Return None: artifacts come unpacked."""
        return None

    def _ended(self, label: str, start: float, answer: Answer | None, error: Exception | None) -> None:
        """Count an invocation that has come to its end: an error, where there is no whole answer."""
        self._waiting -= 1
        seconds = time.perf_counter() - start
        if answer is not None and error is None:
            self._metrics.answered(label, answer, seconds)
        else:
            kind = type(error) if isinstance(error, ManyModelsError) else InternalFailure
            self._metrics.failed(label, kind, seconds)

    async def metrics(self, accept: str) -> Answer:
        """Return the metrics for Prometheus."""
        snapshot = Snapshot(self._metrics, self._server.state())
        return await asyncio.get_running_loop().run_in_executor(None, snapshot.render, accept)


def counted(invoke: F) -> F:
    """Count the invocations that a method of a role answers, and refuse too many before anything is done for them."""

    @functools.wraps(invoke)
    async def counting(self: Measured, name: str | None, invocation: Invocation) -> Answer:
        start = time.perf_counter()
        label = SINGLE if name is None else name
        self._waiting += 1
        try:
            if self._waiting > self._settings.max_waiting:
                raise Overloaded(f"{self._waiting - 1} invocations are waiting already; try again later")
            answer = await invoke(self, name, invocation)
        except asyncio.CancelledError:
            self._waiting -= 1
            self._metrics.abandoned(time.perf_counter() - start)
            raise
        except Exception as error:
            self._ended(label, start, None, error)
            raise
        once_whole(answer, self._ended, label, start, answer)
        return answer

    return cast("F", counting)

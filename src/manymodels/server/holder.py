"""What every model server keeps of its models, wherever their processes are."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from ..artifact import Artifact
from ..environments import Environments, Interpreter, Requirements, read
from ..errors import ModelAlreadyLoaded, ModelNotFound, Overloaded
from ..metrics import Metrics, ServerState
from ..plugins import Binding, Plugins
from ..settings import Settings
from .awaited import Asked
from .base import ModelDescription
from .budget import Budget
from .conduct import Conduct
from .held import Held
from .memory import Estimator, default_budget

logger = logging.getLogger(__name__)


R = TypeVar("R", bound=Held)


class Holder(ABC, Generic[R]):
    """Loads models within a budget and describes them; how they are loaded is its subclass's to say."""

    def __init__(self, settings: Settings, resident: Callable[[str, str, Binding, str], R], overhead: int = 0) -> None:
        """Hold nothing yet.

        :param resident: makes a model of its name, path, binding and version.
        :param overhead: bytes that each takes beside what is its own.
        """
        self.metrics = Metrics(settings.metrics_models, split=settings.cloudwatch is not None)
        self._settings = settings
        self._resident = resident
        self._overhead = overhead
        self._plugins = Plugins.installed(settings.block_plugins)
        self._environments = Environments(settings, self._plugins)
        self._conduct = Conduct()
        self._residents: dict[str, R] = {}
        #: Models being loaded beside the version whose place they are to take; and such versions, until they leave.
        self._beside: dict[str, R] = {}
        self._replaced: set[R] = set()
        self._estimator = Estimator()
        self._budget = Budget(int(settings.memory) if settings.memory is not None else default_budget(), self._taken)

    # -- Where models are --

    @abstractmethod
    async def _bring(self, resident: R) -> None:
        """Load a model, and measure it."""

    @abstractmethod
    async def _abandon(self, resident: R) -> None:
        """Let go of a model whose load failed."""

    @abstractmethod
    def _leave(self, resident: R) -> None:
        """Unload a model that was replaced."""

    @abstractmethod
    def _taken(self) -> int:
        """Return the bytes that loaded models take."""

    @abstractmethod
    def _where(self, resident: R) -> tuple[int, Sequence[int]]:
        """Return the bytes a model takes, all copies together, and the ids of the processes it is in."""

    @abstractmethod
    def _processes(self) -> int:
        """Return the number of processes that models are in."""

    async def _make_room(self, count: int) -> None:
        """Let go of what can be had again without a load, until that many bytes fit."""

    def _interpreter(self, name: str, requirements: Requirements | None, binding: Binding) -> Interpreter | None:
        """Return what a model runs on; None: the server's own interpreter.

        :raises ModelNotReady: while its environment is being built.
        :raises LoadFailed: if there is none for it.
        """
        return self._environments.get(name, requirements, binding)

    def _start_of(self, resident: R) -> int:
        """Return the bytes that have to be taken before the model can be loaded, and are not its own."""
        return 0

    # -- Models --

    async def load(
        self,
        name: str,
        path: Path,
        binding: Binding,
        version: str = "",
        size: int | None = None,
        *,
        isolated: bool = False,
        requirements: Requirements | None = None,
        replace: bool = False,
        asked: Sequence[Asked] = (),
    ) -> ModelDescription:
        """Load a model."""
        old = self._residents.get(name)
        if name in self._beside or (old is not None and not (replace and old.loaded)):
            raise ModelAlreadyLoaded(f"{name!r} is loaded already")
        version = version or str(path)
        self._conduct.check(name, version)
        resident = self._resident(name, str(path), binding, version)
        place = self._residents if old is None else self._beside
        place[name] = resident
        reserved = 0
        try:
            if size is None:
                look = functools.partial(_look, path, name, self._settings)
                looked = await asyncio.get_running_loop().run_in_executor(None, look)
                size, isolated, requirements = looked
            resident.isolated = isolated
            resident.asked = asked
            resident.remarks = self._environments.remarks(requirements)
            resident.interpreter = self._interpreter(name, requirements, binding)
            estimate = self._estimator.estimate(binding.plugin, size) + self._overhead + self._start_of(resident)
            if not self._budget.has_room(estimate):
                await self._make_room(estimate)
            self._budget.reserve(name, estimate)
            reserved = estimate
            await self._bring(resident)
            self._estimator.learn(binding.plugin, size, max(resident.bytes - self._overhead, 0))
        except BaseException:
            await self._abandon(resident)
            raise
        finally:
            self._budget.release(reserved)
            self._beside.pop(name, None)
            resident.asked = ()
        resident.loaded = True
        old, self._residents[name] = self._residents.get(name, resident), resident
        if old is not resident:
            old.replaced = time.monotonic()
            self._replaced.add(old)
            self._answered(old)
        if resident.golden is not None and resident.golden.failed:
            self.metrics.golden_failures += 1
        description = self._description(resident)
        for note in description.notes:
            logger.warning("%s", note, extra={"model": name})
        return description

    def used(self) -> int:
        """Return the bytes that models take, and those about to be loaded, again or for the first time."""
        return self._budget.used()

    def models(self) -> list[ModelDescription]:
        """Return all loaded models, sorted by name."""
        return [self._description(resident) for _, resident in sorted(self._residents.items()) if resident.loaded]

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model."""
        if name not in self._residents:
            self._conduct.check_all(name)
            self._environments.check(name)
        return self._description(self._loaded(name))

    def state(self) -> ServerState:
        """Return what is held now."""
        residents = (*self._residents.values(), *self._replaced)
        return ServerState(
            models=sum(resident.loaded for resident in self._residents.values()),
            bytes=self.used(),
            budget=self._budget.limit,
            waiting=sum(resident.waiting for resident in residents),
            workers=self._processes(),
        )

    def _answered(self, resident: R) -> None:
        """Take note that an invocation was answered: one that was replaced leaves with the last."""
        if resident.replaced is not None and not resident.waiting and resident in self._replaced:
            self._replaced.remove(resident)
            self.metrics.evicted("replaced", time.monotonic() - resident.replaced)
            self._leave(resident)

    def _description(self, resident: R) -> ModelDescription:
        taken, workers = self._where(resident)
        return ModelDescription(
            name=resident.name,
            path=resident.path,
            plugin=resident.binding.plugin,
            framework=resident.binding.framework,
            bytes=taken,
            measured=resident.measured,
            load_seconds=resident.load_seconds,
            notes=(*resident.remarks, *resident.notes),
            golden=resident.golden,
            environment=None if resident.interpreter is None else resident.interpreter.name,
            schema=resident.schema,
            workers=tuple(workers),
            predictor=resident.predictor,
            refused=self._conduct.refusal(resident.name, resident.version),
        )

    def _loaded(self, name: str) -> R:
        """Return a loaded model.

        :raises ModelNotFound: if it is not.
        """
        resident = self._residents.get(name)
        if resident is None or not resident.loaded:
            raise ModelNotFound(f"{name!r} is not loaded")
        return resident

    def _invoked(self, name: str) -> R:
        """Return a loaded model that may be asked.

        :raises ModelNotFound: if it is not loaded.
        :raises Overloaded: if as many invocations wait for it as may.
        :raises ModelRefused: if it ended its workers.
        """
        resident = self._loaded(name)
        if resident.waiting >= self._settings.queue_size:
            raise Overloaded(f"{resident.waiting} invocations of {name!r} are waiting already; try again later")
        self._conduct.check(name, resident.version)
        return resident


def _look(path: Path, name: str, settings: Settings) -> tuple[int, bool, Requirements | None]:
    """Return the size of an artifact, whether it asks for a process of its own, and what it needs."""
    artifact = Artifact(path, name)
    return artifact.size, artifact.manifest.isolated, read(artifact, parse=settings.environments != "off")

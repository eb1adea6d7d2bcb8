"""Workers of environments: each environment in use has a zygote and a worker on its own interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..environments import Interpreter
from ..errors import LoadFailed, ManyModelsError, WorkerDied
from .jobs import Resident
from .launcher import Launcher, create_launcher
from .slot import Slot
from .worker import WorkerConfig

logger = logging.getLogger(__name__)

#: Seconds for which they stay when no model of the environment is left, so that the next one need not wait; where
#: there is no room for a model they end at once.
IDLE = 300.0
#: Bytes that an interpreter with its frameworks takes, where that has not been measured.
ASSUMED = 128 << 20


class EnvironmentFleet:
    """What runs the models of one environment."""

    def __init__(self, launcher: Launcher, slot: Slot) -> None:
        """Start nothing yet."""
        self.launcher = launcher
        self.slot = slot
        #: Bytes that the interpreter and the frameworks take, models left out.
        self.bytes = 0
        #: Its models, loaded or being loaded.
        self.models: set[Resident] = set()
        #: When the last of them left.
        self.left = 0.0
        #: Done when models can be loaded.
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class EnvironmentFleets:
    """The workers of all environments in use."""

    def __init__(
        self,
        start_method: str,
        slot: Callable[[str, Launcher], Slot],
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """Start none yet.

        :param slot: makes a slot of its name and of what starts its processes.
        :param run: runs a task that ends with the server.
        """
        self._start_method = start_method
        self._slot = slot
        self._run = run
        self._fleets: dict[str, EnvironmentFleet] = {}
        #: Bytes of each environment as last measured.
        self._bytes: dict[str, int] = {}

    def slots(self) -> list[Slot]:
        """Return the slots of all environments."""
        return [fleet.slot for fleet in self._fleets.values()]

    def bytes(self) -> int:
        """Return the bytes that interpreters and frameworks take."""
        return sum(fleet.bytes for fleet in self._fleets.values())

    def estimate(self, interpreter: Interpreter) -> int:
        """Return the bytes that a model takes beside its own because its environment is not in use yet."""
        return 0 if interpreter.name in self._fleets else self._bytes.get(interpreter.name, ASSUMED)

    @property
    def idle(self) -> bool:
        """Whether there are some that no model needs."""
        return any(not fleet.models for fleet in self._fleets.values())

    def of(self, interpreter: Interpreter) -> EnvironmentFleet:
        """Return the workers of an environment that a model has entered."""
        return self._fleets[interpreter.name]

    async def enter(self, resident: Resident, interpreter: Interpreter, config: WorkerConfig) -> None:
        """Start what runs a model's environment, unless it runs already.

        :param config: of its workers.
        :raises LoadFailed: if it cannot be started.
        """
        fleet = self._fleets.get(interpreter.name)
        if fleet is None:
            launcher = create_launcher(self._start_method, config, interpreter)
            fleet = EnvironmentFleet(launcher, self._slot(f"environment-{interpreter.name}", launcher))
            self._fleets[interpreter.name] = fleet
            self._run(self._open(interpreter.name, fleet))
        fleet.models.add(resident)
        try:
            await asyncio.shield(fleet.ready)
        except (ManyModelsError, OSError) as error:
            raise LoadFailed(f"the environment of {resident.name!r} cannot be run: {error}") from error

    async def _open(self, name: str, fleet: EnvironmentFleet) -> None:
        start = time.monotonic()
        try:
            await fleet.launcher.start()
            await fleet.slot.connect(await fleet.launcher.launch())
        except (ManyModelsError, OSError) as error:
            del self._fleets[name]
            fleet.ready.set_exception(error)
            fleet.ready.exception()  # who waited may be gone
            await fleet.launcher.stop()
            return
        except asyncio.CancelledError:
            fleet.ready.set_exception(WorkerDied("the server stopped"))
            fleet.ready.exception()
            raise
        self._bytes[name] = fleet.bytes = fleet.launcher.memory()
        logger.info("the environment %s is in use, after %.2f s", name, time.monotonic() - start)
        fleet.ready.set_result(None)

    def leave(self, resident: Resident) -> None:
        """Take note that a model is unloaded."""
        if resident.interpreter is not None and (fleet := self._fleets.get(resident.interpreter.name)) is not None:
            fleet.models.discard(resident)
            fleet.left = time.monotonic()

    def retire(self, idle: float = IDLE) -> None:
        """End the workers of environments that no model has needed for so many seconds."""
        now = time.monotonic()
        for name, fleet in list(self._fleets.items()):
            if fleet.ready.done() and not fleet.models and now - fleet.left >= idle:
                logger.info("the environment %s is not in use any more", name)
                del self._fleets[name]
                fleet.slot.close()
                self._run(fleet.launcher.stop())

    async def stop(self) -> None:
        """End all of them."""
        for fleet in self._fleets.values():
            with contextlib.suppress(OSError):  # it has ended by itself
                await fleet.launcher.stop()

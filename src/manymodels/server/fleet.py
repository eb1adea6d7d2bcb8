"""The worker processes there are: those all models share, extra ones, and those of single models."""

from __future__ import annotations

import asyncio
import logging

from ..errors import PluginError, WorkerDied
from ..metrics import Metrics
from ..settings import Settings
from .environment_fleets import EnvironmentFleets
from .jobs import Resident
from .launcher import Launcher, Process, create_launcher
from .slot import Owner, Slot
from .tasks import Tasks
from .worker import WorkerConfig

logger = logging.getLogger(__name__)

#: Workers that models have for themselves, for each shared one; each is a process.
OWN_PER_WORKER = 4
#: Seconds an extra worker is kept without work.
EXTRA_IDLE = 10.0
#: Seconds to wait before a worker that could not be started is tried again.
RETRY = 0.5


class Fleet:
    """Keeps the slots, and a process in each."""

    def __init__(self, settings: Settings, owner: Owner, metrics: Metrics) -> None:
        self.metrics = metrics
        self._tasks = Tasks("keeping the workers")
        #: Runs a task that ends with the fleet.
        self.run = self._tasks.run
        self._settings = settings
        self._owner = owner
        #: The workers that models have their home on.
        self.shared: list[Slot] = []
        #: Those started while all of these are held up.
        self.extra: list[Slot] = []
        #: Those of a single model each.
        self.own: list[Slot] = []
        #: Those whose slot has another process already, and which finish what they were sent.
        self.retiring: list[Slot] = []
        #: Those of environments.
        self.environments = EnvironmentFleets(settings.start_method, self._slot, self.run)
        self.stopping = False

    async def start(self, config: WorkerConfig) -> None:
        """Start the shared workers."""
        self._launcher = create_launcher(self._settings.start_method, config)
        await self._launcher.start()
        names = [f"worker-{number}" for number in range(1, self._settings.workers + 1)]
        self.shared = [self._slot(name, self._launcher) for name in names]
        for slot in self.shared:
            await slot.connect(await self._launcher.launch())

    async def stop(self, seconds: float) -> None:
        """End the workers, and those that have not ended in time too."""
        self.stopping = True
        slots = self.slots()
        for slot in slots:
            slot.close()
        processes = [slot.process.exited for slot in slots if slot.process is not None]
        if processes:
            await asyncio.wait(processes, timeout=seconds)
        await self._tasks.stop()
        await self.environments.stop()
        await self._launcher.stop()

    def slots(self) -> list[Slot]:
        """Return all slots."""
        return [*self.shared, *self.extra, *self.own, *self.environments.slots(), *self.retiring]

    def wanted(self, slot: Slot) -> bool:
        """Say whether a slot is to have a process."""
        return slot in self.slots() and slot not in self.retiring

    def add_extra(self) -> Slot | None:
        """Start another worker beside the shared ones, if there are not too many such yet."""
        if len(self.extra) >= self._settings.workers:
            return None
        slot = self._slot(f"extra-{len(self.extra) + 1}", self._launcher)
        self.extra.append(slot)
        self.run(self.connect(slot))
        return slot

    def add_own(self, resident: Resident) -> Slot | None:
        """Start a worker for one model, if there are not too many such yet."""
        if len(self.own) >= OWN_PER_WORKER * self._settings.workers:
            return None
        launcher = self._launcher
        if resident.interpreter is not None:
            launcher = self.environments.of(resident.interpreter).launcher
        slot = self._slot(f"own-{resident.name}", launcher)
        self.own.append(slot)
        self.run(self.connect(slot))
        return slot

    def remove_own(self, slot: Slot) -> None:
        """End the worker of a model that is unloaded."""
        self.own.remove(slot)
        slot.close()

    def retire_extra(self, now: float) -> None:
        """End extra workers that nobody needs any more."""
        if any(slot.stalled for slot in self.shared):
            return
        for slot in list(self.extra):
            if slot.idle and now - slot.last_active > EXTRA_IDLE:
                self.extra.remove(slot)
                slot.close()

    def end(self, slot: Slot, reason: str) -> None:
        """End a worker at once."""
        if slot.process is not None and slot.ending is None:
            slot.ending = reason
            slot.launcher.kill(slot.process)

    async def launch(self, slot: Slot) -> Process | None:
        """Start a process for a slot; None if it cannot be started."""
        try:
            return await slot.launcher.launch()
        except (WorkerDied, PluginError, OSError) as error:
            logger.error("a worker cannot be started: %s", error)
            return None

    async def connect(self, slot: Slot) -> None:
        """Start a process for a slot, for as long as it takes."""
        while not self.stopping:
            try:
                await slot.connect(await slot.launcher.launch())
            except (WorkerDied, PluginError, OSError) as error:
                logger.error("%s cannot be started: %s", slot.name, error)
                await asyncio.sleep(RETRY)
            else:
                if not self.wanted(slot):  # its model was unloaded meanwhile
                    slot.close()
                return

    def _slot(self, name: str, launcher: Launcher) -> Slot:
        return Slot(self._owner, name, launcher, self._settings.max_batch, self.metrics.batched)

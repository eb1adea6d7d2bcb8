"""What follows when a worker process ends: whom it fails, who is blamed, and a new worker."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import time

from ..errors import LoadFailed, ManyModelsError, OutOfMemory, WorkerDied
from .conduct import Conduct
from .fleet import RETRY, Fleet
from .jobs import Job, Resident
from .launcher import describe_exit
from .messages import Load, Run
from .placement import Placement
from .slot import Slot

logger = logging.getLogger(__name__)

#: Seconds a worker that closed its connection has to end by itself.
EXIT_WAIT = 1.0


class Recovery:
    """Settles what lost workers leave behind."""

    def __init__(self, fleet: Fleet, placement: Placement, conduct: Conduct) -> None:
        self._fleet = fleet
        self._placement = placement
        self._conduct = conduct
        #: Models whose worker ended: they are loaded again when they are asked for, and keep their room.
        self._lost: set[Resident] = set()

    async def recover(self, slot: Slot) -> None:
        """Settle what the worker that ended was doing, and start another."""
        assert slot.process is not None
        exited = slot.process.exited
        died = slot.ending is None
        # A worker of its own that goes with its model did nothing wrong.
        retiring = slot in self._fleet.retiring
        blamed = not died or retiring or self._fleet.wanted(slot)
        if blamed and died:
            await asyncio.wait([exited], timeout=EXIT_WAIT)
        if not exited.done():
            self._fleet.end(slot, "closed its connection and was ended")
        code = await asyncio.shield(exited)  # others wait for it too
        self.lose(slot)
        tried = slot.tries
        running, rest = slot.reset()
        reason = slot.ending or describe_exit(code)
        if tried is not None and blamed:
            logger.error(
                "its worker process %s while a faster predictor was tried; it is not tried again",
                reason,
                extra={"model": tried.name},
            )
            tried.trial = False
            self._conduct.failed_trial(tried.name, tried.version)
        if running is not None and blamed:
            by_kernel = code == -signal.SIGKILL and slot.ending is None
            self._blame(running, rest, reason, by_kernel=by_kernel, innocent=tried is not None)
        for job in rest:
            self._replace(job)
        if retiring:
            self._fleet.retiring.remove(slot)
        if self._fleet.wanted(slot):
            logger.info("%s is started again: it %s", slot.name, reason)
            self._fleet.metrics.restarted("died" if died else "timeout")
            if running is None and time.monotonic() - slot.connected < RETRY:
                await asyncio.sleep(RETRY)  # it cannot even start
            await self._fleet.connect(slot)

    def room(self) -> int:
        """Return the bytes kept for models that are to come back, or are being loaded into one more worker."""
        further = (resident for slot in self._fleet.slots() for resident in slot.loading if resident.loaded)
        return sum(resident.bytes for resident in itertools.chain(self._lost, set(further) - self._lost))

    def settle(self, resident: Resident) -> None:
        """Take note that a lost model is back, or is not wanted any more."""
        self._lost.discard(resident)

    def keep(self, resident: Resident) -> None:
        """Keep the room of a model that was loaded by a worker about to end."""
        self._lost.add(resident)

    def lose(self, slot: Slot) -> None:
        """Keep the room of the models of a worker that ends."""
        for resident in slot.held:
            if slot in resident.copies:
                resident.copies.remove(slot)
                if resident.copies or resident in resident.home.held:
                    continue
            if not resident.removed:
                self._lost.add(resident)

    def _replace(self, job: Job) -> None:
        """Do elsewhere, or again, a job that a worker which ended had not begun."""
        if job.kind is Run:
            self._placement.move(job.calls)
        elif job.kind is Load and job.done is not None:
            self._placement.load(job)
        else:
            job.finish()  # the model went with the worker

    def _blame(self, job: Job, rest: list[Job], reason: str, *, by_kernel: bool, innocent: bool) -> None:
        """Answer the job a worker ended in, and what was sent along with it, and remember whose it was."""
        resident = job.resident
        logger.error("its worker process %s", reason, extra={"model": resident.name})
        error: ManyModelsError
        if job.kind is Run:
            error = WorkerDied(f"the worker process of {resident.name!r} {reason} while it answered")
        elif by_kernel:
            error = OutOfMemory(f"memory ran out while loading {resident.name!r}: its worker process {reason}")
        else:
            error = LoadFailed(f"the worker process {reason} while it loaded {resident.name!r}")
        if not innocent:  # it may be, where a trial went on that could have ended the worker as well
            self._conduct.killed(resident.name, resident.version, reason)
        if job.kind is Load:
            for slot in self._fleet.slots():
                slot.fail(resident, error)
            for later in rest:
                if later.resident is resident:
                    later.fail(error)
        if job.kind is Run or job.kind is Load:
            job.fail(error)
        else:
            job.finish()
        if resident.loaded and not resident.removed and self._conduct.isolated(resident.name, resident.version):
            self._placement.isolate(resident)

"""Decide which worker does what: a model's home, and where its work goes while that is held up."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence

from ..errors import OutOfMemory
from .budget import Budget
from .conduct import Conduct
from .fleet import Fleet
from .jobs import Call, Job, Resident, unloaded
from .messages import Run
from .slot import Slot

logger = logging.getLogger(__name__)


class Placement:
    """Gives jobs to slots."""

    def __init__(self, fleet: Fleet, budget: Budget, conduct: Conduct) -> None:
        self._fleet = fleet
        self._budget = budget
        self._conduct = conduct

    def rank(self, resident: Resident) -> None:
        """Set which shared workers a model prefers; for one of an environment that is the environment's."""
        if resident.interpreter is not None:
            resident.ranking = [self._fleet.environments.of(resident.interpreter).slot]
            return
        name = resident.name
        resident.ranking = sorted(self._fleet.shared, key=lambda slot: _weight(name, slot.name), reverse=True)

    def slot_for(self, resident: Resident) -> Slot:
        """Return the slot for a model's next job: its home, or where it is not held up."""
        if resident.own is not None:
            return resident.own
        home = resident.home
        if resident.interpreter is not None:
            return home
        if resident.copies:
            holders = [slot for slot in (home, *resident.copies) if slot.free and resident in slot.held]
            if holders:
                return min(holders, key=lambda slot: slot.queue(resident))
        if not home.stalled or home.running is resident:
            return home
        others = [slot for slot in (*resident.ranking[1:], *self._fleet.extra) if not slot.stalled]
        room = self._budget.has_room(resident.bytes)
        for slot in others:
            if resident in slot.held or room:
                return slot
        return (self._fleet.add_extra() if room else None) or home

    def load(self, job: Job, calls: Sequence[Call] = ()) -> None:
        """Order a load, and invocations to be sent along with it."""
        resident = job.resident
        if resident.removed:
            return  # nobody waits for it any more
        if resident.own is None and (resident.isolated or self._conduct.isolated(resident.name, resident.version)):
            self.isolate(resident)
        if resident.isolated and resident.own is None:
            error = f"{resident.name!r} asks for a worker of its own, and there are as many such as may be"
            job.fail(OutOfMemory(f'{error}; raise --workers, or take "isolated" out of its manymodels.json'))
            return
        self.slot_for(resident).order(job, calls)

    def move(self, calls: Iterable[Call]) -> None:
        """Queue invocations again that their worker did not begin."""
        for call in calls:
            if call.resident.removed:
                unloaded([call])
            elif not call.future.done():
                self.slot_for(call.resident).submit(call)

    def isolate(self, resident: Resident) -> None:
        """Give a model a worker of its own, if there are not too many such yet."""
        if resident.own is not None or (own := self._fleet.add_own(resident)) is None:
            return
        logger.warning("gets a worker of its own", extra={"model": resident.name})
        calls = [call for slot in self._fleet.slots() for call in slot.drop(resident)]
        for slot in self._fleet.slots():
            if resident in slot.held:
                slot.release(resident)
        resident.copies.clear()
        resident.own = own
        for call in calls:
            own.submit(call)

    def hold_up(self, slot: Slot) -> None:
        """Move what waits behind a long job to other workers."""
        running = None if slot.stalled else slot.running  # noted the first time only
        calls, loads = slot.give_up()
        for job in loads:
            self.load(job)
        self.move(calls)
        if running is not None and slot.sent[0].kind is Run and running.own is None and not running.removed:
            logger.info("holds up its worker", extra={"model": running.name})
            if self._conduct.slow(running.name, running.version):
                self.isolate(running)


def _weight(model: str, slot: str) -> bytes:
    """Rendezvous hashing: a model's home stays the same whatever other models come and go."""
    return hashlib.blake2b(f"{slot}\0{model}".encode(errors="surrogatepass"), digest_size=8).digest()

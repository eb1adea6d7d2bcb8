"""Copies of models that one worker is not enough for, for as long as that is so."""

from __future__ import annotations

import asyncio
import logging

from .budget import Budget
from .fleet import Fleet
from .jobs import Job, Resident
from .messages import Load
from .placement import Placement
from .slot import Slot

logger = logging.getLogger(__name__)

#: Seconds between looks at what workers are busy with.
WINDOW = 0.5
#: Share of the time a worker is busy for its models to need another.
HOT = 0.8
#: Share of the time a worker is busy at most to be given a copy.
COOL = 0.5
#: Share of one worker's time that a copy must be worth, or it is let go of.
WORTH = 0.6
#: What a copy must bring, in answers: where all processors are taken it brings nothing.
GAIN = 1.15
#: Seconds until a model whose copy did not bring that is tried again.
FRUITLESS = 60.0
#: Seconds a copy is kept that is not worth it.
QUIET = 10.0


class Replicas:
    """Gives hot models to further workers."""

    def __init__(self, fleet: Fleet, placement: Placement, budget: Budget) -> None:
        self._fleet = fleet
        self._placement = placement
        self._budget = budget
        self._looked = 0.0
        #: Models with copies, and when these were last worth it; those asked for longest ago first.
        self.copied: dict[Resident, float] = {}
        #: Answers a second before a model was copied; when the copy is judged by that; and which are not to be copied.
        self._before: dict[Resident, float] = {}
        self._judged: dict[Resident, float] = {}
        self._fruitless: dict[Resident, float] = {}

    def note(self, resident: Resident, slot: Slot, now: float) -> None:
        """Take note that a worker holds a model that has its home elsewhere."""
        if slot is not resident.home and slot not in resident.copies:
            resident.copies.append(slot)
            self.copied.setdefault(resident, now)
            self._judged[resident] = now + 3 * WINDOW

    def review(self, now: float) -> None:
        """Look at what the workers did since the last time, and copy or let go."""
        window = now - self._looked
        if window < WINDOW:
            return
        self._looked = now
        busy = {slot: slot.take_busy(now, window) for slot in self._fleet.shared}
        loads = {slot: sum(shares.values()) for slot, shares in busy.items()}
        # Each once, however many workers were busy with it: its count begins anew.
        asked = {resident for shares in busy.values() for resident in shares}
        rates = {resident: self._rate(resident, window) for resident in asked}
        self._judge(rates, now)
        self._copy(busy, loads, rates)
        for resident, worth in list(self.copied.items()):
            if resident.removed or not resident.copies:
                del self.copied[resident]
            elif sum(shares.get(resident, 0.0) for shares in busy.values()) >= WORTH * len(resident.copies):
                self.copied[resident] = now
            elif now - worth > QUIET:
                self.copied[resident] = now
                self._let_go(resident, resident.copies[-1])

    def _rate(self, resident: Resident, window: float) -> float:
        answered, resident.answered = resident.answered, 0
        return answered / window

    def _judge(self, rates: dict[Resident, float], now: float) -> None:
        """Let go of copies that brought nothing."""
        for resident in [resident for resident, until in self._judged.items() if until <= now]:
            del self._judged[resident]
            before = self._before.pop(resident, 0.0)
            if resident.copies and rates.get(resident, 0.0) < GAIN * before:
                logger.info("is let go of by another worker: that brought nothing", extra={"model": resident.name})
                self._fruitless[resident] = now + FRUITLESS
                self._let_go(resident, resident.copies[-1])
        for resident in [resident for resident, until in self._fruitless.items() if until <= now or resident.removed]:
            del self._fruitless[resident]
        for resident in [resident for resident in self._before if resident.removed]:
            del self._before[resident]

    def _copy(
        self, busy: dict[Slot, dict[Resident, float]], loads: dict[Slot, float], rates: dict[Resident, float]
    ) -> None:
        """Copy the model that a worker with no time left is busiest with to one that has time: one at a time."""
        for slot in sorted(loads, key=lambda slot: -loads[slot]):
            if loads[slot] < HOT:
                return
            resident = max(busy[slot], key=lambda resident: busy[slot][resident])
            # One client alone asks one thing at a time.
            if resident.waiting < 2 or resident.removed or resident.own is not None or resident in self._fruitless:
                continue
            if any(loads.get(holder, 1.0) < HOT for holder in (resident.home, *resident.copies)):
                continue
            others = [other for other in loads if other.free and resident not in other.held]
            target = min(others, key=lambda other: loads[other], default=None)
            if target is None or loads[target] > COOL or not self._budget.has_room(resident.bytes):
                continue
            logger.info("is loaded into another worker: it keeps one busy", extra={"model": resident.name})
            self._before[resident] = rates.get(resident, 0.0)
            target.order(Job(resident, kind=Load))
            return

    async def make_room(self, count: int, seconds: float) -> None:
        """Let go of copies, those that were worth it longest ago first, until so many bytes fit or none is left.

        :param seconds: how long to wait for their memory.
        """
        missing = self._budget.used() + count - self._budget.limit
        done: list[asyncio.Future[None]] = []
        for resident in sorted(self.copied, key=lambda resident: self.copied[resident]):
            for slot in list(resident.copies):
                if missing <= 0:
                    break
                missing -= slot.held.get(resident, 0)
                done += self._let_go(resident, slot)
        if done:
            await asyncio.wait(done, timeout=seconds)

    def _let_go(self, resident: Resident, slot: Slot) -> list[asyncio.Future[None]]:
        """Let a worker unload a copy; return what to wait for until its memory is free."""
        if len(resident.copies) == 1 and resident not in resident.home.held:
            return []  # the only one there is, for now
        resident.copies.remove(slot)
        self._placement.move(slot.drop(resident))
        return [slot.release(resident)] if resident in slot.held else []

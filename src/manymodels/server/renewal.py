"""Replace workers that have grown beyond what their models account for, without a failed request."""

from __future__ import annotations

import logging

from .fleet import Fleet
from .recovery import Recovery
from .slot import Slot

logger = logging.getLogger(__name__)

#: Bytes a worker may have grown by beside its models: libraries imported late, what predictions keep.
SPARE = 96 << 20
#: Share of its models' memory that a worker may have grown by beside them.
SHARE = 0.5
#: Seconds a worker is kept at least: where it is no leak but what the models need, little is lost by replacing it.
REST = 60.0


class Renewal:
    """Starts a new process in the slot of one that leaks, and lets the old one finish."""

    def __init__(self, fleet: Fleet, recovery: Recovery) -> None:
        self._fleet = fleet
        self._recovery = recovery
        self._starting: set[Slot] = set()

    def review(self, now: float) -> None:
        """Replace workers that leak, and end those replaced that are done."""
        for slot in (*self._fleet.shared, *self._fleet.own, *self._fleet.environments.slots()):
            if slot.free and slot not in self._starting and now - slot.connected > REST and _leaks(slot):
                self._starting.add(slot)
                self._fleet.metrics.restarted("leak")
                self._fleet.run(self._renew(slot))
        for slot in self._fleet.retiring:
            if slot.idle:
                slot.close()

    async def _renew(self, slot: Slot) -> None:
        grown, taken = slot.private >> 20, slot.bytes >> 20
        logger.warning("%s is replaced: it has grown by %d MiB, its models by %d MiB", slot.name, grown, taken)
        try:
            process = await self._fleet.launch(slot)
            if process is None:
                return
            if not slot.free:  # it ended, or is held up, meanwhile
                process.close()
                return
            # Its models are loaded by the new process as they are asked for, and keep their room.
            self._recovery.lose(slot)
            old = slot.detach()
            self._fleet.retiring.append(old)
            if old.idle:
                old.close()
            await slot.connect(process)
        finally:
            self._starting.discard(slot)


def _leaks(slot: Slot) -> bool:
    return slot.private - slot.bytes > max(SPARE, SHARE * slot.bytes)

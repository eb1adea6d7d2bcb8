"""The memory that models take, of the memory they may take."""

from __future__ import annotations

from .fleet import Fleet
from .jobs import Resident
from .memory import check_room
from .slot import Slot


class Budget:
    """Counts bytes of what is loaded, of what is about to be, and of what is to come back."""

    def __init__(self, limit: int, fleet: Fleet) -> None:
        self.limit = limit
        self._fleet = fleet
        self._reserved = 0
        #: Models whose worker ended: they are loaded again when they are asked for, and keep their room.
        self._lost: set[Resident] = set()

    def used(self) -> int:
        """Return the bytes that models take, and those about to be loaded, again or for the first time."""
        held = sum(slot.bytes for slot in self._fleet.slots())
        return held + sum(resident.bytes for resident in self._lost) + self._reserved

    def has_room(self, count: int) -> bool:
        """Say whether that many more bytes fit."""
        return self.used() + count <= self.limit

    def reserve(self, name: str, count: int) -> None:
        """Set bytes aside for a load.

        :raises OutOfMemory: if they do not fit.
        """
        check_room(name, count, self.used(), self.limit)
        self._reserved += count

    def release(self, count: int) -> None:
        """Give back what was set aside: the load is done."""
        self._reserved -= count

    def lose(self, slot: Slot) -> None:
        """Keep the room of the models of a worker that ended."""
        for resident in slot.held:
            if slot in resident.copies:
                resident.copies.remove(slot)
                if resident.copies or resident in resident.home.held:
                    continue
            if not resident.removed:
                self._lost.add(resident)

    def settle(self, resident: Resident) -> None:
        """Take note that a lost model is back, or is not wanted any more."""
        self._lost.discard(resident)

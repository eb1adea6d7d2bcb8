"""The memory that models take, of the memory they may take."""

from __future__ import annotations

from collections.abc import Callable

from .memory import check_room


class Budget:
    """Counts bytes of what is loaded, and of what is about to be."""

    def __init__(self, limit: int, taken: Callable[[], int]) -> None:
        """Count for a model server.

        :param limit: bytes that models may take.
        :param taken: returns those that loaded models take, and those that are to come back.
        """
        self.limit = limit
        self._taken = taken
        self._reserved = 0

    def used(self) -> int:
        """Return the bytes that models take, and those about to be loaded, again or for the first time."""
        return self._taken() + self._reserved

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

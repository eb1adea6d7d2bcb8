"""The journal of evictions: which model left, why, and what it cost."""

from __future__ import annotations

import itertools
from collections import deque

import msgspec

#: Evictions that are remembered; beyond, the oldest are forgotten.
REMEMBERED = 10_000


class Eviction(msgspec.Struct, frozen=True, rename="camel"):
    """A model that left; an item of ``GET /evictions``."""

    #: Counts from 1 since the server started.
    number: int
    #: When it began to leave, in seconds since 1970.
    time: float
    model_name: str
    #: A key of `EVICTIONS`.
    reason: str
    #: What it took and what loading it again costs.
    bytes: int
    load_seconds: float
    #: Its invocations since it was loaded, and the seconds since the last ended, or since it was loaded.
    uses: int
    idle_seconds: float


class Journal:
    """The latest evictions."""

    def __init__(self) -> None:
        #: The newest first.
        self._evictions: deque[Eviction] = deque(maxlen=REMEMBERED)
        self._numbers = itertools.count(1)

    def add(
        self, *, time: float, model: str, reason: str, size: int, load_seconds: float, uses: int, idle: float
    ) -> Eviction:
        """Write an eviction down."""
        eviction = Eviction(next(self._numbers), time, model, reason, size, load_seconds, uses, idle)
        self._evictions.appendleft(eviction)
        return eviction

    def page(self, before: int | None, limit: int) -> list[Eviction]:
        """Return the newest evictions, of those with a number below `before` if it is given."""
        if before is None or not self._evictions:
            return list(itertools.islice(self._evictions, limit))
        skipped = max(self._evictions[0].number - before + 1, 0)
        return list(itertools.islice(self._evictions, skipped, skipped + limit))

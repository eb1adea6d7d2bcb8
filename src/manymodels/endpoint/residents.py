"""The loaded models of an endpoint: who is there, who leaves next, who left."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import LoadFailed, ManyModelsError
from ..metrics.record import EVICTIONS
from ..store import Found
from .eviction import POLICIES, Candidate, choose
from .journal import Eviction, Journal
from .trace import Recorder

logger = logging.getLogger(__name__)

#: Seconds that a client waits for a load beyond what the model itself takes; counts as cost of loading it again.
OVERHEAD = 0.003


class Newer(NamedTuple):
    """A version that is in the store and cannot be loaded, so that an older one is served on."""

    version: str
    error: ManyModelsError


class Resident(Candidate):
    """A loaded model."""

    __slots__ = (
        "found",
        "fresh_until",
        "idle",
        "last_used",
        "load_seconds",
        "newer",
        "path",
        "pinned",
        "replaced",
        "unsure",
        "uses",
    )

    def __init__(
        self, found: Found, path: Path, size: int, load_seconds: float, fresh_until: float, *, pinned: bool
    ) -> None:
        super().__init__(found.target_model, size, load_seconds + OVERHEAD)
        self.found = found
        #: Its files, to be released once it has left.
        self.path = path
        self.load_seconds = load_seconds
        #: When the store is to be asked again, by the monotonic clock; as is the next.
        self.fresh_until = fresh_until
        #: When its last invocation ended, or it was loaded.
        self.last_used = time.monotonic()
        self.uses = 0
        #: Whether it is never evicted for others.
        self.pinned = pinned
        #: Set when the last invocation ended, for who waits to unload it.
        self.idle: asyncio.Event | None = None
        #: Why the store could not be asked, when it last should have been, if this is still its version.
        self.unsure: LoadFailed | None = None
        #: What could not take its place.
        self.newer: Newer | None = None
        #: Whether another version has taken its place.
        self.replaced = False


class Residents:
    """All loaded models."""

    def __init__(self, policy: str, pins: Sequence[str], recorder: Recorder | None) -> None:
        """Begin with none.

        :param policy: a key of `POLICIES`.
        :param pins: names, or shell patterns of names, of models that are never evicted for others.
        """
        self._policy = POLICIES[policy]()
        self._pins = pins
        self._recorder = recorder
        self._journal = Journal()
        self._models: dict[str, Resident] = {}
        #: Looks a model up by its name.
        self.get = self._models.get

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def is_pinned(self, name: str) -> bool:
        """Say whether a model of that name is never evicted for others."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._pins)

    def add(self, found: Found, path: Path, size: int, load_seconds: float, fresh_until: float) -> Resident:
        """Take in a model that was loaded."""
        name = found.target_model
        resident = Resident(found, path, size, load_seconds, fresh_until, pinned=self.is_pinned(name))
        self._models[name] = resident
        if not resident.pinned:
            self._policy.add(resident)
        return resident

    def begin(self, resident: Resident) -> None:
        """Take note that an invocation begins."""
        resident.in_use += 1
        resident.uses += 1
        if resident.uses > 1:
            if not resident.pinned:
                self._policy.use(resident)
            if self._recorder is not None:
                self._recorder.invoked(resident.name)
        elif self._recorder is not None:  # that it was loaded for this one is known to the policy
            self._recorder.loaded(resident.name, resident.size, resident.load_seconds)

    def end(self, resident: Resident) -> bool:
        """Take note that an invocation ended; return whether it was the last of those that ran."""
        resident.in_use -= 1
        if resident.in_use:
            return False
        resident.last_used = time.monotonic()
        if resident.idle is not None:
            resident.idle.set()
        return True

    def remove(self, name: str, reason: str) -> Resident | None:
        """Take a model out and write it down; its invocations that run may go on.

        :param reason: a key of `EVICTIONS`.
        """
        resident = self._models.pop(name, None)
        if resident is None:
            return None
        if not resident.pinned:
            self._policy.remove(resident)
        left = self._journal.add(
            time=time.time(),
            model=name,
            reason=reason,
            size=resident.size,
            load_seconds=resident.load_seconds,
            uses=resident.uses,
            idle=0.0 if resident.in_use else time.monotonic() - resident.last_used,
        )
        logger.info(
            "unloaded %s",
            EVICTIONS[reason],
            extra={
                "model": name,
                "bytes": left.bytes,
                "load_ms": round(left.load_seconds * 1e3, 1),
                "uses": left.uses,
                "idle_s": round(left.idle_seconds, 1),
            },
        )
        return resident

    def outdated(self) -> int:
        """Return how many models are served in an older version than that of the store, which cannot be loaded."""
        return sum(resident.newer is not None for resident in self._models.values())

    def victims(self, room: int) -> tuple[list[str], bool]:
        """Return the models to evict for so many bytes, and whether that is enough."""
        chosen = choose(self._policy, room)
        return [model.name for model in chosen], sum(model.size for model in chosen) >= room

    def unused_since(self, moment: float) -> Iterator[str]:
        """Yield the models that were not in use since a moment of the monotonic clock, but for pinned ones."""
        for resident in list(self._models.values()):
            if not (resident.in_use or resident.pinned) and resident.last_used < moment:
                yield resident.name

    def evictions(self, before: int | None, limit: int) -> list[Eviction]:
        """Return the newest evictions, of those with a number below `before` if it is given."""
        return self._journal.page(before, limit)

"""What an endpoint does without being asked: load models at its start, unload those that nobody asks for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..errors import LoadFailed, ManyModelsError, SettingsError
from ..store import Store
from .residents import Residents
from .trace import hottest

logger = logging.getLogger(__name__)

#: Seconds that loads for requests may hold up the next load of the warm-up.
STAND_BACK = 1.0
#: Share of the memory up to which models are loaded before anybody asks for them.
FULL = 0.9
#: Looks for idle models in each time to live; and seconds between looks at most.
LOOKS = 10
LOOK_MOST = 10.0


class Loader(Protocol):
    """What loads and unloads for the warm-up."""

    def fullness(self) -> float:
        """Return the share of the memory that is taken."""

    async def stand_back(self, seconds: float) -> None:
        """Wait until no load is under way, or the time is up."""

    async def warm(self, name: str) -> None:
        """Load a model if it is not there."""

    async def retire(self, name: str) -> None:
        """Unload a model that nobody asks for."""


async def warm_up(
    loader: Loader, store: Store, residents: Residents, pins: tuple[str, ...], trace: Path | None
) -> None:
    """Load what is pinned, then what a trace asks for most as long as there is room; requests come first."""
    wanted = _wanted(store, residents, pins, trace)
    try:
        names = await asyncio.get_running_loop().run_in_executor(None, list, wanted)
    except LoadFailed as error:
        logger.error("nothing is loaded in advance: %s", error)
        return
    start = time.monotonic()
    count = 0
    for name in names:
        await loader.stand_back(STAND_BACK)
        if not residents.is_pinned(name) and loader.fullness() > FULL:
            break
        try:
            await loader.warm(name)
            count += 1
        except ManyModelsError as error:
            logger.warning("not loaded in advance: %s", error, extra={"model": name})
    if names:
        logger.info("loaded %d of %d models in advance, in %.1f s", count, len(names), time.monotonic() - start)


def _wanted(store: Store, residents: Residents, pins: tuple[str, ...], trace: Path | None) -> Iterator[str]:
    patterns = [pin for pin in pins if any(sign in pin for sign in "*?[")]
    names = dict.fromkeys(pin for pin in pins if pin not in patterns)
    if patterns:
        names.update((name, None) for name in store.list() if residents.is_pinned(name))
    if trace is not None:
        try:
            names.update((name, None) for name in hottest(trace))
        except SettingsError as error:  # it is damaged; what is pinned is loaded all the same
            logger.error("%s", error)
    yield from names


async def retire(loader: Loader, residents: Residents, idle_ttl: float) -> None:
    """Unload models that nobody asked for so many seconds."""
    while True:
        await asyncio.sleep(min(idle_ttl / LOOKS, LOOK_MOST))
        for name in residents.unused_since(time.monotonic() - idle_ttl):
            await loader.retire(name)

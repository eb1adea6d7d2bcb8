"""Room for models: load one, and evict others where there is none for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..errors import OutOfMemory
from ..server import ModelDescription
from .residents import Residents

logger = logging.getLogger(__name__)

#: Seconds a load waits for one of the loaded models to be out of use, or for its memory; and between looks.
ROOM_WAIT = 3.0
ROOM_POLL = 0.1


class Room:
    """Makes room for loads."""

    def __init__(self, residents: Residents, evict: Callable[[str], Awaitable[None]]) -> None:
        """Make room among `residents`.

        :param evict: unloads a model by its name; tells `late` where its memory is not free then.
        """
        self._residents = residents
        self._evict = evict
        #: Until when, by the loop's clock, the memory of an unloaded model is waited for.
        self._late_until = 0.0
        #: Set when there may be room, or a model to evict, for a load that waits for it.
        self._changed = asyncio.Event()
        #: Held by the load that makes room.
        self._making = asyncio.Lock()
        #: When a model last left for a load, or a load was given room, by the loop's clock.
        self._made = 0.0

    def changed(self) -> None:
        """Take note that there may be room, or a model to evict: a load or an invocation has ended."""
        self._changed.set()

    def late(self) -> None:
        """Take note that the memory of an unloaded model is free only once its worker gets to it."""
        self._late_until = asyncio.get_running_loop().time() + ROOM_WAIT

    async def load(self, load: Callable[[], Coroutine[Any, Any, ModelDescription]]) -> ModelDescription:
        """Load a model, and evict others where there is no room for it.

        :param load: loads the model, or fails with `OutOfMemory` before anything else happens.
        :raises OutOfMemory: if it fits nowhere, or all loaded models are in use for long.
        """
        try:
            return await load()  # as a rule
        except OutOfMemory as error:
            if not error.eviction_helps:
                raise
            return await self._load(load, error)

    async def _load(
        self, load: Callable[[], Coroutine[Any, Any, ModelDescription]], full: OutOfMemory | None
    ) -> ModelDescription:
        evict = False
        loading: asyncio.Task[ModelDescription] | None = None
        try:
            while True:
                # One at a time, so that no two loads count on the same room; each looks again once it is its turn.
                began = asyncio.get_running_loop().time()
                evict = evict or not self._making.locked()
                async with self._making:
                    while full is not None:
                        if evict and not await self._evict_for(full, began):
                            raise full
                        evict = True
                        loading = asyncio.create_task(load())
                        await asyncio.sleep(0)  # what there is no room for has failed by then, as a rule
                        full = _without_room(loading)
                    self._late_until = 0.0
                    self._made = asyncio.get_running_loop().time()
                assert loading is not None
                await asyncio.wait([loading])
                if (full := _without_room(loading)) is None:
                    return loading.result()
        finally:
            if loading is not None:
                loading.cancel()

    async def _evict_for(self, error: OutOfMemory, began: float) -> bool:
        """Evict models for a load, or wait for memory that is free soon; False if there were none for a while."""
        loop = asyncio.get_running_loop()
        if loop.time() < (late_until := self._late_until):
            await asyncio.sleep(ROOM_POLL)
            return loop.time() < late_until
        # Others that were given room meanwhile are no reason to give up.
        until = max(began, self._made) + ROOM_WAIT
        while True:
            self._changed.clear()
            names, enough = self._residents.victims(max(error.missing, 1))
            if names and (enough or loop.time() >= until):
                await asyncio.gather(*(self._evict(name) for name in names))
                self._made = loop.time()
                return True
            try:
                await asyncio.wait_for(self._changed.wait(), max(until - loop.time(), 0))
            except asyncio.TimeoutError:
                if not names:
                    logger.warning("%s, and all loaded models are in use", error)
                    return False


def _without_room(loading: asyncio.Task[ModelDescription]) -> OutOfMemory | None:
    """Return why a load failed, if that is a lack of room which others can make; None also while it goes on."""
    if not loading.done() or loading.cancelled():
        return None
    error = loading.exception()
    return error if isinstance(error, OutOfMemory) and error.eviction_helps else None

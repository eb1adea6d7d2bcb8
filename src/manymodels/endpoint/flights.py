"""Looks at the store under way, one for each model; all who ask for the model meanwhile wait for that one."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import ManyModelsError, ModelNotReady
from ..server.awaited import Asked
from .fetch import Timings


class Flight:
    """A look at the store, and the load that it may lead to."""

    def __init__(self, task: asyncio.Task[Timings]) -> None:
        self.task = task
        #: Invocations that wait for it.
        self.asked: list[Asked] = []
        #: When it began, by the monotonic clock.
        self.began = time.monotonic()
        #: Whether somebody waits for it, or did.
        self.wanted = False

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end, for so many seconds at most, and say whether it has come."""
        self.wanted = True
        await asyncio.wait([self.task], timeout=seconds)
        return self.task.done()

    def outcome(self) -> Timings:
        """Return what it took, once it has ended.

        :raises ManyModelsError: why it failed.
        """
        if self.task.cancelled():
            raise ModelNotReady("the server is stopping")
        error = self.task.exception()
        if isinstance(error, ManyModelsError):
            raise error.again()
        return self.task.result()


class Flights:
    """The flights under way."""

    def __init__(self, fly: Callable[[str], Coroutine[Any, Any, Timings]], landed: Callable[[], None]) -> None:
        """Begin with none.

        :param fly: brings a loaded model to the version in the store.
        :param landed: called when one has ended.
        """
        self._fly = fly
        self._on_landed = landed
        self._flights: dict[str, Flight] = {}
        #: Looks a flight up by its model's name.
        self.get = self._flights.get

    def join(self, target_model: str) -> Flight:
        """Return the flight for a model, which begins if there is none."""
        flight = self._flights.get(target_model)
        if flight is None or flight.task.done():
            task = asyncio.create_task(self._fly(target_model))
            flight = self._flights[target_model] = Flight(task)
            task.add_done_callback(functools.partial(self._landed, target_model))
        return flight

    def wanted(self, target_model: str) -> bool:
        """Say whether somebody waits for the flight of a model."""
        return self._flights[target_model].wanted

    def _landed(self, target_model: str, task: asyncio.Task[Timings]) -> None:
        if self._flights[target_model].task is task:  # else the next has begun before this was told
            del self._flights[target_model]
        if not task.cancelled():
            task.exception()  # whoever waited may be gone, and asyncio would log it as never retrieved
        self._on_landed()

    async def settle(self, prefix: str = "", seconds: float | None = None) -> None:
        """Wait until those have ended that are under way for models whose names begin so, or the time is up."""
        if tasks := [flight.task for name, flight in self._flights.items() if name.startswith(prefix)]:
            await asyncio.wait(tasks, timeout=seconds)

    def cancel(self) -> None:
        """End them all."""
        for flight in self._flights.values():
            flight.task.cancel()

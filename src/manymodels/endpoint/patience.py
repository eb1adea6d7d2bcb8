"""Loads that no request waits for: they are tried again while an environment is being built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import ModelNotReady
from ..settings import Settings

T = TypeVar("T")

#: Seconds between tries.
POLL = 0.5


def patience(settings: Settings) -> float:
    """Return the seconds for which such a load may go on."""
    return settings.load_timeout + (settings.environment_timeout if settings.environments == "build" else 0)


async def patiently(load: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Load a model, and try again for so many seconds while its environment is being built."""
    until = time.monotonic() + seconds
    while True:
        try:
            return await load()
        except ModelNotReady:
            if time.monotonic() + POLL > until:
                raise
        await asyncio.sleep(POLL)

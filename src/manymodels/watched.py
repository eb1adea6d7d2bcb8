"""A file of the operator's, which is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from .errors import ManyModelsError

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds between looks at the file.
LOOK = 1.0


class Watched(Generic[T]):
    """A file, and what it says as long as it is valid."""

    def __init__(self, path: Path, what: str, read: Callable[[], T], adopt: Callable[[T], None]) -> None:
        """Take note of the file as it is; the caller reads it next.

        :param what: what it has, for the log.
        :param read: returns what the file says; is called in a thread.
        :param adopt: puts that in force; is called in the event loop.
        """
        self._path = path
        self._what = what
        self._read = read
        self._adopt = adopt
        self._seen = _state(path)
        self._task: asyncio.Task[None] | None = None
        #: Why the file, as it is now, is not in force.
        self.fault = ""

    def start(self) -> None:
        """Begin to look whether the file changes."""
        self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK)
            state = await loop.run_in_executor(None, _state, self._path)
            if state == self._seen and not self.fault:
                continue
            try:
                changed = await loop.run_in_executor(None, self._read)
            except ManyModelsError as error:
                if str(error) != self.fault:
                    self.fault = str(error)
                    logger.error("%s stay as they were: %s", self._what, error)
                continue
            self._seen = state  # of before it was read, so that what was written meanwhile is noticed
            self._adopt(changed)
            self.fault = ""
            logger.info("%s are read anew from %s", self._what, self._path)


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what is different once the file is; None if it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev

"""Look at the store in threads: which version of an artifact there is, its files, and who serves it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..artifact import Artifact
from ..environments import Requirements, read
from ..errors import LoadFailed, ManyModelsError, NotListed, StoreUnavailable
from ..plugins import Binding, Plugins
from ..settings import Settings
from ..store import Found, Store
from .residents import Resident

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Times an artifact that is replaced while it is read is tried, before its client is told to ask again.
REPLACED = 3
#: Fetches, and looks at the store, at a time.
THREADS = 32
#: Artifacts looked at when the server starts, to learn which frameworks the store needs: how many
#: at most, how large at most (in bytes), and for how many seconds.
SAMPLE = 100
SAMPLE_SIZE = 16 << 20
SAMPLE_SECONDS = 2.0


class Files(NamedTuple):
    """What is loaded."""

    path: Path
    binding: Binding
    #: Bytes of all files.
    size: int
    #: Whether its manifest asks for a worker of its own.
    isolated: bool
    #: What has to be installed for it, if it says so.
    requirements: Requirements | None


@dataclass
class Opened:
    """What a look at the store found."""

    found: Found
    #: None where the version was known, or could not be opened.
    files: Files | None = None
    #: Why it could not be opened.
    error: LoadFailed | None = None


@dataclass
class Timings:
    """What a request that had to wait for its model waited for, in seconds."""

    fetch: float = 0.0
    load: float = 0.0


class Fetcher:
    """Fetches artifacts from a store."""

    def __init__(self, store: Store, plugins: Plugins, settings: Settings) -> None:
        self._store = store
        self._plugins = plugins
        self._settings = settings
        self._model_settings = settings.model_settings()
        # The loop's own pool is too small for many slow stores, and is the server's for other things.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    def close(self) -> None:
        """Begin no further look, and end those under way: the process would wait for their threads."""
        self._store.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self, target_model: str, known: Collection[str | None]) -> Opened:
        """Find an artifact, and open it if it is none of the known versions; what is opened has to be released.

        :raises ModelNotFound: if there is none of that name.
        :raises LoadFailed: if the store cannot be read.
        """
        return await self._in_thread(functools.partial(self._look, target_model, known))

    async def open(self, found: Found) -> Opened:
        """Open an artifact, which has to be released."""
        return await self._in_thread(functools.partial(self._open, found))

    async def forget(self, target_model: str) -> None:
        """Forget what the disk cache has of an artifact that has gone."""
        await self._in_thread(functools.partial(self._forget, target_model))

    def _forget(self, target_model: str) -> None:
        if (kept := self._store.kept(target_model)) is not None:
            self._store.forget(kept)

    def release(self, path: Path) -> None:
        """Take note that what was opened is not used any more."""
        with contextlib.suppress(RuntimeError):  # closed: all is released when the process ends
            self._threads.submit(self._store.cache.release, path)

    def check(self, resident: Resident) -> None:
        """Have the next request look again if a model that is served where it lies has changed while it was loaded."""
        if not self._store.cache.holds(resident.path):
            with contextlib.suppress(RuntimeError):  # closed: nothing more is asked
                self._threads.submit(self._check, resident)

    def _check(self, resident: Resident) -> None:
        with contextlib.suppress(ManyModelsError):
            if self._store.find(resident.name).version == resident.found.version:
                return
        resident.fresh_until = time.monotonic()

    async def frameworks(self) -> list[str] | None:
        """Return the plugins that a sample of the store needs; None, for all, where that says nothing."""
        try:
            return await self._in_thread(self._frameworks)
        except (NotListed, StoreUnavailable):
            return None

    def _frameworks(self) -> list[str] | None:
        names: set[str] = set()
        until = time.monotonic() + SAMPLE_SECONDS
        for target_model in itertools.islice(self._store.list(), SAMPLE):
            try:
                found = self._store.find(target_model)
                if found.size > SAMPLE_SIZE:
                    return None  # a framework imported in each worker instead takes more memory than all do here
                opened = self._open(found)
                if opened.error is not None:
                    raise opened.error
            except ManyModelsError as error:
                logger.warning("cannot be served: %s", error, extra={"model": target_model})
                continue
            assert opened.files is not None
            self._store.cache.release(opened.files.path)
            names.update(opened.files.binding.plugins)
            if time.monotonic() > until:
                break
        return sorted(names) or None

    def _look(self, target_model: str, known: Collection[str | None]) -> Opened:
        try:
            if not any(known) and (fetched := self._store.fetch(target_model)) is not None:
                return self._open(*fetched)
            found = self._store.find(target_model)
        except StoreUnavailable:
            kept = self._store.kept(target_model)
            if kept is None:
                raise
            found = kept  # what is on the local disk is served without the store
        return Opened(found) if found.version in known else self._open(found)

    def _open(self, found: Found, path: Path | None = None, tries: int = REPLACED) -> Opened:
        """Fetch the artifact's files, unless they are there, and bind its plugin.

        One that is replaced meanwhile is found again.
        """
        try:
            path = path or self._store.open(found)
            artifact = Artifact(path, found.target_model)
            binding = self._plugins.bind(artifact, self._model_settings)
            size = artifact.size if found.kind == "archive" else found.size
            needs = read(artifact, parse=self._settings.environments != "off")
            return Opened(found, Files(path, binding, size, artifact.manifest.isolated, needs))
        except StoreUnavailable as error:
            return Opened(found, error=error)
        except LoadFailed as error:
            if path is not None:
                self._store.cache.release(path)
            newer = self._store.find(found.target_model)
            if newer.version == found.version or tries == 1:
                return Opened(found, error=error)
        return self._open(newer, tries=tries - 1)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

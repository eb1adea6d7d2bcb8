"""Which environment a model is to have, and what becomes of it: it is built, used, or why it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import platform
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import platformdirs

from ..errors import LoadFailed, ManyModelsError, ModelNotReady, SettingsError
from ..plugins import Binding, Plugins
from ..settings import Settings
from . import own
from .build import Build, Environment, Failed, Lock, find_uv, python, record, remove
from .requirements import Requirements, met, parsed

logger = logging.getLogger(__name__)

#: Environments that are built at a time; each takes a processor and the network.
BUILDS = 2
#: Seconds for which a failed build is not tried again.
FORGET = 300.0
#: Failed builds remembered; beyond, the oldest are forgotten.
FAILURES = 1000
#: Lists of requirements of which it is remembered whether they are met, and what their environment is made from.
PLANS = 256

#: What a worker begins with; given the folder with our packages, and the names of plugins to leave out.
_CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from manymodels.plugins import Plugins
from manymodels.server import zygote
Plugins.installed(sys.argv[2].split(","))
"""


class Interpreter(NamedTuple):
    """What runs the models of an environment."""

    #: The environment's name.
    name: str
    executable: str
    #: The folder with the server's own packages, and no others.
    path: str
    #: The plugins there.
    plugins: tuple[str, ...]


class _Own(NamedTuple):
    """Packages of ours for an environment."""

    path: Path
    plugins: tuple[str, ...]
    requirements: tuple[str, ...]


class Environments:
    """The environments of a folder, for one process; several may share the folder."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        """Build nothing yet.

        :raises SettingsError: if environments are to be built and uv is not there, or their folder cannot be written.
        """
        self._settings = settings
        self._plugins = plugins
        self._folder = _folder_of(settings)
        self._own: dict[tuple[str, ...], _Own] = {}
        #: Those being built, and those that could not be.
        self._builds: OrderedDict[str, Build] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(BUILDS)
        #: Held for those in use, so that nobody removes them.
        self._used: dict[str, Lock] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if settings.environments == "off":
            return
        # Both look through all that is installed, which takes milliseconds, and loads wait for them.
        self._ours_by_name = own.names()
        self._met = functools.lru_cache(PLANS)(met)
        self._plan = functools.lru_cache(PLANS)(self._combine)
        if settings.environments == "build":
            find_uv()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the folder of environments {str(self._folder)!r} cannot be used ({error.strerror}); "
                "choose another with --cache-dir"
            ) from error

    async def close(self) -> None:
        """End what is being built, and let go of what is used."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for name, lock in self._used.items():
            self._touch(name)
            lock.close()
        self._used.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    # -- For models --

    def remarks(self, requirements: Requirements | None) -> tuple[str, ...]:
        """Return what is to be said of requirements that nobody looks at."""
        if requirements is None or self._settings.environments != "off":
            return ()
        return (f"{requirements.file} is not installed: environments is off",)

    def wanted(self, requirements: Requirements | None) -> bool:
        """Say whether an artifact is to have another environment than the server's own."""
        return requirements is not None and self._settings.environments != "off" and not self._met(requirements.lines)

    def get(self, model: str, requirements: Requirements | None, binding: Binding) -> Interpreter | None:
        """Return what runs a model; None: the server's own interpreter.

        :raises ModelNotReady: while its environment is being built.
        :raises LoadFailed: if that failed, or has to be done by the operator.
        """
        for other in self._builds.values():
            other.models.discard(model)  # what an earlier version of it asked for
        if requirements is None or not self.wanted(requirements):
            return None
        ours = self._ours(binding)
        name, wanted = self._plan(requirements.lines, ours)
        if self._use(name):
            folder = self._folder / name
            return Interpreter(name, python(folder), str(ours.path), ours.plugins)
        if self._settings.environments == "built":
            raise LoadFailed(
                f"{requirements.file} of {model!r} asks for an environment that is not built, and environments is "
                "'built': run manymodels environments build on its store"
            )
        build = self._builds.get(name)
        if build is None or (build.error is not None and time.monotonic() >= build.until):
            build = self._start(name, requirements.lines, wanted, ours)
        build.models.add(model)
        raise _state(model, build)

    def check(self, model: str) -> None:
        """Say how far the environment of a model is, or why it has none, if that is why the model is not loaded.

        :raises ModelNotReady: while it is being built.
        :raises LoadFailed: if that failed.
        """
        for build in self._builds.values():
            if model in build.models and (build.error is None or time.monotonic() < build.until):
                raise _state(model, build)

    async def build(self, model: str, requirements: Requirements | None, binding: Binding) -> Environment | None:
        """Build the environment of a model, unless it is there, and return it; None: it needs none of its own.

        :raises LoadFailed: if it cannot be built.
        """
        while True:
            try:
                interpreter = self.get(model, requirements, binding)
            except ModelNotReady:
                await asyncio.wait(self._tasks.values())
            else:
                return None if interpreter is None else record(self._folder / interpreter.name)

    # -- The folder --

    def list(self) -> list[tuple[Environment, float, bool]]:
        """Return all environments, each with when it was last used, in seconds since 1970, and whether it is now."""
        return sorted(self._list(), key=lambda item: item[1], reverse=True)

    def _list(self) -> Iterator[tuple[Environment, float, bool]]:
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if not folder.name.startswith(".") and (found := record(folder)) is not None:
                lock = Lock(folder.with_suffix(".lock"))
                yield found, folder.with_suffix(".lock").stat().st_mtime, not lock.take(alone=True)
                lock.close()

    def remove(self, name: str) -> bool:
        """Delete an environment; False if somebody uses it.

        :raises SettingsError: if it is another user's.
        """
        try:
            return remove(self._folder / name)
        except OSError as error:
            raise SettingsError(
                f"the environment {str(self._folder / name)!r} cannot be removed ({error.strerror}); "
                "remove it as the user that built it"
            ) from error

    # -- Within --

    def _use(self, name: str) -> bool:
        """Take an environment into use; False if it is not built."""
        if name in self._used:
            self._touch(name)
            return True
        path = self._folder / f"{name}.lock"
        if not path.exists():
            return False
        lock = Lock(path)
        if lock.take(alone=False) and record(self._folder / name) is not None:
            self._touch(name)
            self._used[name] = lock
            self._builds.pop(name, None)
            return True
        lock.close()
        return False

    def _touch(self, name: str) -> None:
        """Note that an environment is used now, which the lock alone says no longer than this process lives."""
        with contextlib.suppress(OSError):  # one that is only read, as in an image, is not removed for its age
            os.utime(self._folder / f"{name}.lock")

    def _start(self, name: str, asked: tuple[str, ...], wanted: tuple[str, ...], ours: _Own) -> Build:
        build = Build(self._folder / name, asked, wanted)
        self._builds[name] = build
        self._builds.move_to_end(name)
        for old in [old for old, other in self._builds.items() if other.error is not None][:-FAILURES]:
            del self._builds[old]
        task = asyncio.get_running_loop().create_task(self._run(name, build, ours))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name))
        return build

    async def _run(self, name: str, build: Build, ours: _Own) -> None:
        blocked = ",".join(self._settings.block_plugins)
        settings = self._settings
        try:
            async with self._turns:
                await build.run(
                    check=("-I", "-c", _CHECK, str(ours.path), blocked),
                    wheels=None if settings.environment_wheels is None else settings.environment_wheels.absolute(),
                    most=int(settings.environment_size),
                    timeout=settings.environment_timeout,
                )
        except (Failed, ManyModelsError) as error:
            build.fail(str(error), FORGET)
        except Exception as error:
            logger.exception("building an environment failed")
            build.fail(f"{type(error).__name__}: {error}; the log says more", FORGET)
        else:
            logger.info("the environment %s is built, in %.1f s", name, build.seconds)
            self._use(name)

    def _combine(self, lines: tuple[str, ...], ours: _Own) -> tuple[str, tuple[str, ...]]:
        """Return name and content of an environment; the server's own packages are there already."""
        theirs = [line for line in lines if parsed(line).name not in self._ours_by_name]
        wanted = (*theirs, *ours.requirements)
        return _digest(wanted), wanted

    def _ours(self, binding: Binding) -> _Own:
        """Return our packages for models of a binding: the plugins it names, and those that watch."""
        plugins = tuple(sorted({*binding.plugins, *self._plugins.watching}))
        if (ours := self._own.get(plugins)) is None:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="manymodels-own-")
            folder = Path(self._temporary.name, str(len(self._own)))
            folder.mkdir()
            found = own.distributions(plugins)
            own.link(found, folder)
            ours = self._own[plugins] = _Own(folder, plugins, tuple(own.requirements(found)))
        return ours


def _folder_of(settings: Settings) -> Path:
    """Return where environments are: in the cache folder, otherwise where the user's programs cache things."""
    return (settings.cache_dir or platformdirs.user_cache_path("manymodels")).absolute() / "environments"


def _digest(wanted: tuple[str, ...]) -> str:
    interpreter = (os.path.realpath(sys.executable), sys.version, platform.machine())
    return hashlib.sha256("\n".join((*interpreter, *wanted)).encode()).hexdigest()[:16]


def _state(model: str, build: Build) -> ManyModelsError:
    if build.error is not None:
        why = build.error.rstrip(".")
        return LoadFailed(
            f"the environment that {model!r} asks for cannot be built: {why}; change its requirements.txt"
        )
    return ModelNotReady(
        f"the environment of {model!r} is being built, for {build.seconds:.0f} s so far ({build.stage}); try again"
    )

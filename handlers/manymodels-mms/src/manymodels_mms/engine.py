"""The processes of multi-model-server: Java below a guard and, beside it, the zygote."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import mms
import msgspec
import psutil

from manymodels.errors import PluginError, SettingsError, WorkerDied
from manymodels.server.launcher import variables
from manymodels.server.warm import WarmProcess
from manymodels.settings import Settings

from . import config, memory
from .api import Api
from .java import find_java
from .log import JavaLog
from .messages import MESSAGE, Exited, Kill, Serves, Tries, ZygoteConfig, from_model_decoder, from_zygote_decoder
from .settings import MmsSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds the Java process may take to answer its first request.
START_TIMEOUT = 120.0
#: Longest path of its folder, in bytes: the kernel takes 107 for a socket in it.
_FOLDER = 80
_POLL = 0.02
_NOTICE = 0.5


class Engine:
    """One run of multi-model-server, in a temporary folder of its own, with no port."""

    def __init__(
        self,
        settings: Settings,
        mms_settings: MmsSettings,
        modules: tuple[str, ...],
        told: Callable[[Exited | Tries | Serves], None],
        named: Callable[[str], str | None],
    ) -> None:
        """Prepare to start it.

        :param modules: to import in advance.
        :param told: called with what the zygote and model processes have to say.
        :param named: returns the TargetModel behind such a name, for the log.
        """
        self._settings = settings
        self._mms_settings = mms_settings
        self._modules = modules
        self._warm = settings.start_method == "fork"
        self._told = told
        self._named = named
        #: None where model processes are multi-model-server's own.
        self.zygote: WarmProcess | None = None
        self.guard: asyncio.subprocess.Process | None = None
        #: Done when one of its processes ended, with how.
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start the processes.

        :raises SettingsError: if there is no Java, or no place for its sockets.
        :raises PluginError: if the frameworks cannot be imported.
        :raises WorkerDied: if Java does not start.
        """
        java = find_java()
        self.folder = _make_folder()
        self.store = self.folder / "models"
        self.store.mkdir()
        address = self.folder / "http.sock"
        self.api = Api(address)
        self._hear()
        properties = config.properties(self._settings, address, self.store)
        (self.folder / "mms.properties").write_text(properties, encoding="ascii")
        (self.folder / "log4j2.properties").write_text(config.logging(), encoding="ascii")
        package = Path(mms.__file__).parent
        home = self._make_home() if self._warm else package.parent
        command = config.command(java, self._mms_settings, self.folder, package / "frontend")
        environment = self._environment(home)
        try:
            await self._start_java(command, environment)
            answering = asyncio.ensure_future(self._answering())
            try:
                await self._start_zygote(environment)
            except PluginError:
                # The guard takes the folder with it, and so what the zygote listens at.
                await asyncio.wait({self.ended}, timeout=_NOTICE)
                if not self.ended.done():
                    answering.cancel()
                    raise
            await answering
        except BaseException:
            await self.stop()
            raise

    def _environment(self, home: Path) -> dict[str, str]:
        environment = variables(self._settings.threads)
        # multi-model-server would take its configuration from one of these.
        environment = {name: value for name, value in environment.items() if not name.startswith("MMS_")}
        return {**environment, "MODEL_SERVER_HOME": str(home), "TMPDIR": str(self.folder)}

    def _make_home(self) -> Path:
        """Make the MODEL_SERVER_HOME whose model processes are forks of the zygote."""
        home = self.folder / "home"
        (home / "mms").mkdir(parents=True)
        source = resources.files("manymodels_mms").joinpath("launcher.py")
        (home / "mms" / "model_service_worker.py").write_bytes(source.read_bytes())
        return home

    async def _start_java(self, command: list[str], environment: dict[str, str]) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        try:
            self.guard = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "manymodels_mms.guard", str(self.folder), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=write,
                stderr=write,
                env=environment,
                start_new_session=True,  # Ctrl-C is the front's to handle
            )
        finally:
            os.close(write)
        await JavaLog.attach_java(read, self.guard.pid, self._named)
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        assert self.guard is not None
        code = await self.guard.wait()
        self._end(f"multi-model-server ended with code {code}; its log says why")

    async def _start_zygote(self, environment: dict[str, str]) -> None:
        if not self._warm:
            return
        zygote_config = ZygoteConfig(
            socket=str(self.folder / "zygote.sock"),
            modules=self._modules,
            blocked=tuple(self._settings.block_plugins),
        )
        # What multi-model-server tells its own model processes by the environment.
        environment = {**environment, "MMS_DECODE_INPUT_REQUEST": "false"}
        self.zygote = WarmProcess("manymodels_mms.zygote", from_zygote_decoder, self._received)
        await self.zygote.start(zygote_config, environment)
        self.zygote.ended.add_done_callback(lambda ended: self._end(ended.result()))

    def _received(self, message: Exited) -> None:
        self._read_news()  # what it said before it ended
        self._told(message)

    def _hear(self) -> None:
        """Take what model processes say unasked."""
        self.news = self.folder / "news.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self.news))
        asyncio.get_running_loop().add_reader(self._socket, self._read_news)

    def _read_news(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._socket.recv(MESSAGE)
                try:
                    self._told(from_model_decoder.decode(data))
                except msgspec.DecodeError as error:
                    logger.error("a model process said what cannot be read: %s", error)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def _answering(self) -> None:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while not await self.api.ping():
            if self.ended.done():
                raise WorkerDied(self.ended.result())
            if asyncio.get_running_loop().time() > deadline:
                raise WorkerDied(f"multi-model-server did not start within {START_TIMEOUT:g} s")
            await asyncio.sleep(_POLL)

    # -- The processes of a model --

    async def taken(self, name: str, pids: Sequence[int]) -> int:
        """Return the bytes a model takes; `pids` are the processes that loaded it."""
        if self.zygote is not None:
            return await _in_thread(lambda: memory.of_forks(memory.forks(pids)))
        return await _in_thread(lambda: memory.of_others(self._below(name)))

    async def kill(self, name: str) -> None:
        """End the processes of a model that run its code.

        Not the one that multi-model-server started itself: see `manymodels_mms.launcher`.
        """
        if self.zygote is not None:
            self._kill(name)
        else:
            await _in_thread(lambda: memory.end(memory.forked(self._below(name)), 0))

    async def end(self, name: str, exited: asyncio.Future[int | None], *, grace: float) -> None:
        """Wait until the processes of a model have ended, and end them after some seconds."""
        if self.zygote is None:
            await _in_thread(lambda: memory.end(self._below(name), grace))
            return
        await asyncio.wait({exited}, timeout=grace)
        if not exited.done():
            self._kill(name, last=True)
            ends: set[asyncio.Future[Any]] = {exited, self.zygote.ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    def _kill(self, name: str, *, last: bool = False) -> None:
        assert self.zygote is not None
        with contextlib.suppress(OSError):  # it is gone, and the models with it
            self.zygote.send(Kill(name, last))

    def _below(self, name: str) -> list[psutil.Process]:
        assert self.guard is not None
        return memory.below(self.guard.pid, name)

    async def stop(self) -> None:
        """End all processes, and remove the folder."""
        await self.api.close()
        if self.zygote is not None:
            await self.zygote.kill()
        if self.guard is not None:
            assert self.guard.stdin is not None
            self.guard.stdin.close()
            await self._watching
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def _in_thread(call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, call)


def _make_folder() -> Path:
    """Make the folder.

    :raises SettingsError: if the sockets in it would have paths too long for the kernel.
    """
    folder = Path(tempfile.mkdtemp(prefix="manymodels-mms-")).resolve()
    if len(os.fsencode(folder)) > _FOLDER:
        folder.rmdir()
        raise SettingsError(
            f"{str(folder)!r} is too long a path for sockets; set TMPDIR to a shorter one, such as /tmp"
        )
    return folder

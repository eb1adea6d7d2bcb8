"""Start worker processes: forks of a warm zygote, or fresh interpreters where fork is not safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ..environments import Interpreter
from ..errors import WorkerDied
from .memory import private
from .warm import WarmProcess
from .worker import WorkerConfig
from .zygote import Exited, Fork, Forked, Kill, ZygoteConfig, from_zygote_decoder

logger = logging.getLogger(__name__)

#: Seconds a fork may take to be answered.
FORK_TIMEOUT = 30.0


@dataclass
class Process:
    """A worker process that was started."""

    pid: int
    connection: socket.socket
    #: File descriptor its standard output and error can be read from.
    log: int
    #: Done when it ended: the exit code, or the negative number of the signal.
    exited: asyncio.Future[int]

    def close(self) -> None:
        """Let go of a process that is not needed, which ends it."""
        self.connection.close()
        os.close(self.log)


class Launcher(Protocol):
    """Starts and ends worker processes."""

    async def start(self) -> None:
        """Get ready to launch."""

    async def launch(self) -> Process:
        """Start a worker.

        :raises WorkerDied: if it cannot be started.
        """

    def kill(self, process: Process) -> None:
        """End a worker at once."""

    def memory(self) -> int:
        """Return the bytes that are there before the first worker, and for all of them."""

    async def stop(self) -> None:
        """End everything that was started."""


def variables(threads: int, path: str | None = None) -> dict[str, str]:
    """Return the environment variables of workers.

    Each predicts on as many threads as it is told, instead of one for each processor in each
    library; and the zygote must not have any beside its own.

    :param path: where the server's own packages are for an interpreter that does not have them.
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    found = {**os.environ, **dict.fromkeys(names, count), "PYTHONUNBUFFERED": "1"}
    # pyarrow, which pandas imports where it is installed, starts a thread for its allocator otherwise.
    found.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    if path is not None:
        found["PYTHONPATH"] = path  # and nothing else of what the server's own interpreter is to see
        found.pop("PYTHONHOME", None)
    return found


def _channel() -> tuple[socket.socket, socket.socket, int, int]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    read, write = os.pipe()
    os.set_blocking(read, False)
    return ours, theirs, read, write


class SpawnLauncher:
    """Starts every worker as a fresh interpreter."""

    def __init__(self, config: WorkerConfig, interpreter: Interpreter | None = None) -> None:
        self._config = config
        self._executable, self._path = _of(interpreter)
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        """Nothing to prepare."""

    async def launch(self) -> Process:
        """Start a worker."""
        ours, theirs, read, write = _channel()
        argv = ["-m", "manymodels.server.worker", str(theirs.fileno()), str(write)]
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    self._executable,
                    *argv,
                    msgspec.json.encode(self._config).decode(),
                    str(os.getpid()),
                    pass_fds=(theirs.fileno(), write),
                    env=variables(self._config.settings.threads, self._path),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                os.close(read)
                raise WorkerDied(f"a worker cannot be started: {error}") from error
            finally:
                os.close(write)
        self._processes[process.pid] = process
        return Process(process.pid, ours, read, asyncio.ensure_future(self._wait(process)))

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        code = await process.wait()
        del self._processes[process.pid]
        return code

    def kill(self, process: Process) -> None:
        """End a worker at once."""
        if process.pid in self._processes:
            # Not Process.kill(): that polls the child first, and takes its exit code from who waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def memory(self) -> int:
        """Return 0: nothing is shared."""
        return 0

    async def stop(self) -> None:
        """End all workers."""
        processes = list(self._processes.values())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            await process.wait()


class ZygoteLauncher:
    """Starts workers as forks of a zygote, and the zygote again when it ends."""

    def __init__(self, config: WorkerConfig, interpreter: Interpreter | None = None) -> None:
        self._config = ZygoteConfig(worker=config)
        self._executable, self._path = _of(interpreter)
        #: None before the first, and after one has ended.
        self._zygote: WarmProcess | None = None
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._workers: dict[int, asyncio.Future[int]] = {}
        self._next = 0
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the zygote and wait until its imports are done.

        :raises PluginError: if it ends or hangs instead.
        """
        async with self._starting:
            if self._zygote is None:
                self._zygote = WarmProcess("manymodels.server.zygote", from_zygote_decoder, self._received)
                self._zygote.ended.add_done_callback(self._lost)
                told = variables(self._config.worker.settings.threads, self._path)
                left_out = await self._zygote.start(self._config, told, self._executable)
                # Spares the next zygote the restart.
                self._config = msgspec.structs.replace(self._config, left_out=left_out)

    def _received(self, message: Forked | Exited) -> None:
        if isinstance(message, Exited):
            exited = self._workers.pop(message.pid, None)
            if exited is not None:
                exited.set_result(message.code)
            return
        fork = self._forks.pop(message.id, None)
        if message.pid:
            self._workers[message.pid] = asyncio.get_running_loop().create_future()
        if fork is not None and not fork.done():
            if message.pid:
                fork.set_result(message.pid)
            else:
                fork.set_exception(WorkerDied(f"a worker cannot be forked: {message.error}"))

    def _lost(self, ended: asyncio.Future[str]) -> None:
        """Note that the zygote ended; its workers end with it."""
        self._zygote = None
        for fork in self._forks.values():
            if not fork.done():
                fork.set_exception(WorkerDied(ended.result()))
        self._forks.clear()
        for exited in self._workers.values():
            exited.set_result(-9)
        self._workers.clear()

    async def launch(self) -> Process:
        """Fork a worker."""
        await self.start()
        if self._zygote is None:
            raise WorkerDied("a worker cannot be forked: the process it would be a fork of has ended")
        ours, theirs, read, write = _channel()
        self._next += 1
        self._forks[self._next] = fork = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                self._zygote.send(Fork(self._next), [theirs.fileno(), write])
            pid = await asyncio.wait_for(fork, FORK_TIMEOUT)
        except BaseException as error:
            ours.close()
            os.close(read)
            if isinstance(error, (OSError, asyncio.TimeoutError)):
                raise WorkerDied(f"a worker cannot be forked: {str(error) or 'no answer'}") from error
            raise
        finally:
            os.close(write)
        exited = self._workers.get(pid)
        if exited is None:  # it ended between the two messages
            exited = asyncio.get_running_loop().create_future()
            exited.set_result(-9)
        return Process(pid, ours, read, exited)

    def kill(self, process: Process) -> None:
        """End a worker at once."""
        if self._zygote is not None and process.pid in self._workers:
            with contextlib.suppress(OSError):  # the zygote is gone, and its workers with it
                self._zygote.send(Kill(process.pid))

    def memory(self) -> int:
        """Return the bytes of the zygote."""
        return 0 if self._zygote is None else private(self._zygote.process.pid)

    async def stop(self) -> None:
        """End the zygote, and with it all workers."""
        if self._zygote is not None:
            await self._zygote.stop()


def describe_exit(code: int | None) -> str:
    """Say how a process ended; None: it is not known."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def create_launcher(start_method: str, config: WorkerConfig, interpreter: Interpreter | None = None) -> Launcher:
    """Return the launcher for a start method, ``fork`` or ``spawn``.

    :param interpreter: what workers run on; None: what this process runs on.
    """
    return ZygoteLauncher(config, interpreter) if start_method == "fork" else SpawnLauncher(config, interpreter)


def _of(interpreter: Interpreter | None) -> tuple[str, str | None]:
    return (sys.executable, None) if interpreter is None else (interpreter.executable, interpreter.path)

"""Start worker processes: forks of a warm zygote, or fresh interpreters where fork is not safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ..errors import PluginError, WorkerDied
from .worker import WorkerConfig
from .zygote import MESSAGE, Fork, Forked, Kill, Ready, ZygoteConfig, encode, from_zygote_decoder

logger = logging.getLogger(__name__)

#: Seconds a zygote may take to import what it is told, and a fork to be answered.
START_TIMEOUT = 300.0
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

    async def stop(self) -> None:
        """End everything that was started."""


def environment(threads: int) -> dict[str, str]:
    """Return the environment of workers.

    Each predicts on as many threads as it is told, instead of one for each processor in each
    library; and the zygote must not have any beside its own.
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    variables = {**os.environ, **dict.fromkeys(names, count), "PYTHONUNBUFFERED": "1"}
    # pyarrow, which pandas imports where it is installed, starts a thread for its allocator otherwise.
    variables.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    return variables


def _channel() -> tuple[socket.socket, socket.socket, int, int]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    read, write = os.pipe()
    os.set_blocking(read, False)
    return ours, theirs, read, write


class SpawnLauncher:
    """Starts every worker as a fresh interpreter."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
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
                    sys.executable,
                    *argv,
                    msgspec.json.encode(self._config).decode(),
                    str(os.getpid()),
                    pass_fds=(theirs.fileno(), write),
                    env=environment(self._config.settings.threads),
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

    def __init__(self, config: WorkerConfig) -> None:
        self._config = ZygoteConfig(worker=config)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._workers: dict[int, asyncio.Future[int]] = {}
        self._next = 0
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the zygote and wait until its imports are done.

        :raises PluginError: if it ends or hangs instead.
        """
        async with self._starting:
            if self._control is None:
                await self._start()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        config = msgspec.json.encode(self._config).decode()
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork and exec, milliseconds, at start only
                [sys.executable, "-m", "manymodels.server.zygote", str(theirs.fileno()), config, str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                env=environment(self._config.worker.settings.threads),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the front's to handle
            )
        self._control = ours
        self._ready = loop.create_future()
        loop.add_reader(ours, self._read)
        try:
            await asyncio.wait([self._ready], timeout=START_TIMEOUT)
            if self._ready.done():
                return self._ready.result()
        finally:
            self._ready.cancel()  # from here on nobody waits for it
        self._process.kill()
        raise PluginError(f"importing the plugins' frameworks took longer than {START_TIMEOUT:.0f} s")

    def _read(self) -> None:
        assert self._control is not None
        assert self._ready is not None
        try:
            data = self._control.recv(MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        message = from_zygote_decoder.decode(data)
        if isinstance(message, Ready):
            # Spares the next zygote the restart.
            self._config = msgspec.structs.replace(self._config, left_out=message.left_out)
            for module, reason in message.left_out.items():
                logger.info("%s is not imported in advance: it %s", module, reason)
            if not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(message, Forked):
            fork = self._forks.pop(message.id, None)
            if message.pid:
                self._workers[message.pid] = asyncio.get_running_loop().create_future()
            if fork is not None and not fork.done():
                if message.pid:
                    fork.set_result(message.pid)
                else:
                    fork.set_exception(WorkerDied(f"a worker cannot be forked: {message.error}"))
        else:
            exited = self._workers.pop(message.pid, None)
            if exited is not None:
                exited.set_result(message.code)

    def _lost(self) -> None:
        """Note that the zygote ended; its workers end with it."""
        assert self._control is not None
        assert self._ready is not None
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        code = self._process.wait()
        reason = f"the process that workers are forked from ended with code {code}"
        if not self._ready.done():
            self._ready.set_exception(PluginError(f"{reason} before it was ready; its error stream says why"))
        for fork in self._forks.values():
            if not fork.done():
                fork.set_exception(WorkerDied(reason))
        self._forks.clear()
        for exited in self._workers.values():
            exited.set_result(-9)
        self._workers.clear()

    async def launch(self) -> Process:
        """Fork a worker."""
        await self.start()
        if self._control is None:
            raise WorkerDied("a worker cannot be forked: the process it would be a fork of has ended")
        ours, theirs, read, write = _channel()
        self._next += 1
        self._forks[self._next] = fork = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                socket.send_fds(self._control, [encode(Fork(self._next))], [theirs.fileno(), write])
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
        if self._control is not None and process.pid in self._workers:
            with contextlib.suppress(OSError):  # the zygote is gone, and its workers with it
                self._control.send(encode(Kill(process.pid)))

    async def stop(self) -> None:
        """End the zygote, and with it all workers."""
        if self._control is None or self._process is None:
            return
        self._control.shutdown(socket.SHUT_WR)
        await asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        if self._control is not None:  # which has not been seen to close yet
            self._lost()


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


def create_launcher(start_method: str, config: WorkerConfig) -> Launcher:
    """Return the launcher for a start method, ``fork`` or ``spawn``."""
    return ZygoteLauncher(config) if start_method == "fork" else SpawnLauncher(config)

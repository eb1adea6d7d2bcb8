"""The process all workers are forks of: it has imported the frameworks, and never predicts.

It is single-threaded, since a fork copies only the thread that forks: locks held by others would
stay locked for ever. A module that starts threads at import is therefore found out, and left to
be imported in each worker after the fork.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from ..plugins import Plugins
from . import heap
from .worker import WorkerConfig, run, set_up_process

logger = logging.getLogger(__name__)


class Fork(msgspec.Struct, tag="fork", array_like=True):
    """Front to zygote: fork a worker; its connection and its log travel with the message."""

    id: int


class Kill(msgspec.Struct, tag="kill", array_like=True):
    """Front to zygote: end a worker. The zygote is its parent, so the pid cannot be another's."""

    pid: int


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """Zygote to front: imports are done."""

    #: Modules left to be imported after the fork, with the reason.
    left_out: dict[str, str]


class Forked(msgspec.Struct, tag="forked", array_like=True):
    """Zygote to front: the answer to `Fork`."""

    id: int
    #: 0 if the fork failed.
    pid: int
    error: str = ""


class Exited(msgspec.Struct, tag="exited", array_like=True):
    """Zygote to front: a worker ended."""

    pid: int
    #: Exit code, or the negative number of the signal that ended it.
    code: int


ToZygote = Fork | Kill
FromZygote = Ready | Forked | Exited

encode = msgspec.msgpack.Encoder().encode
to_zygote_decoder: msgspec.msgpack.Decoder[ToZygote] = msgspec.msgpack.Decoder(ToZygote)
from_zygote_decoder: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)

#: Longest control message, in bytes.
MESSAGE = 1 << 16


class ZygoteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the zygote is started with."""

    worker: WorkerConfig
    #: Modules found to start threads, with the reason; grows over restarts of the zygote.
    left_out: dict[str, str] = {}


_THREADS = "starts threads when imported"
#: Each costs all the imports before it again, and often it is one and the same module below them.
_MOST_RESTARTS = 3


def threads() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1


def import_all(modules: Sequence[str], left_out: dict[str, str], restart: Callable[[dict[str, str]], NoReturn]) -> None:
    """Import modules, and add those that cannot be to `left_out`, each with the reason.

    :param restart: starts over in this process without what is left out: threads cannot be taken back.
    """
    for module in modules:
        if module in left_out:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a broken framework must not stop the models of the others
            left_out[module] = f"cannot be imported: {type(error).__name__}: {error}"
        if threads() > 1:
            left_out[module] = _THREADS
            if list(left_out.values()).count(_THREADS) >= _MOST_RESTARTS:
                rest = modules[modules.index(module) + 1 :]
                left_out |= dict.fromkeys(rest, "comes after too many modules that start threads")
            restart(left_out)


def fork(child: Callable[[], None]) -> int:
    """Fork a process that runs `child` and ends; return its pid.

    :raises OSError: if this process has other threads, or cannot be forked.
    """
    if (count := threads()) != 1:
        raise OSError(
            f"forking with {count} threads is not safe; a plugin starts them when it is imported: "
            "mend or block it, or use --start-method spawn"
        )
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        set_up_process(parent)
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed()  # every fork would draw the same numbers otherwise
        child()
        code = 0
    except BaseException:
        logger.exception("a forked process ended")
    finally:
        # Not sys.exit: the stack above is the zygote's.
        os._exit(code)


class Zygote:
    """Forks workers on request until the front closes the control connection."""

    def __init__(self, control: socket.socket, plugins: Plugins, config: WorkerConfig) -> None:
        self._control = control
        self._plugins = plugins
        self._config = config
        self._children: set[int] = set()

    def serve(self) -> None:
        """Answer the front's messages and report workers that ended."""
        wake, poke = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(poke, False)
        self._pipes = (wake, poke)
        signal.set_wakeup_fd(poke)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._control.fileno(), wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._answer():
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _answer(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, MESSAGE, 2)
        if not data:
            return False
        message = to_zygote_decoder.decode(data)
        if isinstance(message, Kill):
            if message.pid in self._children:
                os.kill(message.pid, signal.SIGKILL)
            return True
        connection, log = fds
        try:
            pid = self._fork(connection, log)
        except OSError as error:
            self._control.send(encode(Forked(message.id, 0, str(error))))
        else:
            self._children.add(pid)
            self._control.send(encode(Forked(message.id, pid)))
        os.close(connection)
        os.close(log)
        return True

    def _fork(self, connection: int, log: int) -> int:
        def child() -> None:
            self._control.close()
            for fd in self._pipes:
                os.close(fd)
            with socket.socket(fileno=connection) as link:
                run(link, log, self._plugins, self._config)

        return fork(child)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)
            self._control.send(encode(Exited(pid, os.waitstatus_to_exitcode(status))))


def main(argv: list[str]) -> None:
    """Run the zygote: ``python -m manymodels.server.zygote CONTROL CONFIG PARENT``."""
    set_up_process(int(argv[2]))
    config = msgspec.json.decode(argv[1], type=ZygoteConfig)
    plugins = Plugins.installed(config.worker.blocked)

    def restart(left_out: dict[str, str]) -> NoReturn:
        again = msgspec.json.encode(msgspec.structs.replace(config, left_out=left_out)).decode()
        os.execv(sys.executable, [sys.executable, "-m", "manymodels.server.zygote", argv[0], again, argv[2]])  # noqa: S606

    left_out = dict(config.left_out)
    import_all(config.worker.modules, left_out, restart)
    gc.collect()
    gc.freeze()  # so that a worker's collector does not write to, and so copy, what it shares
    heap.fill()
    with socket.socket(fileno=int(argv[0])) as control:
        control.send(encode(Ready(left_out)))
        Zygote(control, plugins, config.worker).serve()


# Also true under `python -m`, where this module would otherwise exist twice.
if __name__ == "__main__":
    from manymodels.server import zygote

    zygote.main(sys.argv[1:])

"""The process all model processes are forks of: it has imported the frameworks, and never predicts.

Single-threaded for the reason given in `manymodels.server.zygote`. Launchers, which multi-model-server
takes for model processes, connect to its socket; the front tells it whom to end.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from manymodels.server.worker import set_up_process
from manymodels.server.zygote import Ready, fork, import_all

from . import service, worker
from .messages import MESSAGE, Exited, ZygoteConfig, encode, kill_decoder

logger = logging.getLogger(__name__)

#: Seconds a model process has to end by itself once its launcher is gone.
GRACE = 2.0


@dataclass
class _Child:
    """A model process, and the connection of its launcher."""

    pid: int
    model: str
    launcher: socket.socket
    #: When it is to be ended; set once its launcher is gone.
    deadline: float | None = None
    ended: bool = False


class Zygote:
    """Forks model processes for launchers until the front closes the control connection."""

    def __init__(self, control: socket.socket, listener: socket.socket) -> None:
        self._control = control
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        #: By the launcher's connection; None until it has said what it wants.
        self._children: dict[socket.socket, _Child | None] = {}

    def serve(self) -> None:
        """Answer launchers and the front, and tell both of model processes that ended."""
        wake, poke = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(poke, False)
        signal.set_wakeup_fd(poke)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._pipes = (wake, poke)
        for source in (self._control, self._listener, wake):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._timeout()):
                if key.fileobj == wake:
                    os.read(wake, 4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._control:
                    if not self._obey():
                        return
                else:
                    self._answer(key.fileobj)  # type: ignore[arg-type]
            self._reap()
            self._end_overdue()

    def _alive(self) -> list[_Child]:
        return [child for child in self._children.values() if child is not None and not child.ended]

    def _timeout(self) -> float | None:
        deadlines = [child.deadline for child in self._alive() if child.deadline is not None]
        return max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None

    def _accept(self) -> None:
        launcher, _ = self._listener.accept()
        launcher.setblocking(False)
        self._children[launcher] = None
        self._selector.register(launcher, selectors.EVENT_READ)

    def _obey(self) -> bool:
        data = self._control.recv(MESSAGE)
        if not data:
            return False
        message = kill_decoder.decode(data)
        children = [child for child in self._alive() if child.model == message.model]
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        if message.last and not children:
            self._control.send(encode(Exited(message.model, None)))
        return True

    def _answer(self, launcher: socket.socket) -> None:
        """Fork for a launcher that sent its arguments; let go of one that is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(launcher, MESSAGE, 2)
        except ConnectionResetError:
            data, fds = b"", []
        child = self._children[launcher]
        if child is not None:  # it says no more: it is gone
            self._selector.unregister(launcher)
            child.deadline = time.monotonic() + GRACE
            if child.ended:
                self._forget(launcher)
            return
        if len(fds) == 2:
            argv = data.decode().split("\0")
            try:
                pid = self._fork(argv, fds)
            except OSError:
                logger.exception("a model process cannot be forked")
            else:
                self._children[launcher] = _Child(pid, argv[argv.index("--model-name") + 1], launcher)
        for fd in fds:
            os.close(fd)
        if self._children[launcher] is None:
            self._selector.unregister(launcher)
            self._forget(launcher)

    def _forget(self, launcher: socket.socket) -> None:
        del self._children[launcher]
        launcher.close()

    def _fork(self, argv: list[str], fds: list[int]) -> int:
        def child() -> None:
            self._close()
            for number, fd in enumerate(fds, 1):
                os.dup2(fd, number)
                os.close(fd)
            worker.run(argv)

        return fork(child)

    def _close(self) -> None:
        """Close, in a fork, what is the zygote's: a launcher's connection must not outlive the launcher here."""
        self._selector.close()
        for connection in (self._control, self._listener, *self._children):
            connection.close()
        for fd in self._pipes:
            os.close(fd)

    def _reap(self) -> None:
        while alive := {child.pid: child for child in self._alive()}:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            child = alive[pid]
            child.ended = True
            self._control.send(encode(Exited(child.model, os.waitstatus_to_exitcode(status))))
            if child.deadline is not None:
                self._forget(child.launcher)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for child in self._alive():
            if child.deadline is not None and child.deadline <= now:
                os.kill(child.pid, signal.SIGKILL)
                child.deadline = now + GRACE


def main(argv: list[str]) -> None:
    """Run the zygote: ``python -m manymodels_mms.zygote CONTROL CONFIG PARENT``."""
    set_up_process(int(argv[2]))
    config = msgspec.json.decode(argv[1], type=ZygoteConfig)

    def restart(left_out: dict[str, str]) -> NoReturn:
        again = msgspec.json.encode(msgspec.structs.replace(config, left_out=left_out)).decode()
        os.execv(sys.executable, [sys.executable, "-m", "manymodels_mms.zygote", argv[0], again, argv[2]])  # noqa: S606

    left_out = dict(config.left_out)
    import_all(config.modules, left_out, restart)
    service.installed(config.blocked)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(config.socket)
        listener.listen(1024)
        gc.collect()
        gc.freeze()  # so that a fork's collector does not write to, and so copy, what it shares
        with socket.socket(fileno=int(argv[0])) as control:
            control.send(encode(Ready(left_out)))
            Zygote(control, listener).serve()


# Also true under `python -m`, where this module would otherwise exist twice.
if __name__ == "__main__":
    from manymodels_mms import zygote

    zygote.main(sys.argv[1:])

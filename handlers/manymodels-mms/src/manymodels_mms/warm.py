"""The front's side of the zygote: start it, end model processes, learn which ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

import msgspec

from manymodels.errors import PluginError
from manymodels.server.launcher import START_TIMEOUT

from .messages import MESSAGE, Exited, Kill, ZygoteConfig, encode, from_zygote_decoder

logger = logging.getLogger(__name__)


class Zygote:
    """The zygote's process."""

    def __init__(
        self, config: ZygoteConfig, environment: Mapping[str, str], exited: Callable[[str, int], None]
    ) -> None:
        """Prepare to start it.

        :param exited: called with the model and the exit code of each model process that ended.
        """
        self._config = config
        self._environment = environment
        self._exited = exited
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        #: Done when it ended, with how.
        self.ended: asyncio.Future[str] = loop.create_future()

    async def start(self) -> None:
        """Start it and wait until its imports are done.

        :raises PluginError: if it ends or hangs instead.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        config = msgspec.json.encode(self._config).decode()
        with theirs:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - a fork and exec, milliseconds, at start only
                [sys.executable, "-m", "manymodels_mms.zygote", str(theirs.fileno()), config, str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the front's to handle
            )
        asyncio.get_running_loop().add_reader(self._control, self._read)
        try:
            await asyncio.wait([self._ready], timeout=START_TIMEOUT)
            if self._ready.done():
                return self._ready.result()
        finally:
            self._ready.cancel()  # from here on nobody waits for it
        raise PluginError(f"importing the plugins' frameworks took longer than {START_TIMEOUT:.0f} s")

    def _read(self) -> None:
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
        if isinstance(message, Exited):
            self._exited(message.model, message.code)
            return
        for module, reason in message.left_out.items():
            logger.info("%s is not imported in advance: it %s", module, reason)
        if not self._ready.done():
            self._ready.set_result(None)

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        code = self.process.wait()
        reason = f"the process that models are forked from ended with code {code}"
        if not self._ready.done():
            self._ready.set_exception(PluginError(f"{reason} before it was ready; its error stream says why"))
        self.ended.set_result(reason)

    def kill(self, model: str) -> None:
        """End the process of a model at once."""
        if not self.ended.done():
            with contextlib.suppress(BrokenPipeError):  # it is gone, and the models with it
                self._control.send(encode(Kill(model)))

    async def stop(self) -> None:
        """End it, and with it all model processes."""
        if not self.ended.done():
            os.kill(self.process.pid, signal.SIGKILL)
            await self.ended

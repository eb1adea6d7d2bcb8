"""The front's end of a zygote: start it, talk to it, learn that it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import PluginError
from .zygote import MESSAGE, Ready, encode

logger = logging.getLogger(__name__)

#: Seconds a zygote may take to import what it is told.
START_TIMEOUT = 300.0


class WarmProcess:
    """One life of a zygote."""

    def __init__(self, module: str, decoder: msgspec.msgpack.Decoder[Any], received: Callable[[Any], None]) -> None:
        """Prepare to start it.

        :param module: what ``python -m`` is to run; its arguments are the descriptor of its control socket, its
            configuration, and the id of this process.
        :param decoder: of its messages; the first is `Ready`.
        :param received: called with each of the others.
        """
        self._module = module
        self._decode = decoder.decode
        self._received = received
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, str]] = loop.create_future()
        #: Done when it ended, with how.
        self.ended: asyncio.Future[str] = loop.create_future()

    async def start(
        self, config: msgspec.Struct, variables: Mapping[str, str], executable: str = sys.executable
    ) -> dict[str, str]:
        """Start it and wait until its imports are done.

        :param executable: the interpreter it runs on.
        :returns: modules that it does not import, with the reasons.
        :raises PluginError: if it ends or hangs instead.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        argv = [str(theirs.fileno()), msgspec.json.encode(config).decode(), str(os.getpid())]
        with theirs:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - a fork and exec, milliseconds, at start only
                [executable, "-m", self._module, *argv],
                pass_fds=(theirs.fileno(),),
                env=dict(variables),
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
        self.process.kill()
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
        message = self._decode(data)
        if not isinstance(message, Ready):
            self._received(message)
            return
        for module, reason in message.left_out.items():
            logger.info("%s is not imported in advance: it %s", module, reason)
        if not self._ready.done():
            self._ready.set_result(message.left_out)

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        reason = f"the process that workers are forked from ended with code {self.process.wait()}"
        if not self._ready.done():
            self._ready.set_exception(PluginError(f"{reason} before it was ready; its error stream says why"))
        self.ended.set_result(reason)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Send it a message.

        :raises OSError: if it has ended.
        """
        socket.send_fds(self._control, [encode(message)], descriptors)

    async def stop(self) -> None:
        """End it; it ends what was forked from it."""
        if not self.ended.done():
            self._control.shutdown(socket.SHUT_WR)
            await self.ended

    async def kill(self) -> None:
        """End it at once; what was forked from it is told by the kernel, or by who started it."""
        if not self.ended.done():
            self.process.kill()
            await self.ended

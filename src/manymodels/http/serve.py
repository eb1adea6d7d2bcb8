"""Run the application on a socket until a signal."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import uvloop

from ..asynchronous import Runner
from ..endpoint import Role
from ..errors import SettingsError
from ..settings import Settings
from . import interpreter
from .app import create_app
from .asynchronous import AsyncInvocations
from .fronts import Fronts
from .listener import BACKLOG, Listener
from .sigv4 import AccessKeys

if TYPE_CHECKING:
    from ..emulation import ControlPlane

#: Seconds that running requests have after SIGTERM; SageMaker sends SIGKILL after 30.
GRACE = 20
#: Open files, connections among them, that are allowed at a time where the system lets us.
FILES = 32768


def run(
    role: Role,
    runner: Runner | None,
    settings: Settings,
    host: str,
    ready: Callable[[int], None],
    plane: ControlPlane | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end.

    :param runner: answers asynchronous invocations; None where they are not wanted.
    :param plane: what makes the role's endpoints, where SageMaker's control plane is emulated.
    :param ready: called with the port once requests are taken.
    :raises SettingsError: if the port is taken.
    """
    _allow_connections()
    with ExitStack() as stack:
        socks = [stack.enter_context(sock) for sock in bind(host, settings.port, settings.fronts)]
        uvloop.run(_run(role, runner, settings, socks, ready, plane))


async def _run(
    role: Role,
    runner: Runner | None,
    settings: Settings,
    socks: Sequence[socket.socket],
    ready: Callable[[int], None],
    plane: ControlPlane | None,
) -> None:
    stop = asyncio.Event()
    # Read here even where the fronts do, so that a file that does not do keeps the server from starting.
    access_keys = None if settings.access_keys is None else AccessKeys.read(settings.access_keys)
    await role.start()
    try:
        if plane is not None:
            plane.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        for sock in socks:
            sock.listen(BACKLOG)  # before it is told that it can be connected to
        async with _serving(role, runner, settings, socks, access_keys, plane) as serving:
            interpreter.tune()
            ready(socks[0].getsockname()[1])
            await stop.wait()
            loop.add_signal_handler(signal.SIGINT, serving.abort)  # who presses Ctrl-C again does not want to wait
    finally:
        if plane is not None:
            await plane.stop()
        await role.stop()


@asynccontextmanager
async def _serving(
    role: Role,
    runner: Runner | None,
    settings: Settings,
    socks: Sequence[socket.socket],
    access_keys: AccessKeys | None,
    plane: ControlPlane | None,
) -> AsyncIterator[Listener | Fronts]:
    """Answer what comes: in this process, or if there are several sockets in one process for each."""
    asynchronous = AsyncInvocations(role, runner, settings.async_output)
    app = create_app(role, settings, asynchronous, plane)
    asynchronous.start(app)
    if len(socks) == 1:
        listener = Listener(app, int(settings.max_body), settings.receive_timeout, access_keys)
        await listener.start(socks[0])
        yield listener
        await listener.stop(GRACE)
    else:
        fronts = Fronts(app, settings, GRACE)
        fronts.start(socks)
        yield fronts
        await fronts.stop()
    await asynchronous.stop()


def _allow_connections() -> None:
    """Raise the limit of open files: systems start programs with 1024, and each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def bind(host: str, port: int, count: int) -> list[socket.socket]:
    """Return sockets of one address, among which the kernel spreads the connections."""
    socks: list[socket.socket] = []
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        for _ in range(count):
            sock = socket.socket(family, kind)
            socks.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(socks) > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            if count > 1:
                # Of the first only now: it is refused a port that another server has, be it shared.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            address = sock.getsockname()
    except OSError as error:
        for sock in socks:
            sock.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port, or --host"
        ) from error
    return socks

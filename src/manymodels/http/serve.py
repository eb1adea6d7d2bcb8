"""Run the application on a socket until a signal."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable

import uvloop

from ..endpoint import Role
from ..errors import SettingsError
from ..settings import Settings
from .app import create_app
from .listener import BACKLOG, Listener

#: Seconds that running requests have after SIGTERM; SageMaker sends SIGKILL after 30.
GRACE = 20
#: Open files, connections among them, that are allowed at a time where the system lets us.
FILES = 32768


def serve(role: Role, settings: Settings, host: str, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end.

    :param ready: called with the port once requests are taken.
    :raises SettingsError: if the port is taken.
    """
    _allow_connections()
    with _listen(host, settings.port) as sock:
        uvloop.run(_serve(role, settings, sock, ready))


async def _serve(role: Role, settings: Settings, sock: socket.socket, ready: Callable[[int], None]) -> None:
    listener = Listener(create_app(role, settings), int(settings.max_body), settings.receive_timeout)
    stop = asyncio.Event()
    await role.start()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        sock.listen(BACKLOG)  # before it is told that it can be connected to
        await listener.start(sock)
        ready(sock.getsockname()[1])
        await stop.wait()
        await listener.stop(GRACE)
    finally:
        await role.stop()


def _allow_connections() -> None:
    """Raise the limit of open files: systems start programs with 1024, and each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port, or --host"
        ) from error
    return sock

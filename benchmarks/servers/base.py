"""What every server under test has: how it is started, asked, measured and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from ..environments import Environment
from ..load import Question, body_of
from ..models import Model

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
#: Seconds for a server to come up.
PATIENCE = 60.0
#: Marks every process of a server, by its environment.
MARK = "MANYMODELS_BENCHMARK"
#: Of servers with a fixed number of processes that predict.
WORKERS = 2
#: multi-model-server takes no higher port.
PORTS = range(20000, 32000)


class NotSupported(Exception):
    """A server cannot do what a scenario asks."""


@dataclass(frozen=True)
class Place:
    """Where a server finds its models, and what else it is told."""

    python: Path
    store: Path
    scratch: Path
    port: int
    #: The models that it will be asked for, where it must know.
    models: list[Model] = field(default_factory=list)
    #: The share of these models that it may hold, and the bytes that they all take.
    share: float = 1.0
    size: int = 0


class Server:
    """A way to serve models over HTTP."""

    name: ClassVar[str]
    #: How it is run, for the page.
    note: ClassVar[str]
    environment: ClassVar[Environment | None] = None
    ready: ClassVar[str] = "/ping"
    #: Where the prediction is in the JSON of a reply.
    where: ClassVar[list[str | int]] = []
    #: What a reply's head has if its model was loaded for it.
    loaded: ClassVar[bytes] = b"\r\nx-loaded: 1"
    #: Most models that it is asked to hold.
    most: ClassVar[int] = 1_000_000
    #: Whether it can be told to hold a part of the models only.
    evicts: ClassVar[bool] = False
    #: Whether it takes part where thousands of models are asked for, which costs slow servers minutes.
    thousands: ClassVar[bool] = False
    #: What it takes part in; all where it is empty.
    scenarios: ClassVar[tuple[str, ...]] = ()

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        raise NotImplementedError

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return environment variables of its own."""
        return {}

    def prepare(self, place: Place) -> None:
        """Write what it needs before it starts."""

    def path(self, model: Model) -> str:
        """Return the path that a model is asked at."""
        return "/invocations"

    def headers(self, model: Model) -> Mapping[str, str]:
        """Return headers beside the content type."""
        return {"X-Amzn-SageMaker-Target-Model": model.name}

    def body(self, model: Model, row: Any) -> Any:
        """Return what is sent as JSON for one row."""
        return [row]

    def load(self, running: Running, model: Model) -> None:
        """Load a model, if the server does not do that on the first request."""

    def unload(self, running: Running, model: Model) -> None:
        """Unload a model, if the server has a process for each."""

    def question(self, model: Model, row: int) -> Question:
        """Return the request for one of a model's rows."""
        body = json.dumps(self.body(model, model.rows[row])).encode()
        headers = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"POST {self.path(model)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**headers, **self.headers(model)}.items()]
        return Question("\r\n".join(lines).encode() + b"\r\n\r\n" + body, model.expected[row])


class Running:
    """A server that has been started, and a connection to it."""

    def __init__(self, server: Server, place: Place) -> None:
        self.server = server
        self.place = place
        self._mark = secrets.token_hex(8)
        self._log = place.scratch / "server.log"
        self._known: set[psutil.Process] = set()
        self._loaded: set[str] = set()
        server.prepare(place)
        limits = _raise_limit()
        start = time.perf_counter()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in server.command(place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.scratch,
                env={**_environment(place), **server.variables(place), MARK: self._mark},
                start_new_session=True,
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        self.startup = time.perf_counter() - start

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}: {self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", self.server.ready)[0] == 200:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"it did not come up within {PATIENCE:.0f} s: {self.tail()}")

    def tail(self) -> str:
        """Return the end of what it printed."""
        return " ".join(self._log.read_text(errors="replace").split())[-600:]

    def request(self, method: str, path: str, body: Any = None, patience: float = 120.0) -> tuple[int, bytes]:
        """Send a request on a connection of its own; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=patience)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()

    def load(self, models: list[Model]) -> None:
        """Have models loaded that the server does not load by itself."""
        for model in models:
            if model.name not in self._loaded:
                self.server.load(self, model)
                self._loaded.add(model.name)

    def unload(self, models: list[Model]) -> None:
        """Undo `load`, to save the machine's memory."""
        for model in models:
            self.server.unload(self, model)
            self._loaded.discard(model.name)

    def connect(self) -> socket.socket:
        """Return a raw connection."""
        sock = socket.create_connection(("127.0.0.1", self.place.port), timeout=120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def processes(self) -> set[psutil.Process]:
        """Return all its processes: those below the first, and those that left it but carry its mark."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process not in self._known and process.environ().get(MARK) == self._mark:
                    self._known.add(process)
        for process in list(self._known):
            with contextlib.suppress(psutil.Error):
                self._known.update(process.children(recursive=True))
        self._known = {process for process in self._known if process.is_running()}
        return self._known

    def memory(self, files: bool = True) -> int:
        """Return the proportional set size of all its processes, in bytes.

        :param files: with their share of mapped files, which depends on what else runs.
        """
        counted = ("Pss:",) if files else ("Pss_Anon:", "Pss_Shmem:")
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(counted)) * 1024
        return total

    def stop(self) -> None:
        """End all its processes."""
        self.processes()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait(10)
        psutil.wait_procs(list(self._known), timeout=10)


@contextlib.contextmanager
def running(server: Server, place: Place) -> Iterator[Running]:
    """Run a server until the block is left."""
    started = Running(server, place)
    try:
        yield started
    finally:
        started.stop()


def ask(sock: socket.socket, question: Question) -> tuple[bytes, bytes]:
    """Ask over a raw connection; return head and body of the reply."""
    sock.sendall(question.request)
    data = b""
    while (body := body_of(data)) is None:
        more = sock.recv(1 << 18)
        if not more:
            raise RuntimeError(f"the server closed the connection after {data[:200]!r}")
        data += more
    return data.partition(b"\r\n\r\n")[0], body


def free_port() -> int:
    """Return a port that is free and that every server takes."""
    for port in PORTS:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port from {PORTS[0]} to {PORTS[-1]} is free")


def held_by_each(place: Place) -> int:
    """Return how many models one of the workers may hold, so that together they hold the share."""
    return int(place.share * len(place.models) / WORKERS) if place.share < 1 else 1_000_000


def _environment(place: Place) -> dict[str, str]:
    """Return the environment without what is meant for this process; every prediction on one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = f"{place.python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, **threads, "PATH": path, "STORE": str(place.store), "TMPDIR": str(place.scratch)}


def _raise_limit() -> tuple[int, int]:
    """Let a server open as many files as the machine allows; return the limits to go back to."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    return limits


def interrupt_on_term() -> None:
    """Let SIGTERM end a run as Ctrl-C does, so that servers are stopped."""

    def _interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, _interrupt)

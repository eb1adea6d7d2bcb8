"""Worker pools with the toy plugin; what the tests of the model server share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from installed import besides

from manymodels.invocation import Invocation
from manymodels.plugins import Binding
from manymodels.server.workers import WorkerPool, create
from manymodels.settings import load

#: The distribution of the toy plugin; its folder is on the path of the tests that ask for `toys`.
TOY = Path(__file__).with_name("toy")
BINDING = Binding("toy")
#: All other plugins that are installed.
OTHERS = besides("toy")
#: Seconds after which a test gives up; nothing is asserted on time.
PATIENCE = 30.0


class Gate:
    """A file for which a toy model waits."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def open(self) -> None:
        """Let the model go on."""
        self._path.touch()

    @property
    def is_open(self) -> bool:
        """Whether models go on here."""
        return self._path.exists()

    async def reached(self) -> None:
        """Wait until a model waits."""
        await until(lambda: self.was_reached, "the model waits")

    @property
    def was_reached(self) -> bool:
        """Whether a model came here."""
        return self._path.with_name(f"{self._path.name}.began").exists()


class Toys:
    """Makes artifacts and gates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def artifact(self, name: str, **orders: Any) -> Path:
        """Write an artifact that does what it is ordered while it is loaded."""
        path = self._folder / name
        path.mkdir(exist_ok=True)
        (path / "model.toy").write_text(json.dumps(orders))
        return path

    def gate(self, name: str = "gate") -> Gate:
        """Return a gate that is closed."""
        return Gate(self._folder / name)

    async def load(self, pool: WorkerPool, name: str, **orders: Any) -> None:
        """Load a model that does what it is ordered."""
        await pool.load(name, self.artifact(name, **orders), BINDING)


@asynccontextmanager
async def running(**flags: Any) -> AsyncIterator[WorkerPool]:
    """Run a pool that has the toy plugin alone, and in which nothing is slow unless the test says so."""
    pool = create(load(**{"workers": 2, "block_plugins": OTHERS, "memory": "1GiB", "slow_after": 60, **flags}))
    try:
        await pool.start(None)
        yield pool
    finally:
        await pool.stop()


async def ask(pool: WorkerPool, name: str, timeout: float = PATIENCE, **orders: Any) -> dict[str, Any]:
    """Invoke a model, which does what it is ordered; return its answer."""
    answer = await pool.invoke(name, Invocation(json.dumps(orders).encode()), timeout)
    content: dict[str, Any] = json.loads(answer.body)
    return content


async def block(pool: WorkerPool, name: str, gate: Gate) -> asyncio.Task[dict[str, Any]]:
    """Begin an invocation that takes until the gate is opened."""
    call = asyncio.create_task(ask(pool, name, wait=str(gate)))
    await gate.reached()
    return call


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < end, f"gave up waiting until {what}"
        await asyncio.sleep(0.005)


def ended(pid: int) -> bool:
    """Say whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def home(pool: WorkerPool, name: str) -> int:
    """Return the process id of the one worker that holds a model."""
    (pid,) = pool.describe(name).workers
    return pid


def running_zygote() -> psutil.Process:
    """Return the zygote; this process has other children, of other tests."""
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    (zygote,) = [child for child in children if "manymodels.server.zygote" in child.cmdline()]
    return zygote

"""What scenarios share: the models, the server that is running, and measuring it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .load import Load, Outcome, Plan
from .models import KINDS, ROWS, Model, Store
from .servers import NotSupported, Place, Running, Server
from .servers.base import free_port

#: Connections over which models are asked for the first time.
PRIMERS = 16


@dataclass(frozen=True)
class Selection:
    """Which cells are measured."""

    #: Numbers of connections, by kind of model.
    throughput: Mapping[str, tuple[int, ...]]
    many: tuple[int, ...]
    overload: tuple[int, ...]
    pages: tuple[str, ...]
    shares: tuple[float, ...]
    #: By what the numbers of models of large scenarios are divided.
    divisor: int = 1


ALL = Selection(dict.fromkeys(KINDS, (1, 8, 32)), (20, 1000), (256, 1024), ("warm", "dropped"), (0.1, 0.25, 0.5))
#: Those of the table of aims.
AIMS = Selection({"lr": (1, 8, 32), "gb": (32,), "rf": (32,)}, (20,), (256,), ("warm",), (0.25,))
QUICK = Selection({"lr": (1, 32), "rf": (32,)}, (20,), (256,), ("warm",), (0.25,), divisor=10)


@dataclass
class Bench:
    """One server's turn after another, on the same models."""

    store: Store
    cache: Path
    #: An interpreter with manymodels, for our own servers.
    python: Path
    #: Seconds that a cell is measured.
    seconds: float = 2.0
    selection: Selection = ALL
    _shared: Running | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _primed: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def start(self, server: Server, models: Sequence[Model], share: float = 1.0, size: int = 0) -> Iterator[Running]:
        """Run a server until the block is left.

        :param models: those that it will be asked for.
        :param share: how many of them it may hold.
        :param size: the bytes that they all take.
        """
        python = self.python if server.environment is None else server.environment.python(self.cache)
        with tempfile.TemporaryDirectory(prefix="manymodels-bench-", ignore_cleanup_errors=True) as scratch:
            place = Place(python, self.store.folder, Path(scratch), free_port(), list(models), share, size)
            running = Running(server, place)
            try:
                yield running
            finally:
                running.stop()

    @contextlib.contextmanager
    def serving(self, server: Server, models: Sequence[Model]) -> Iterator[Running]:
        """Give the server of this turn, with models loaded; start it if it does not run.

        :raises NotSupported: if it cannot hold so many.
        """
        if len(models) > server.most:
            raise NotSupported(f"it holds no {len(models)} models")
        if server.most == 1:
            with self.start(server, models) as running:
                self._primed.clear()
                yield running
            return
        if self._shared is None or self._shared.process.poll() is not None:
            self.leave()
            self._shared = self._stack.enter_context(self.start(server, models))
        self._shared.load(list(models))
        yield self._shared

    def leave(self) -> None:
        """End the server of this turn."""
        self._stack.close()
        self._shared = None
        self._primed.clear()

    def prime(self, running: Running, models: Sequence[Model], rows: int = ROWS) -> None:
        """Have every model answer, and give the server idle time for what it does after that."""
        new = [model for model in models if model.name not in self._primed]
        if not new:
            return
        self._primed.update(model.name for model in new)
        plan = self.plan(running, new, min(PRIMERS, len(new) * rows), rows=rows)
        plan.warm, plan.seconds, plan.counted = 0, len(plan.questions), True
        require(Load(plan).outcome(), len(plan.questions))
        time.sleep(0.5 + 0.003 * len(new))

    def plan(self, running: Running, models: Sequence[Model], connections: int, rows: int = ROWS) -> Plan:
        """Return what asks all rows of models in turn: first every model's first row."""
        server = running.server
        questions = [server.question(model, row) for row in range(rows) for model in models]
        plan = Plan(running.place.port, questions, connections, where=server.where, loaded=server.loaded)
        plan.seconds = self.seconds
        return plan

    def measure(self, running: Running, models: Sequence[Model], connections: int, rows: int = ROWS) -> dict[str, Any]:
        """Return what a number of connections get out of a server."""
        return asdict(Load(self.plan(running, models, connections, rows)).outcome())


def require(outcome: Outcome, count: int = 0) -> Outcome:
    """Return an outcome in which all was answered rightly.

    :param count: answers that there have to be at least.
    :raises RuntimeError: otherwise.
    """
    if outcome.wrong or outcome.refused or outcome.failed:
        counts = f"{outcome.wrong} wrong, {outcome.refused} refused, {outcome.failed} lost of {outcome.good} more"
        raise RuntimeError(f"{counts}: {outcome.first_problem}")
    if outcome.good < count:
        raise RuntimeError(f"only {outcome.good} of {count} answers came in time")
    return outcome

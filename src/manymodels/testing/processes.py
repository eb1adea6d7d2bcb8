"""Whether the plugin behaves in a process that it shares, and in forks of it."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import forks
from .outcome import Failed, NotApplicable
from .subject import Subject

_THREADS = 8
_ROUNDS = 25
#: Seconds that a fork has for a load and its answers.
_PATIENCE = 20.0


def warms_up(subject: Subject) -> str:
    """What `warm_up_imports` names can be imported, and starts no threads.

    It is imported once, in the process that all workers are forks of; a fork has none of its parent's threads.
    """
    left_out = subject.left_out
    if left_out:
        raise Failed("; ".join(f"{module} {reason}" for module, reason in left_out.items()))
    modules = subject.plugins.warm_up_imports([subject.name])
    for module in modules:
        importlib.import_module(module)
    return ", ".join(modules)


def uses_one_thread(subject: Subject) -> None:
    """Loading and predicting start no threads where `context.settings.threads` is 1.

    A worker is one of as many as there are processors. Threads of a library compete with all others, and they are
    missing in a fork.
    """
    before = _running()
    model = subject.model()
    subject.check_all(model)
    new = _running() - before
    if new:
        raise Failed(f"{len(new)} threads were started; tell the library to use context.settings.threads")


def leaves_the_process_alone(subject: Subject) -> None:
    """Loading, predicting and unloading change nothing that other models of the process see.

    The environment, the current folder, `sys.path`, signal handlers, the state of random generators.
    """
    before = _state()
    model = subject.model()
    _compare(before, "loading")
    subject.check_all(model)
    _compare(before, "predicting")
    model.unload()
    _compare(before, "unloading")


def is_thread_safe(subject: Subject) -> str:
    """Threads that ask one model at the same time get the right answers, and so do those that load others meanwhile."""
    model = subject.model()
    errors: list[BaseException] = []
    start = threading.Barrier(_THREADS + 1)

    def work(task: Callable[[], None]) -> None:
        try:
            start.wait()
            for _ in range(_ROUNDS):
                task()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    def load() -> None:
        other = subject.model()
        subject.check_all(other)
        other.unload()

    tasks: list[Callable[[], None]] = [lambda: subject.check_all(model)] * _THREADS
    running = [threading.Thread(target=work, args=(task,), daemon=True) for task in [*tasks, load]]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return f"{_THREADS} threads"


def is_fork_safe(subject: Subject) -> None:
    """A model loaded before a fork answers in it, and a fork loads and answers by itself.

    Locks and threads that a library makes while loading are broken in a fork: it hangs.
    """
    model = subject.model()

    def answers() -> None:
        subject.check_all(model)

    def loads() -> None:
        subject.check_all(subject.model())

    for what, function in {"loaded before the fork": answers, "loaded in the fork": loads}.items():
        outcome = forks.run(function, _PATIENCE, subject.scratch() / "log")
        if outcome.status != "passed":
            raise Failed(f"a model {what} does not answer: {outcome.why}")
    subject.check_all(model, " in the parent of forks")


def _running() -> set[str]:
    if sys.platform != "linux":
        raise NotApplicable("threads are counted on Linux only")
    return set(os.listdir("/proc/self/task"))


def _state() -> dict[str, Any]:
    return {
        "the environment": dict(os.environ),
        "the current folder": Path.cwd(),
        "sys.path": list(sys.path),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "the state of random": random.getstate(),
        "the state of numpy.random": np.random.get_state()[1].tobytes(),  # type: ignore[index]
        "numpy's handling of floating-point errors": np.geterr(),
        "the recursion limit": sys.getrecursionlimit(),
    }


def _compare(before: dict[str, Any], what: str) -> None:
    for name, value in _state().items():
        if value != before[name]:
            raise Failed(f"{what} changes {name}")

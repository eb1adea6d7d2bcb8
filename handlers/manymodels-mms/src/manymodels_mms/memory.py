"""The processes of a model: what they take, and how they are ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import psutil

#: Bytes a launcher takes of its own (measured; Python 3.11).
LAUNCHER = 4 << 20


def forks(pids: Iterable[int]) -> list[psutil.Process]:
    """Return those of some processes that are still there."""
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


def below(guard: int, name: str) -> list[psutil.Process]:
    """Return multi-model-server's own processes of a model: the one it starts, and that one's forks."""
    found = []
    for process in psutil.Process(guard).children(recursive=True):
        try:
            arguments = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        # As in: --model-name m7
        if ("--model-name", name) in itertools.pairwise(arguments):
            found.append(process)
    return found


def forked(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those whose parent is among them."""
    pids = {process.pid for process in processes}
    return [process for process in processes if _parent(process) in pids]


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def of_forks(processes: Iterable[psutil.Process]) -> int:
    """Return the bytes that ending forks of the zygote, and their launcher, would give back.

    They share the frameworks with the zygote, so only what is theirs alone counts: their share of the
    rest (PSS) would charge each model the more, the fewer there are.
    """
    return LAUNCHER + sum(_memory(process, "uss") for process in processes)


def of_others(processes: Iterable[psutil.Process]) -> int:
    """Return the bytes that multi-model-server's own processes of a model take (PSS)."""
    return sum(_memory(process, "pss") for process in processes)


def _memory(process: psutil.Process, kind: str) -> int:
    try:
        return int(getattr(process.memory_full_info(), kind))
    except psutil.NoSuchProcess:
        return 0


def end(processes: list[psutil.Process], seconds: float) -> None:
    """Wait for processes to end, and end those that have not after some seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=seconds)

"""What loading costs, and whether unloading gives it back."""

from __future__ import annotations

import ctypes
import gc
import sys
import time

import psutil

from ..server.memory import allocated, private
from .outcome import Failed
from .subject import Subject, ask

#: Loads and unloads that may leave nothing behind; fewer where they take long.
LOADS = 1000
_FEWEST = 100
_SECONDS = 20.0
_WARM_UP = 50
#: Bytes a load may leave behind, as counted by the allocator, and in pages, which are coarse.
_LEAK = 200
_LEAK_PAGES = 8 << 10
#: Models loaded at a time, of whose memory nine tenths have to be free again.
_AT_A_TIME = 50
_KEPT = 0.1
_SLACK = 16 << 10
_SLACK_PAGES = 16 << 20
#: Seconds of processor time for the first load and answer, and those for each MiB of the artifact.
_COLD = 0.5
_COLD_MIB = 0.05
#: Seconds it may take by the clock: the machine may be busy, a plugin may not wait.
_COLD_WALL = 5.0

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def starts_cold_in_time(subject: Subject) -> str:
    """The first load and the first answer take no longer than half a second, and 50 ms for each MiB of the artifact.

    Processor time, with what `warm_up_imports` names imported: what is imported later costs every worker again. The
    first client of a model waits for it.
    """
    budget = _COLD + _COLD_MIB * subject.artifact().size / (1 << 20)
    cpu, wall = time.process_time(), time.monotonic()
    before = set(sys.modules)
    model = subject.model()
    ask(model, subject.golden[0].invocation())
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    late = sorted({module.partition(".")[0] for module in set(sys.modules) - before} - sys.stdlib_module_names)
    hint = f"; imported meanwhile: {', '.join(late)}, which warm_up_imports might name" if late else ""
    if cpu > budget:
        raise Failed(f"it takes {cpu:.2f} s of processor time, more than {budget:.2f} s{hint}")
    if wall > _COLD_WALL + budget:
        raise Failed(f"it takes {wall:.1f} s, and {cpu:.2f} s of processor time: what does it wait for?")
    return f"{cpu * 1e3:.0f} ms of processor time"


def leaks_nothing(subject: Subject) -> str:
    """1,000 loads, answers and unloads leave no memory, files or threads behind; fewer where that takes over 20 s."""
    first = _Usage()
    start = time.monotonic()
    for _ in range(_WARM_UP):
        _once(subject)
    pace = (time.monotonic() - start) / _WARM_UP
    half = max(_FEWEST, min(LOADS, int(_SECONDS / pace))) // 2
    marks = [_Usage()]
    for _ in range(2):
        for _ in range(half):
            _once(subject)
        marks.append(_Usage())
    # What still fills a cache grows in the first half only.
    leak, pages = (min((marks[n + 1].memory[kind] - marks[n].memory[kind]) / half for n in (0, 1)) for kind in (0, 1))
    if leak > _LEAK:
        raise Failed(f"each of {2 * half} loads leaves {leak:.0f} bytes behind")
    if pages > _LEAK_PAGES:
        raise Failed(f"each of {2 * half} loads leaves {pages / 1024:.0f} KiB of pages behind")
    for what, before, after in (
        ("files", first.files, marks[2].files),
        ("threads", first.threads, marks[2].threads),
    ):
        if after - before > half // 10:
            raise Failed(f"{2 * half + _WARM_UP} loads leave {after - before} open {what} behind")
    return f"{2 * half} loads"


def unload_frees_memory(subject: Subject) -> str:
    """Of the memory that 50 models take, nine tenths are free once they are unloaded.

    The platform unloads models to make room for others, and takes the memory to be free then.
    """
    for _ in range(3):
        _once(subject)
    try:
        taken = _free_again(subject)
    except Failed:
        taken = _free_again(subject)  # what a library makes once, whenever that is, stays the first time only
    return f"{taken / _AT_A_TIME / 1024:.1f} KiB each"


def _free_again(subject: Subject) -> int:
    """Load models and unload them; return the bytes they took."""
    before = _Usage()
    models = [subject.model() for _ in range(_AT_A_TIME)]
    for model in models:
        ask(model, subject.golden[0].invocation())
    taken = _Usage()
    for model in models:
        model.unload()
    del model
    models.clear()
    after = _Usage()
    for kind, slack in enumerate((_SLACK, _SLACK_PAGES)):
        grown, kept = taken.memory[kind] - before.memory[kind], after.memory[kind] - before.memory[kind]
        if kept > slack + _KEPT * grown:
            raise Failed(f"{_AT_A_TIME} models take {grown >> 10} KiB, and {kept >> 10} KiB of it stay when they go")
    return taken.memory[0] - before.memory[0]


class _Usage:
    """What the process holds now, after a collection."""

    def __init__(self) -> None:
        gc.collect()
        if _trim is not None:
            _trim(0)
        self.memory = allocated(), private()
        process = psutil.Process()
        self.files = process.num_fds()
        self.threads = process.num_threads()


def _once(subject: Subject) -> None:
    model = subject.model()
    ask(model, subject.golden[0].invocation())
    model.unload()

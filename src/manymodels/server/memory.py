"""How much memory there is for models, and how much a model will take."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from pathlib import Path

import psutil

from ..errors import OutOfMemory

#: Share of the container's memory that models may take when the operator names no budget; the
#: rest is for the server itself, the frameworks, and what predictions need for a moment.
SHARE = 0.7
#: What is kept free of that share at least, in bytes.
RESERVE = 512 << 20
#: A limit above this, in bytes, is the kernel's way to write "none" (cgroup v1).
_UNLIMITED = 1 << 60


def total() -> int:
    """Return the bytes this container may use: the tightest cgroup limit, or the machine's memory."""
    limits = [psutil.virtual_memory().total]
    if sys.platform == "linux":
        limits += [limit for limit in map(_limit, _limit_files()) if limit is not None]
    return min(limits)


def default_budget() -> int:
    """Return the bytes for models when the operator names none."""
    available = total()
    return max(int(available * SHARE) - RESERVE, available // 4)


def private(pid: int | None = None) -> int:
    """Return the bytes of a process's memory that no file is behind; of a fork, with what it began with.

    :param pid: None: this process.
    """
    if sys.platform != "linux":
        return psutil.Process(pid).memory_info().rss
    fields = Path("/proc", "self" if pid is None else str(pid), "statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


class _Mallinfo2(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns, see malloc.h."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


#: Bytes of one of Python's small objects, about; it counts them, and not their bytes.
_SMALL = 72
#: glibc's count of its heap; None without glibc.
mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
if mallinfo2 is not None:
    mallinfo2.restype = _Mallinfo2


def allocated() -> int:
    """Return the bytes that are allocated in this process now, to compare with those of another moment.

    Exact but for Python's small objects: the heap holds on to what is freed, so that its own growth says
    little of a model of a few KiB. Without glibc it is that growth, in pages.
    """
    if mallinfo2 is None:
        return private()
    info = mallinfo2()
    return int(info.uordblks) + int(info.hblkhd) + _SMALL * sys.getallocatedblocks()


class Meter:
    """Says what was allocated meanwhile, if asking takes no time that others wait for.

    glibc looks at every free piece of the heap, which takes longer the more models have come and gone.
    """

    #: Seconds that asking may always take; what takes longer is done for this share of the time at most.
    _FREE = 0.0003
    _SHARE = 0.02

    def __init__(self) -> None:
        self._again = 0.0

    def begin(self) -> int | None:
        """Return what `grown` is to compare with; None if it is not to be asked now."""
        return allocated() if time.monotonic() >= self._again else None

    def grown(self, before: int | None) -> int | None:
        """Return the bytes allocated since `begin`, which may be negative; None if that was not asked."""
        if before is None:
            return None
        start = time.monotonic()
        after = allocated()
        end = time.monotonic()
        if end - start > self._FREE:
            self._again = end + 2 * (end - start) / self._SHARE
        return after - before


def _limit_files() -> list[Path]:
    """Return the files that may hold a limit: this process's own cgroup and its parents, v2 and v1."""
    files = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        files += [folder / name for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return files


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:  # inside a container the path may be the host's; the root file is there then
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def check_room(name: str, estimate: int, used: int, budget: int) -> None:
    """Refuse a model that does not fit beside what is loaded; all sizes in bytes.

    :raises OutOfMemory: saying how much is missing, and whether evicting others would help.
    """
    if used + estimate <= budget:
        return
    fits = estimate <= budget
    remedy = "try again once others are unloaded" if fits else "raise --memory"
    error = OutOfMemory(
        f"there is no room for {name!r}: it needs about {_mib(estimate)}, "
        f"and {_mib(used)} of {_mib(budget)} are taken; {remedy}"
    )
    error.eviction_helps = fits
    error.missing = used + estimate - budget
    raise error


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


class Estimator:
    """Learns, per plugin, how many bytes a model takes for each byte of its artifact."""

    #: Weight of the newest load.
    _WEIGHT = 0.2
    #: Before anything is learned: what a load takes at least a moment of.
    _START = 1.5

    def __init__(self) -> None:
        self._ratio: dict[str, float] = {}

    def estimate(self, plugin: str, size: int) -> int:
        """Return the bytes a model of `size` artifact bytes will take."""
        return int(size * self._ratio.get(plugin, self._START))

    def learn(self, plugin: str, size: int, taken: int) -> None:
        """Take note of a load."""
        if size < 1 << 16:
            return  # a page more or less would pass for a ratio
        old = self._ratio.get(plugin, self._START)
        self._ratio[plugin] = old + self._WEIGHT * (taken / size - old)

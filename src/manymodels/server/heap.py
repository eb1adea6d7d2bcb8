"""The heap that forks share: filled up, so that what they allocate does not copy its pages."""

from __future__ import annotations

import ctypes

from .memory import mallinfo2

#: Sizes in bytes that pieces of the heap are taken in, the largest first; below the least that glibc looks for in a
#: list of its own, each one that it tells from others.
_SIZES = (*(1 << power for power in range(16, 10, -1)), *range(1032, 8, -16))


def fill() -> None:
    """Allocate every free piece inside of glibc's heap, and keep it.

    Imports leave thousands, all over the heap. A fork puts what it allocates into them first, and the first byte
    written to a page that others share copies it: 4 KiB for a few numbers of a model. The pieces are in pages that
    are there anyway, so to give them up costs nothing but their few bytes.
    """
    if mallinfo2 is None:
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_long]
    libc.malloc_trim(0)  # pages that are free as a whole go back, and are not copied but made when they are needed
    end = libc.sbrk(0) - mallinfo2().keepcost  # beyond it the heap has not been used yet
    for size in _SIZES:
        while (piece := libc.malloc(size)) is not None and piece < end:
            pass
        libc.free(piece)

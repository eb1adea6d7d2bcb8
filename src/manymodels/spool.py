"""Large inputs of models, kept where workers read them by themselves: in memory that belongs to no process."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterable
from pathlib import Path

from .invocation import Upload

#: Bytes from which a body is kept so. A smaller one is copied along in less time.
LARGE = 1 << 20


def _supported() -> bool:
    """Say whether there is such memory, as on Linux, and a path below /proc by which our other processes read it.

    A process that the kernel guards, as one with capabilities of its file's, does not own what is below its path.
    """
    try:
        owner = Path("/proc/self/fd").stat().st_uid
    except OSError:
        return False
    return hasattr(os, "memfd_create") and owner == os.geteuid()


#: Elsewhere every body is copied along.
SUPPORTED = _supported()

#: What frees the bodies that are whole, by their path.
_closers: dict[str, weakref.finalize[..., Upload]] = {}


class Spool:
    """A body as it comes in."""

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        """Begin with some pieces."""
        self._descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._size = 0
        self._close = weakref.finalize(self, os.close, self._descriptor)
        for piece in pieces:
            self.write(piece)

    def write(self, piece: bytes) -> None:
        """Take a piece.

        :raises OSError: if memory ran out.
        """
        self._size += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def end(self) -> Upload:
        """Return the whole body, which nobody can change any more; it is there until it is released."""
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)
        inode = os.fstat(self._descriptor).st_ino
        upload = Upload(f"/proc/{os.getpid()}/fd/{self._descriptor}", self._size, inode)
        self._close.detach()
        # At the latest with what refers to it: an error, whose traceback holds frames, may keep that for long.
        _closers[upload.path] = weakref.finalize(upload, _close, upload.path, self._descriptor)
        return upload


def release(upload: Upload) -> None:
    """Free a body that has been answered."""
    if (closer := _closers.get(upload.path)) is not None:
        closer()


def _close(path: str, descriptor: int) -> None:
    del _closers[path]
    os.close(descriptor)

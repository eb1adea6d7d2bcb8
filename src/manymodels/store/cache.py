"""Folders on the local disk, each made once and found again by its key."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from ..errors import SettingsError


class DiskCache:
    """A folder of folders that several threads and processes may share.

    Each is filled under a temporary name and then renamed, so what has its final name is complete.
    """

    def __init__(self, root: Path) -> None:
        """Make the folder and delete what processes that are gone left half done.

        :raises SettingsError: if the folder cannot be made or written to.
        """
        self._root = root
        self._temp = root / "tmp"
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, lock)
            self._sweep(lock)
        except OSError as error:
            raise SettingsError(
                f"the cache folder {str(root)!r} cannot be used ({error.strerror}); choose one that can be written to"
            ) from error

    def get(self, key: str, fill: Callable[[Path], None]) -> Path:
        """Return the folder of that key; `fill` is given an empty folder where there is none yet.

        Two callers at the same time may both fill; one result is kept.

        :raises OSError: if the disk is full or the folder cannot be written to.
        """
        final = self._path(key)
        if final.is_dir():
            return final
        self._temp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._temp) as temp:
            files = Path(temp, "files")
            files.mkdir()
            fill(files)
            try:
                files.rename(final)
            except OSError as error:
                # Somebody else was first; theirs is as good.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        return final

    def remove(self, key: str) -> None:
        """Delete the folder of that key, if there is one."""
        self._temp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._temp) as temp, contextlib.suppress(FileNotFoundError):
            self._path(key).rename(Path(temp, "files"))

    def _path(self, key: str) -> Path:
        return self._root / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _sweep(self, lock: int) -> None:
        # Every user of the folder holds the lock shared for as long as it lives, so who gets it
        # alone is alone. The kernel lets go of it whichever way a process ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            if self._temp.exists():
                shutil.rmtree(self._temp)
        fcntl.flock(lock, fcntl.LOCK_SH)

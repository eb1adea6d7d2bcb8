"""The disk cache: artifacts of a store on the local disk, found again after a restart."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import SettingsError
from ..metrics import DiskCacheState
from .base import Found
from .contents import digest

logger = logging.getLogger(__name__)

#: Share of the budget that is left when what was not used for longest has been deleted, so that not every artifact
#: has to make its own room.
KEEP = 0.9


class _Name(msgspec.Struct):
    """What an artifact was when it was last fetched: a file in ``names``."""

    version: str
    size: int
    kind: Literal["archive", "folder", "file"]
    #: The name of the folder in ``contents``.
    content: str


class DiskCache:
    """A folder of artifacts that several threads, and the servers of a machine, may share.

    ::

        contents/DIGEST-BYTES/   unpacked files, named by their digest and by what they take on the disk
        names/HASH               which content an artifact had in which version
        users/ID/                a process: it holds `lock` for as long as it lives, has a file in `uses` for each
                                 content that its loaded models use, and keeps in `tmp` what is half done
        lock                     held while contents come, go, or begin to be used; holds the bytes of all

    A content is filled under a temporary name and then renamed, so what has its final name is complete. Before it is
    used its digest is taken again: what was damaged or changed is thrown away.
    """

    def __init__(self, root: Path, budget: int | None = None) -> None:
        """Make the folder, and delete what processes that are gone left half done.

        :param budget: bytes that contents may take; None: half of what the disk has for them.
        :raises SettingsError: if the folder cannot be made or written to.
        """
        self._contents, self._names, self._users = root / "contents", root / "names", root / "users"
        self._threads = threading.Lock()
        #: By content, how often it is in use here.
        self._uses: dict[str, int] = {}
        self._hits = self._misses = self._evictions = self._damaged = 0
        self._full = False
        try:
            self._users.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, self._lock)
            with self._locked():
                self._me = Path(tempfile.mkdtemp(dir=self._users))
                self._temp = self._me / "tmp"
                self._make()
                alive = os.open(self._me / "lock", os.O_RDWR | os.O_CREAT, 0o644)
                weakref.finalize(self, _leave, alive, self._me)
                fcntl.flock(alive, fcntl.LOCK_EX)
                gone = [user for user in self._users.iterdir() if user != self._me and not _lives(user)]
                for user in gone:
                    with contextlib.suppress(FileNotFoundError):  # it left by itself, just now
                        user.rename(self._temp / user.name)
                self._write_bytes(sum(map(_bytes, os.listdir(self._contents))))
            for user in gone:
                shutil.rmtree(self._temp / user.name, ignore_errors=True)
            free = shutil.disk_usage(root).free
        except OSError as error:
            raise SettingsError(
                f"the cache folder {str(root)!r} cannot be used ({error.strerror}); choose one that can be written to"
            ) from error
        self._budget = (free + self._bytes()) // 2 if budget is None else budget

    # -- What is in it --

    def get(self, key: str, found: Found, fill: Callable[[Path], None]) -> Path:
        """Return the folder with the files of a version, which stays until it is released as often as it was got.

        :param key: the artifact, whatever its version.
        :param fill: is given an empty folder to fill where there is none yet. Two callers at the same time may both
            fill; one result is kept.
        :raises OSError: if the disk is full or the folder cannot be written to.
        """
        self._make()
        name = self._read(key)
        if name is not None and (name.version, name.size, name.kind) == (found.version, found.size, found.kind):
            path = self._use_sound(name.content, found.target_model)
            if path is not None:
                self._hits += 1
                return path

        def fill_with(into: Path) -> Found:
            fill(into)
            return found

        return self._fill(key, name, found.target_model, fill_with)[1]

    def add(self, key: str, target_model: str, fill: Callable[[Path], Found]) -> tuple[Found, Path]:
        """Take in an artifact of which no version is known before it comes; else as `get`.

        :param fill: fills an empty folder and returns what it fills it with.
        """
        self._make()
        return self._fill(key, self._read(key), target_model, fill)

    def _fill(
        self, key: str, name: _Name | None, target_model: str, fill: Callable[[Path], Found]
    ) -> tuple[Found, Path]:
        """Take in another version than the one that is known."""
        self._misses += 1
        with tempfile.TemporaryDirectory(dir=self._temp) as temp:
            files = Path(temp, "files")
            files.mkdir()
            found = fill(files)
            content = _named(files)
            path = self._use_sound(content, target_model) or self._add(content, files)
            if name is not None and name.content != content:
                self._outdate(name.content)
            whole = Path(temp, "name")
            whole.write_bytes(msgspec.json.encode(_Name(found.version, found.size, found.kind, content)))
            whole.rename(self._file(key))
        return found, path

    def holds(self, path: Path) -> bool:
        """Say whether a folder is one that was got."""
        return path.parent == self._contents

    def release(self, path: Path) -> None:
        """Take note that a folder that was got is not used any more; any other is left alone."""
        if not self.holds(path):
            return
        with self._threads:
            uses = self._uses.pop(path.name) - 1
            if uses:
                self._uses[path.name] = uses
            else:
                (self._me / "uses" / path.name).unlink(missing_ok=True)

    def find(self, key: str, target_model: str) -> Found | None:
        """Return the version of an artifact that is here; None if there is none."""
        name = self._read(key)
        if name is None or not (self._contents / name.content).is_dir():
            return None
        return Found(target_model, name.version, name.size, name.kind)

    def forget(self, key: str) -> None:
        """Forget an artifact that is not in the store any more; its files are the next to make room."""
        name = self._read(key)
        if name is not None:
            self._file(key).unlink(missing_ok=True)
            self._outdate(name.content)

    def state(self) -> DiskCacheState:
        """Return what is held now, and what happened so far."""
        return DiskCacheState(
            bytes=self._bytes(),
            budget=self._budget,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            damaged=self._damaged,
        )

    def _make(self) -> None:
        """Make what is missing: what cleans up temporary folders may have been here."""
        for folder in (self._contents, self._names, self._temp, self._me / "uses"):
            folder.mkdir(parents=True, exist_ok=True)

    # -- Names --

    def _file(self, key: str) -> Path:
        return self._names / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()

    def _read(self, key: str) -> _Name | None:
        return _decode(self._file(key))

    # -- Contents --

    def _use_sound(self, content: str, target_model: str) -> Path | None:
        """Begin to use a content that is there and undamaged."""
        path = self._contents / content
        with self._locked():
            if not path.is_dir():
                return None
            self._use(content)
        try:
            if _named(path) == content:
                os.utime(path)
                return path
            fault = "its files are not what they were"
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.release(path)
                raise
            fault = str(error)
        self.release(path)
        self._damaged += 1
        logger.error("is damaged in the disk cache and fetched again: %s", fault, extra={"model": target_model})
        with tempfile.TemporaryDirectory(dir=self._temp) as temp, self._locked():  # it is deleted without the lock
            if path.is_dir():
                path.rename(Path(temp, content))
                self._write_bytes(self._bytes() - _bytes(content))
        return None

    def _add(self, content: str, files: Path) -> Path:
        """Take in a content, and begin to use it."""
        path = self._contents / content
        evicted = 0
        with self._locked():
            try:
                files.rename(path)
            except OSError as error:
                # Somebody else was first; theirs is as good.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                self._write_bytes(self._bytes() + _bytes(content))
            self._use(content)
            if self._bytes() > self._budget:
                into = files.with_name("evicted")
                into.mkdir()
                evicted = self._evict(into)
        if evicted:
            for name in self._names.iterdir():
                known = _decode(name)
                if known is None or not (self._contents / known.content).is_dir():
                    name.unlink(missing_ok=True)
        return path

    def _evict(self, into: Path) -> int:
        """Move out what was not used for longest, but nothing that a process uses; return how many."""
        used: set[str] = set()
        for user in self._users.iterdir():
            if _lives(user):
                with contextlib.suppress(FileNotFoundError):  # it left by itself, just now
                    used.update(os.listdir(user / "uses"))
        with os.scandir(self._contents) as scan:
            contents = sorted((entry.stat().st_mtime_ns, entry.name) for entry in scan)
        total = sum(_bytes(content) for _, content in contents)
        count = 0
        for _, content in contents:
            if total <= self._budget * KEEP:
                break
            if content not in used:
                (self._contents / content).rename(into / content)
                total -= _bytes(content)
                count += 1
        self._write_bytes(total)
        self._evictions += count
        full = total > self._budget
        if full and not self._full:
            logger.warning(
                "the disk cache has %d bytes, more than its %d: loaded models use them; raise cache_size",
                total,
                self._budget,
            )
        self._full = full
        return count

    def _outdate(self, content: str) -> None:
        """Have a content leave before all others, unless it is used again."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._contents / content, (0, 0))

    # -- With the lock --

    def _use(self, content: str) -> None:
        if not self._uses.get(content):
            (self._me / "uses" / content).touch()
        self._uses[content] = self._uses.get(content, 0) + 1

    def _bytes(self) -> int:
        return int(os.pread(self._lock, 20, 0) or b"0")

    def _write_bytes(self, count: int) -> None:
        os.pwrite(self._lock, b"%020d" % max(count, 0), 0)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all processes, and among threads, which it does not tell apart."""
        with self._threads:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)


def _decode(file: Path) -> _Name | None:
    try:
        name = msgspec.json.decode(file.read_bytes(), type=_Name)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:  # cut off, when the machine went down
        return None
    return name if name.content.replace("-", "").isalnum() else None


def _named(files: Path) -> str:
    """Return the name of a content."""
    return "-".join(map(str, digest(files)))


def _bytes(content: str) -> int:
    """Return what a content takes on the disk, by its name."""
    return int(content.partition("-")[2] or 0)


def _lives(user: Path) -> bool:
    """Say whether a process is there: the kernel lets go of its lock whichever way it ends."""
    try:
        lock = os.open(user / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _leave(lock: int, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)

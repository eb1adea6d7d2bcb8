"""A model store that is a local folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import (
    BadArtifact,
    BadTargetModel,
    LoadFailed,
    ManyModelsError,
    ModelNotFound,
    Overloaded,
    SettingsError,
)
from .base import ARCHIVES, Found, Limits
from .cache import DiskCache
from .files import is_within, walk
from .names import check_target_model
from .unpack import unpack

logger = logging.getLogger(__name__)


class LocalStore:
    """The artifacts below a folder: archives, and the files and folders that plugins claim.

    A folder is served where it lies, unless copies are asked for; archives and bare files are
    unpacked or copied into the cache. Links are followed as long as they stay below the folder;
    names that start with a dot are hidden.
    """

    def __init__(
        self,
        root: Path,
        cache: DiskCache,
        is_artifact: Callable[[Path], bool],
        limits: Limits | None = None,
        *,
        copies: bool = False,
    ) -> None:
        """Open a store.

        :param is_artifact: says whether a file or folder that is no archive is a model.
        :param copies: whether folders are copied into the cache, too, so that what is served does not change.
        :raises SettingsError: if the root is not a folder.
        """
        if not root.is_dir():
            raise SettingsError(f"the model store {str(root)!r} is not a folder; create it or name another")
        self._root = root.absolute()
        self.cache = cache
        self._is_artifact = is_artifact
        self._limits = limits or Limits()
        self._copies = copies

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version; see `Store.find`."""
        check_target_model(target_model)
        if any(segment.startswith(".") for segment in target_model.split("/")):
            raise _missing(target_model)
        with _reading(target_model):
            real = self._real(target_model)
            status = real.stat()
            if stat.S_ISDIR(status.st_mode):
                if _is_group(real) and not self._is_artifact(self._root / target_model):
                    raise _missing(target_model)
                return self._folder(target_model, real)
            if not stat.S_ISREG(status.st_mode):
                raise BadArtifact(f"{target_model!r} is neither a file nor a folder")
            is_archive = target_model.endswith(ARCHIVES)
            return Found(target_model, _version(status), status.st_size, "archive" if is_archive else "file")

    def open(self, found: Found) -> Path:
        """Return a folder with the unpacked files; see `Store.open`."""
        with _reading(found.target_model):
            if found.kind == "folder" and not self._copies:
                return self._real(found.target_model)
            return self.cache.get(self._key(found.target_model), found, lambda into: self._fill(found, into))

    def fetch(self, target_model: str) -> None:
        """Return None: there are no requests."""

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; see `Store.kept`."""
        return self.cache.find(self._key(target_model), target_model)

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact; see `Store.forget`."""
        self.cache.forget(self._key(found.target_model))

    def close(self) -> None:
        """Do nothing: nothing here takes long."""

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel, ordered by the segments of its path; see `Store.list`.

        A folder that is reached in several ways, through links, is listed once.
        """
        root = os.path.realpath(self._root)
        names = self._list("", root, {root})
        return itertools.dropwhile(lambda name: name.split("/") <= after.split("/"), names) if after else names

    def _list(self, prefix: str, folder: str, seen: set[str]) -> Iterator[str]:
        try:
            with os.scandir(folder) as scan:
                entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            logger.warning("models in %r are not listed: %s", prefix or ".", error.strerror)
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                check_target_model(name)
                real = str(self._real(name)) if entry.is_symlink() else entry.path
                is_folder = entry.is_dir()
                if not (is_folder or entry.is_file()):
                    continue
                is_archive = name.endswith(ARCHIVES) and not is_folder
                is_artifact = is_archive or self._is_artifact(self._root / name)
            except (ManyModelsError, OSError) as error:
                logger.warning("%r is not listed: %s", name, error)
                continue
            if is_artifact:
                yield name
            elif is_folder and real not in seen:
                seen.add(real)
                yield from self._list(name + "/", real, seen)

    def _real(self, target_model: str) -> Path:
        root = path = os.path.realpath(self._root)
        for segment in target_model.split("/"):
            path = f"{path}/{segment}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                real = os.path.realpath(f"{root}/{target_model}", strict=True)
                if not is_within(real, root):
                    raise BadTargetModel(f"TargetModel {target_model!r} is a link out of the model store")
                return Path(real)
        return Path(path)  # without links it is where its name says

    def _folder(self, target_model: str, folder: Path) -> Found:
        digest = hashlib.sha256()
        size = 0
        for count, (name, status) in enumerate(walk(folder, target_model), start=1):
            if count > self._limits.members:
                raise BadArtifact(f"{target_model!r} holds more than {self._limits.members} files; raise the limit")
            line = f"{name}\0{status.st_mtime_ns}\0{status.st_size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            size += status.st_size
        return Found(target_model, digest.hexdigest()[:32], size, "folder")

    def _key(self, target_model: str) -> str:
        return f"{self._root}\0{target_model}"

    def _fill(self, found: Found, into: Path) -> None:
        name = found.target_model
        path = self._root / name
        real = self._real(name)
        if found.kind == "archive":
            unpack(real, into, self._limits, name)
        elif found.size > self._limits.bytes:
            raise BadArtifact(f"{name!r} has more than {self._limits.bytes} bytes; raise the limit")
        elif found.kind == "folder":
            for file, _ in walk(real, name):
                (into / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(real / file, into / file)
        else:
            shutil.copyfile(real, into / path.name)
        version = self._folder(name, real).version if found.kind == "folder" else _version(real.stat())
        if version != found.version:
            raise LoadFailed(f"{name!r} was replaced while it was read; ask again")


def _is_group(folder: Path) -> bool:
    """Say whether a folder that nobody claims only groups artifacts.

    Any other is let through, so that who dropped it is told that no plugin claims it, and why.
    """
    with os.scandir(folder) as scan:
        return all(entry.name.startswith(".") or entry.name.endswith(ARCHIVES) or entry.is_dir() for entry in scan)


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _missing(target_model: str) -> ModelNotFound:
    return ModelNotFound(
        f"there is no artifact {target_model!r} in the model store; 'manymodels models' lists what is there"
    )


@contextlib.contextmanager
def _reading(target_model: str) -> Iterator[None]:
    """Turn what the file system refuses into an error for the client."""
    try:
        yield
    except PermissionError as error:
        raise LoadFailed(
            f"{target_model!r} cannot be read: permission denied; let the user that the server runs as read it"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise _missing(target_model) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Overloaded("the server has as many files and connections open as it may; raise ulimit -n") from error
        raise LoadFailed(f"{target_model!r} cannot be fetched: {error.strerror or error}") from error

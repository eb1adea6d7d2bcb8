"""A model store that is somewhere else, and is read by its address."""

from __future__ import annotations

import hashlib
import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import BadArtifact, BadTargetModel, LoadFailed, ModelNotFound, StoreUnavailable
from .base import ARCHIVES, Found, Limits
from .cache import DiskCache
from .files import DEPTH
from .names import check_target_model, path_fault
from .objects import LAST, Object, Objects
from .unpack import unpack

logger = logging.getLogger(__name__)

#: Seconds for which a store that could not be reached is not tried again.
AWAY = 2.0
#: Entries of a folder that are looked at to tell whether it is an artifact.
LOOKED_AT = 1000
#: The folder below an artifact's top in which plugins look for files by name.
CODE = "code/"


class RemoteStore:
    """The artifacts below an address: archives, and the files and folders that plugins claim.

    Everything is copied into the cache under its version, and served from there. Names that start with
    a dot are hidden.
    """

    def __init__(
        self, objects: Objects, cache: DiskCache, is_artifact: Callable[[Path], bool], limits: Limits | None = None
    ) -> None:
        """Open a store; nothing is asked of it yet.

        :param is_artifact: says whether a file or folder that is no archive is a model. It is given empty
            files of the right names: a listing downloads nothing.
        """
        self._objects = objects
        self.cache = cache
        self._is_artifact = is_artifact
        self._limits = limits or Limits()
        self._reach = _Reach(objects.url)

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version; see `Store.find`."""
        check_target_model(target_model)
        if _hidden(target_model):
            raise _missing(target_model)
        with self._reach:
            found = self._objects.head(target_model)
            if found is not None:
                return _found(found)
            files = self._files(target_model)
        return Found(target_model, _digest(files), sum(file.size for file in files), "folder")

    def open(self, found: Found) -> Path:
        """Return a folder with the unpacked files; see `Store.open`."""
        try:
            return self.cache.get(self._key(found.target_model), found, lambda into: self._fill(found, into))
        except OSError as error:
            raise LoadFailed(f"{found.target_model!r} cannot be fetched: {error.strerror or error}") from error

    def fetch(self, target_model: str) -> tuple[Found, Path] | None:
        """Find an artifact and open it in one request; see `Store.fetch`."""
        check_target_model(target_model)
        name = PurePosixPath(target_model)
        # What has no ending is a folder, as a rule; and what the disk cache has need not be fetched.
        if _hidden(target_model) or not name.suffix or self.kept(target_model) is not None:
            return None
        try:
            return self.cache.add(self._key(target_model), target_model, lambda into: self._fetch(target_model, into))
        except StoreUnavailable:
            raise
        except (LoadFailed, ModelNotFound, OSError):
            return None  # whoever finds and opens it is told, with what was found

    def _fetch(self, name: str, into: Path) -> Found:
        """Fill a folder with the present version of an archive or a file."""
        begun = False
        archive = into.with_name("archive") if name.endswith(ARCHIVES) else None

        def place(file: Object) -> Path:
            nonlocal begun
            begun = True
            self._check_size(_found(file))
            return archive or into / PurePosixPath(name).name

        with self._reach:
            try:
                file = self._objects.fetch(name, place)
            except ConnectionError as error:
                if begun:
                    raise _cut_off(name, error) from error
                raise
        if file is None:
            raise _missing(name)
        if archive is not None:
            unpack(archive, into, self._limits, name)
        return _found(file)

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; see `Store.kept`."""
        return self.cache.find(self._key(target_model), target_model)

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact; see `Store.forget`."""
        self.cache.forget(self._key(found.target_model))

    def close(self) -> None:
        """End what is under way; see `Store.close`."""
        self._objects.close()

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel, in the order of the store's listing; see `Store.list`.

        Listed is what plugins claim by name. What they claim by its content only is served all the same.
        """
        if after:
            check_target_model(after)
        with self._reach:
            yield from self._list("", after)

    def _list(self, folder: str, after: str = "") -> Iterator[str]:
        start = ""
        if after:
            segment, inside, rest = after.partition("/")
            if inside:
                yield from self._list(f"{folder}{segment}/", rest)
            is_file = not inside and (segment.endswith(ARCHIVES) or self._objects.head(folder + segment) is not None)
            start = segment if is_file else f"{segment}/{LAST}"
        for entry in self._objects.entries(folder, start):
            name = entry.name.removesuffix("/")
            try:
                check_target_model(name)
            except BadTargetModel as error:
                logger.warning("%r is not listed: %s", name, error)
                continue
            if _hidden(name[len(folder) :]):
                continue
            if not entry.is_folder:
                if name.endswith(ARCHIVES) or self._claimed(name, None):
                    yield name
            elif self._claimed(name, list(itertools.islice(self._objects.entries(entry.name), LOOKED_AT))):
                yield name
            else:
                yield from self._list(entry.name)

    def _claimed(self, name: str, inside: Sequence[Object] | None) -> bool:
        """Say whether a plugin claims, by names alone, a file or a folder of these entries."""
        names = [""]
        if inside is not None:
            prefix = len(name) + 1
            code = next((entry for entry in inside if entry.name == f"{name}/{CODE}"), None)
            entries = [*inside, *(itertools.islice(self._objects.entries(code.name), LOOKED_AT) if code else ())]
            names = [entry.name[prefix:] for entry in entries if not entry.is_folder]
            if all(_hidden(file) for file in names):
                return False
        with tempfile.TemporaryDirectory(prefix="manymodels-") as temp:
            path = Path(temp, PurePosixPath(name).name)
            for file in names:
                if file and (path_fault(file) is not None or _hidden(file)):
                    continue
                empty = path / file if file else path
                empty.parent.mkdir(parents=True, exist_ok=True)
                empty.touch()
            return self._is_artifact(path)

    def _files(self, name: str) -> Sequence[Object]:
        """Return the files of a folder that is an artifact, or that somebody took for one.

        :raises ModelNotFound: if there is nothing, or it only groups artifacts.
        :raises BadArtifact: if it holds what an artifact may not.
        """
        entries = self._objects.entries(f"{name}/")
        first = list(itertools.islice(entries, LOOKED_AT))
        prefix = len(name) + 1
        groups = (entry.is_folder or entry.name.endswith(ARCHIVES) or _hidden(entry.name[prefix:]) for entry in first)
        if all(groups) and not self._claimed(name, first):
            raise _missing(name)
        if len(first) == LOOKED_AT or any(entry.is_folder for entry in first):
            listed = self._objects.files(f"{name}/")
        else:
            listed = iter(first)
        files: list[Object] = []
        for file in listed:
            relative = file.name[prefix:]
            if _hidden(relative) or "__pycache__" in relative.split("/"):
                continue
            if relative.endswith("/"):  # some tools mark folders by an empty object
                continue
            fault = path_fault(relative)
            if fault is None and relative.count("/") > DEPTH:
                fault = f"is more than {DEPTH} folders deep"
            if fault is not None:
                raise BadArtifact(f"{name!r} holds a file whose name {relative[:200]!r} {fault}")
            files.append(file)
            if len(files) > self._limits.members:
                raise BadArtifact(f"{name!r} holds more than {self._limits.members} files; raise the limit")
        if not files:
            raise _missing(name)
        return files

    def _key(self, target_model: str) -> str:
        return f"{self._objects.url}\0{target_model}"

    def _fill(self, found: Found, into: Path) -> None:
        name = found.target_model
        self._check_size(found)
        wanted = Object(name, found.version, found.size)
        if found.kind == "file":
            self._download(wanted, into / PurePosixPath(name).name)
        elif found.kind == "archive":
            archive = into.with_name("archive")
            self._download(wanted, archive)
            unpack(archive, into, self._limits, name)
        else:
            with self._reach:
                files = self._files(name)
            if _digest(files) != found.version:
                raise LoadFailed(f"{name!r} was replaced while it was read; ask again")
            for file in files:
                path = into / file.name[len(name) + 1 :]
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError) as error:
                    raise BadArtifact(f"{name!r} holds a file and a folder of the same name: {file.name!r}") from error
                self._download(file, path)

    def _check_size(self, found: Found) -> None:
        if found.size > self._limits.bytes:
            raise BadArtifact(f"{found.target_model!r} has more than {self._limits.bytes} bytes; raise the limit")

    def _download(self, wanted: Object, path: Path) -> None:
        try:
            self._objects.download(wanted, path)
        except ConnectionError as error:
            raise _cut_off(wanted.name, error) from error
        if path.stat().st_size != wanted.size:
            raise StoreUnavailable(f"{wanted.name!r} was cut off: it has {wanted.size} bytes")


class _Reach:
    """Whether the store can be reached.

    While it cannot, one thread after the other finds out, and all others are told at once: they would
    wait as long as that takes, each in one of few threads.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._error: str | None = None
        self._until = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._error is None:
                return
            now = time.monotonic()
            if now < self._until:
                raise StoreUnavailable(self._error)
            self._until = now + AWAY

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ConnectionError):
            message = f"the model store {self._url} cannot be reached: {error}"
            with self._lock:
                known, self._error = self._error, message
                self._until = time.monotonic() + AWAY
            if known is None:
                logger.error("%s; what is loaded is served on", message)
            raise StoreUnavailable(message) from error
        if self._error is not None and not isinstance(error, GeneratorExit | StoreUnavailable):
            with self._lock:
                self._error = None
            logger.warning("the model store %s can be reached again", self._url)


def _found(file: Object) -> Found:
    kind: Literal["archive", "file"] = "archive" if file.name.endswith(ARCHIVES) else "file"
    return Found(file.name, file.version, file.size, kind)


def _cut_off(name: str, error: ConnectionError) -> StoreUnavailable:
    return StoreUnavailable(f"{name!r} cannot be fetched: {error}")


def _hidden(name: str) -> bool:
    return any(segment.startswith(".") for segment in name.split("/"))


def _digest(files: Sequence[Object]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name}\0{file.version}\0{file.size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _missing(target_model: str) -> ModelNotFound:
    return ModelNotFound(
        f"there is no artifact {target_model!r} in the model store; 'manymodels models' lists what is there"
    )

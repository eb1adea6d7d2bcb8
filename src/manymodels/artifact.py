"""One unpacked model directory, and what can be known of it without executing anything."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from . import pickles
from .errors import BadArtifact
from .schema import Schema

#: The optional file in which an artifact says which plugin serves it.
MANIFEST = "manymodels.json"
_MANIFEST_LIMIT = 1 << 20
#: The optional file of requests and the answers that the model must give to them.
GOLDEN = "golden.jsonl"
#: The optional file of the digests of all others, signed.
SIGNATURE = "manymodels.sig"
_OWN = (MANIFEST, GOLDEN, SIGNATURE)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``manymodels.json``."""

    #: The plugin that serves the artifact; None: the plugins are asked.
    framework: str | None = None
    #: Handed to the plugin as ``context.options``.
    settings: dict[str, Any] = {}
    #: Whether the model is to have a worker process for itself.
    isolated: bool = False
    #: What the model takes and gives, over what its plugin says; bodies without its columns are refused.
    schema: Schema | None = None


class Artifact:
    """An unpacked model directory."""

    def __init__(self, path: Path, name: str | None = None, *, only: str | None = None) -> None:
        """Take the files of a directory, or one of them alone as if the directory held no other.

        :param name: the TargetModel; None: the directory's name.
        :param only: the file's name, where the artifact is a bare file beside others.
        """
        #: Absolute path of the directory.
        self.path = path
        self._only = only
        self._roots: dict[str, str | None] = {}
        #: The TargetModel, for messages.
        self.name = name or path.name

    def __repr__(self) -> str:
        return f"Artifact({self.name!r}, {str(self.path)!r})"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Names of all regular files, relative, with ``/``, sorted; what starts with a dot is left out.

        Archives packed on macOS carry ``._model.joblib`` beside every file, which is no model.

        :raises BadArtifact: if a folder cannot be read.
        """
        if self._only is not None:
            return (self._only,)
        found: list[str] = []
        top = str(self.path)
        for folder, folders, names in os.walk(top, onerror=self._unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            prefix = "" if folder == top else os.path.relpath(folder, self.path).replace(os.sep, "/") + "/"
            visible = (name for name in names if not name.startswith("."))
            found.extend(prefix + name for name in visible if Path(folder, name).is_file())
        return tuple(sorted(found))

    def match(self, *patterns: str) -> list[str]:
        """Return the files at the top of the artifact whose names match a shell pattern, in their order.

        Cheaper than `files`, which looks into folders too. The platform's own files are left out.
        """
        return [name for pattern in patterns for name in filter(_matching(pattern), self._top)]

    @cached_property
    def _top(self) -> list[str]:
        if self._only is not None:
            return [self._only]
        try:
            with os.scandir(self.path) as scan:
                visible = (entry for entry in scan if not entry.name.startswith(".") and entry.name not in _OWN)
                return sorted(entry.name for entry in visible if entry.is_file())
        except OSError as error:
            self._unreadable(error)

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.path / name).stat().st_size for name in self.files)

    @cached_property
    def manifest(self) -> Manifest:
        """The artifact's manifest, or an empty one.

        :raises BadArtifact: if it is not valid.
        """
        content = self.read(MANIFEST, _MANIFEST_LIMIT)
        if content is None:
            return Manifest()
        try:
            return msgspec.json.decode(content, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadArtifact(f"{MANIFEST} of {self.name!r} is not valid: {error}") from error

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the content of a file of the artifact; None if there is none, as in a bare file.

        :param limit: most bytes it may have.
        :raises BadArtifact: if it has more, is no file, or cannot be read.
        """
        if self._only is not None or not os.path.lexists(f"{self.path}/{name}"):
            return None
        path = self.path / name
        if not path.is_file():
            raise BadArtifact(f"{name} of {self.name!r} is not a file")
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            self._unreadable(error)
        if len(content) > limit:
            raise BadArtifact(f"{name} of {self.name!r} has more than {limit} bytes")
        return content

    def pickle_root(self, name: str) -> str | None:
        """Return the dotted name of the class that a pickle or joblib file holds; None if it cannot be told.

        The file is read, never unpickled.

        :raises BadArtifact: if the file cannot be read.
        """
        if name not in self._roots:  # several plugins ask for that of the same file
            try:
                self._roots[name] = pickles.root_class(self.path / name)
            except OSError as error:
                self._unreadable(error)
        return self._roots[name]

    def _unreadable(self, error: OSError) -> NoReturn:
        what = Path(error.filename or "").name
        raise BadArtifact(f"{what!r} of {self.name!r} cannot be read: {error.strerror}") from error


@lru_cache(256)
def _matching(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what says whether a name matches a shell pattern; the plugins ask for the same few of every artifact."""
    return re.compile(fnmatch.translate(pattern)).match

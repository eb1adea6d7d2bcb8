"""What a remote store is made of: objects with names, somewhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

#: What sorts behind every name in a folder, appended to the folder's own name.
LAST = "\U0010ffff"


class Object(msgspec.Struct, frozen=True):
    """One version of an object, or a folder, whose name ends with ``/``."""

    #: Relative to the store.
    name: str
    #: Another string whenever the content is another.
    version: str = ""
    #: Bytes.
    size: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.name.endswith("/")


def split(url: str) -> tuple[str, str, str]:
    """Return an address without slashes at its end, its bucket, and what all names below it begin with."""
    url = url.rstrip("/")
    bucket, _, prefix = url.partition("://")[2].partition("/")
    return url, bucket, prefix and f"{prefix}/"


class Objects(Protocol):
    """Objects below an address, as a kind of store keeps them.

    All methods block; several threads may call them. They raise `ConnectionError` where the store cannot
    be reached at all, `StoreUnavailable` where it answers that it cannot answer now, and `LoadFailed`
    where it refuses to, with a text that names the object and the remedy.
    """

    #: The address, as people write it.
    url: str

    def head(self, name: str) -> Object | None:
        """Return the present version of an object; None if there is none of that name."""

    def fetch(self, name: str, place: Callable[[Object], Path]) -> Object | None:
        """Write the present version of an object to a new file, and return it: `head` and `download` in one request.

        None says nothing: there may be no such object, or no request that does both.

        :param place: is told of the object before its content comes, and returns the path of the file.
        """

    def entries(self, folder: str, after: str = "") -> Iterator[Object]:
        """Yield the objects and folders directly in a folder, sorted by name, as they are asked for.

        :param folder: ``""`` for the store itself, otherwise its name with ``/`` at the end.
        :param after: a name relative to the folder; what sorts up to it is left out.
        """

    def files(self, folder: str) -> Iterator[Object]:
        """Yield the objects in a folder and the folders in it, as they are asked for, in a fixed order."""

    def close(self) -> None:
        """End what is under way in other threads, which then fails."""

    def download(self, wanted: Object, path: Path) -> None:
        """Write exactly this version of an object to a new file.

        :raises LoadFailed: if it has been replaced or has gone.
        """

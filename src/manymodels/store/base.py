"""What every model store offers, wherever its artifacts are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from .cache import DiskCache

#: Endings of the names that are archives; everything else is an artifact if a plugin claims it.
ARCHIVES = (".tar.gz", ".tgz")


class Found(msgspec.Struct, frozen=True):
    """One version of one artifact."""

    target_model: str
    #: Another string whenever the content is another.
    version: str
    #: Bytes as stored: an archive's are compressed.
    size: int
    kind: Literal["archive", "folder", "file"]


class Limits(msgspec.Struct, frozen=True):
    """What an artifact may hold, so that a hostile one cannot fill the disk."""

    #: Files and folders of one artifact.
    members: int = 10_000
    #: Bytes of all files, unpacked.
    bytes: int = 8 << 30
    #: Unpacked bytes per stored byte, asked of archives that unpack to more than 64 MiB. Zeros
    #: compress 1000 times; models of numbers 1 to 20 times.
    ratio: int = 200


class Store(Protocol):
    """Which artifacts there are, and how one gets onto the local disk.

    All methods block and are called in a thread.
    """

    #: Where `open` keeps what is not served where it lies, and where that is to be released.
    cache: DiskCache

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version.

        :raises BadTargetModel: if the name is not allowed or leads out of the store.
        :raises ModelNotFound: if there is no such artifact.
        :raises LoadFailed: if it is there and cannot be read.
        """

    def open(self, found: Found) -> Path:
        """Return a local folder with the unpacked files, which must not be written to; it stays until it is released.

        :raises ModelNotFound: if the artifact has gone since it was found.
        :raises BadArtifact: if it is corrupt, empty, too large or hostile.
        :raises LoadFailed: if it cannot be read, or was replaced while it was read.
        """

    def fetch(self, target_model: str) -> tuple[Found, Path] | None:
        """Find an artifact and open it, where that takes one request instead of two.

        None says nothing: `find` and `open` say what there is, or why it cannot be had.

        :raises StoreUnavailable: if the store cannot be reached, or breaks off.
        """

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; None if it has none."""

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact, as it has gone; the store itself is never changed."""

    def close(self) -> None:
        """End what is under way in other threads, which then fails."""

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel, in an order that stays the same.

        :param after: a name that was yielded; only what follows it is.
        :raises LoadFailed: if the store cannot be listed.
        """

"""A model store of which only signed artifacts are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotTrusted
from .base import Found, Store
from .signatures import verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class TrustedStore:
    """Another store, whose artifacts are verified each time they are opened.

    That store has to keep copies of its own of what it opens: what lies where others may write could be changed after
    it was verified.
    """

    def __init__(self, store: Store, keys: Sequence[Ed25519PublicKey]) -> None:
        self.cache = store.cache
        self._store = store
        self._keys = keys

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version; see `Store.find`."""
        return self._store.find(target_model)

    def open(self, found: Found) -> Path:
        """Return a folder with the unpacked files; see `Store.open`.

        :raises NotTrusted: if they are not those that one of the keys has signed.
        """
        path = self._store.open(found)
        try:
            verify(path, found.target_model, self._keys)
        except NotTrusted:
            self.cache.release(path)
            raise
        return path

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; see `Store.kept`."""
        return self._store.kept(target_model)

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact; see `Store.forget`."""
        self._store.forget(found)

    def close(self) -> None:
        """End what is under way; see `Store.close`."""
        self._store.close()

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel; see `Store.list`."""
        return self._store.list(after)

"""A model store of which only what the operator trusts is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoadFailed, NotTrusted
from ..policy import Policy
from .base import Found, Store
from .signatures import verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class TrustedStore:
    """Another store, of which only allowed artifacts are found, and verified each time they are opened.

    With keys, that store has to keep copies of its own of what it opens: what lies where others may
    write could be changed after it was verified.
    """

    def __init__(
        self, store: Store, address: str, policy: Policy | None, keys: Sequence[Ed25519PublicKey] | None
    ) -> None:
        """Take what the policy allows and one of the keys has signed.

        :param address: of the store, which its artifacts' begin with.
        """
        self.cache = store.cache
        self._store = store
        self._address = address.rstrip("/")
        self._policy = policy or Policy()
        self._keys = keys

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version; see `Store.find`.

        :raises NotTrusted: if the policy does not allow artifacts from there.
        """
        found = self._store.find(target_model)
        self._policy.check_source(target_model, f"{self._address}/{target_model}")
        return found

    def open(self, found: Found) -> Path:
        """Return a folder with the unpacked files; see `Store.open`.

        :raises NotTrusted: if they are not those that one of the keys has signed.
        """
        return self._verified(self._store.open(found), found)

    def fetch(self, target_model: str) -> tuple[Found, Path] | None:
        """Find an artifact and open it in one request; see `Store.fetch`."""
        if not self._allows(target_model) or (fetched := self._store.fetch(target_model)) is None:
            return None
        found, path = fetched
        try:
            return found, self._verified(path, found)
        except NotTrusted:  # whoever opens it is told, with what was found
            return None

    def _verified(self, path: Path, found: Found) -> Path:
        if self._keys is None:
            return path
        try:
            verify(path, found.target_model, self._keys)
        except LoadFailed:  # it is not what was signed, or cannot be read
            self.cache.release(path)
            raise
        return path

    def _allows(self, target_model: str) -> bool:
        return self._policy.allows_source(target_model, f"{self._address}/{target_model}")

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; see `Store.kept`."""
        return self._store.kept(target_model) if self._allows(target_model) else None

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact; see `Store.forget`."""
        self._store.forget(found)

    def close(self) -> None:
        """End what is under way; see `Store.close`."""
        self._store.close()

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel that the policy allows; see `Store.list`."""
        return filter(self._allows, self._store.list(after))

"""Several stores as one, so that what is below them need not know that there are several."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ModelNotFound
from .base import Found, Store
from .cache import DiskCache


class Mounts:
    """Stores under names of two segments, which the names of their artifacts begin with.

    ``churn/blue/team/x.tar.gz`` is ``team/x.tar.gz`` in the store that is mounted as ``churn/blue``.
    """

    def __init__(self, cache: DiskCache) -> None:
        """Begin with none.

        :param cache: that of all the stores.
        """
        self.cache = cache
        self._stores: dict[str, Store] = {}

    def mount(self, name: str, store: Store) -> None:
        """Add a store under a name that is free."""
        assert name not in self._stores
        assert name.count("/") == 1
        self._stores[name] = store

    def unmount(self, name: str) -> None:
        """Take a store out; what is under way in it fails."""
        self._stores.pop(name).close()

    def find(self, target_model: str) -> Found:
        """Return the artifact's present version; see `Store.find`."""
        store, name = self._split(target_model)
        return msgspec.structs.replace(store.find(name), target_model=target_model)

    def open(self, found: Found) -> Path:
        """Return a folder with the unpacked files; see `Store.open`."""
        store, name = self._split(found.target_model)
        return store.open(msgspec.structs.replace(found, target_model=name))

    def fetch(self, target_model: str) -> tuple[Found, Path] | None:
        """Find an artifact and open it in one request; see `Store.fetch`."""
        store, name = self._split(target_model)
        if (fetched := store.fetch(name)) is None:
            return None
        found, path = fetched
        return msgspec.structs.replace(found, target_model=target_model), path

    def kept(self, target_model: str) -> Found | None:
        """Return the version of an artifact that the disk cache has; see `Store.kept`."""
        store, name = self._split(target_model)
        found = store.kept(name)
        return None if found is None else msgspec.structs.replace(found, target_model=target_model)

    def forget(self, found: Found) -> None:
        """Have the disk cache forget an artifact; see `Store.forget`."""
        try:
            store, name = self._split(found.target_model)
        except ModelNotFound:  # its store was taken out
            return
        store.forget(msgspec.structs.replace(found, target_model=name))

    def close(self) -> None:
        """End what is under way; see `Store.close`."""
        for store in self._stores.values():
            store.close()

    def list(self, after: str = "") -> Iterator[str]:
        """Yield every TargetModel, one store after the other; see `Store.list`."""
        mount, name = _cut(after)
        for other in sorted(self._stores):
            if other >= mount and (store := self._stores.get(other)) is not None:
                inside = store.list(name if other == mount else "")
                yield from map("/".join, zip(itertools.repeat(other), inside, strict=False))

    def _split(self, target_model: str) -> tuple[Store, str]:
        mount, name = _cut(target_model)
        store = self._stores.get(mount)
        if store is None:
            raise ModelNotFound(
                f"there is no artifact {target_model!r}: names begin with EndpointName and variant here; "
                f"'manymodels models' lists what is there"
            )
        return store, name


def _cut(target_model: str) -> tuple[str, str]:
    first, _, rest = target_model.partition("/")
    second, _, name = rest.partition("/")
    return f"{first}/{second}", name

"""The file that maps EndpointNames to stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from ..endpoint import NAME, Routes, Variant
from ..errors import SettingsError
from ..store import DiskCache, Mounts, Store
from .parts import location

_Name = Annotated[str, msgspec.Meta(pattern=f"^({NAME.pattern})$")]


class _Variant(msgspec.Struct, forbid_unknown_fields=True):
    store: str
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


def open_endpoints(path: Path, cache: DiskCache, open_store: Callable[[str | Path], Store]) -> tuple[Mounts, Routes]:
    """Open the stores of all variants of all endpoints.

    :param cache: that of all stores.
    :param path: the file, such as ``{"churn": {"AllTraffic": {"store": "s3://bucket/churn"}}}``; folders in it
        are relative to its own.
    :raises SettingsError: if it cannot be read, is none of that kind, or a store cannot be opened.
    """
    try:
        endpoints = msgspec.json.decode(path.read_bytes(), type=dict[_Name, dict[_Name, _Variant]])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the endpoints in {str(path)!r} cannot be read: {error}; write "
            f'{{"ENDPOINT": {{"VARIANT": {{"store": "FOLDER or s3://BUCKET/PREFIX", "weight": 1}}}}}}'
        ) from error
    mounts, routes = Mounts(cache), Routes()
    for endpoint, variants in endpoints.items():
        if not any(variant.weight for variant in variants.values()):
            raise SettingsError(f"endpoint {endpoint!r} in {str(path)!r} has no variant with a weight above 0")
        found = []
        for name, variant in variants.items():
            where = location(variant.store)
            mount = f"{endpoint}/{name}"
            mounts.mount(mount, open_store(where if isinstance(where, str) else path.parent / where))
            found.append(Variant(name=name, weight=variant.weight, mount=mount))
        routes.add(endpoint, found)
    if not endpoints:
        raise SettingsError(f"{str(path)!r} maps no endpoint; map one, or leave --endpoints out")
    return mounts, routes

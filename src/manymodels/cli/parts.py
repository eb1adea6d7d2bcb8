"""The parts that commands put together: model server and model store."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import click

from ..artifact import SIGNATURE, Artifact
from ..asynchronous import Queue, Runner
from ..errors import SettingsError
from ..metrics.record import Metrics
from ..plugins import Plugins
from ..server import BACKENDS, ModelServer
from ..settings import Settings, source
from ..store import DiskCache, Limits, LocalStore, RemoteStore, Store, TrustedStore, connect, read_keys

_ADDRESS = re.compile("[a-z][a-z0-9+.-]*://")


def create_server(settings: Settings, flags: dict[str, Any]) -> ModelServer:
    """Return the model server that the settings name.

    :param flags: what the settings were loaded with, for messages.
    :raises SettingsError: if it is not installed or cannot be imported.
    """
    name = settings.backend
    entries = {entry.name: entry for entry in metadata.entry_points(group=BACKENDS)}
    if name not in entries:
        raise SettingsError(
            f"backend is {name!r} ({source('backend', flags)}), which is not installed; "
            f"choose one of {', '.join(sorted(entries))}"
        )
    try:
        create = entries[name].load()
    except Exception as error:
        raise SettingsError(
            f"backend {name!r} cannot be imported ({type(error).__name__}: {error}); mend or reinstall its package"
        ) from error
    server: ModelServer = create(settings)
    return server


def create_runner(settings: Settings, metrics: Metrics) -> Runner | None:
    """Return what answers asynchronous invocations; None where the settings want none.

    :raises SettingsError: if a setting for them is missing, or their queue cannot be used.
    """
    output, folder = settings.async_output, settings.async_queue
    if output is None and folder is None:
        return None
    if folder is None or (output is None and not settings.emulate_sagemaker):
        raise SettingsError(
            "asynchronous invocations need both --async-output s3://BUCKET/PREFIX and --async-queue FOLDER"
        )
    connect(output or "s3://bucket", settings.load_timeout)  # which says what is missing
    exchange = importlib.import_module("manymodels.store.exchange").Exchange(settings.load_timeout)
    return Runner(
        Queue(folder, settings.async_queue_size),
        exchange,
        importlib.import_module("manymodels.asynchronous.notices").Notices(),
        metrics,
        at_a_time=settings.async_concurrency or max(1, settings.workers // 2),
        max_input=int(settings.async_max_body),
    )


class Location(click.Path):
    """A path, or an address such as ``s3://bucket/prefix``, which stays text; ``file://`` is a path."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(exists=exists, path_type=Path, resolve_path=exists)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a string or a Path."""
        if isinstance(value, str) and isinstance(value := location(value), str):
            return value
        return super().convert(value, param, ctx)


def location(text: str) -> str | Path:
    """Return where a store is, as people write it: an address stays text, a path or ``file://`` is a path."""
    if _ADDRESS.match(text):
        if not text.startswith("file://"):
            return text
        text = url2pathname(text.removeprefix("file://"))
    return Path(text)


def split(location: str | Path) -> tuple[str | Path, str]:
    """Return the store that the location of an artifact is in, and the artifact's TargetModel there."""
    if isinstance(location, Path):
        return location.parent, location.name
    parent, _, name = location.rstrip("/").rpartition("/")
    return parent, name


def open_cache(folder: Path, settings: Settings) -> DiskCache:
    """Return the disk cache in a folder.

    :raises SettingsError: if it is not one that can be used.
    """
    return DiskCache(folder, None if settings.cache_size is None else int(settings.cache_size))


def keep_apart(store: Path, cache_dir: Path | None) -> None:
    """Refuse a cache whose folders would be listed as models: what is hidden in a store is not.

    :raises SettingsError: naming both.
    """
    if cache_dir is None or not cache_dir.resolve().is_relative_to(store.resolve()):
        return
    if not any(part.startswith(".") for part in cache_dir.resolve().relative_to(store.resolve()).parts):
        raise SettingsError(
            f"cache_dir {str(cache_dir)!r} lies in the model store {str(store)!r}; name a folder outside"
        )


def open_store(location: str | Path, cache: DiskCache, settings: Settings, plugins: Plugins) -> Store:
    """Return the model store in a folder, or at an address, with what the operator trusts of it.

    :raises SettingsError: if it cannot be opened.
    """
    model_settings = settings.model_settings()
    keys = None if settings.trusted_keys is None else read_keys(settings.trusted_keys)

    def is_artifact(path: Path) -> bool:
        folder = path.is_dir()
        if keys is not None:  # no plugin is shown what is not verified yet
            return folder and (path / SIGNATURE).is_file()
        artifact = Artifact(path) if folder else Artifact(path.parent, path.name, only=path.name)
        return plugins.claims(artifact, model_settings)

    limits = Limits(members=settings.max_members, bytes=int(settings.max_unpacked))
    store: Store
    if isinstance(location, Path):
        keep_apart(location, settings.cache_dir)
        store = LocalStore(location, cache, is_artifact, limits, copies=keys is not None)
    else:
        store = RemoteStore(connect(location, settings.load_timeout), cache, is_artifact, limits)
    if keys is None and settings.policy is None:
        return store
    address = str(location.absolute()) if isinstance(location, Path) else location
    return TrustedStore(store, address, settings.policy, keys)

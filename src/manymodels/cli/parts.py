"""The parts that commands put together: model server and model store."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..errors import SettingsError
from ..plugins import Plugins
from ..server import BACKENDS, ModelServer
from ..settings import Settings, source
from ..store import DiskCache, Limits, LocalStore


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


def open_store(root: Path, cache: Path, settings: Settings, plugins: Plugins) -> LocalStore:
    """Return the model store in a folder.

    :raises SettingsError: if the store or its cache is not a folder that can be used.
    """
    model_settings = settings.model_settings()

    def is_artifact(path: Path) -> bool:
        folder = path.is_dir()
        artifact = Artifact(path) if folder else Artifact(path.parent, path.name, only=path.name)
        return plugins.claims(artifact, model_settings)

    limits = Limits(members=settings.max_members, bytes=int(settings.max_unpacked))
    return LocalStore(root, DiskCache(cache), is_artifact, limits)

"""Find a model's script: in its artifact, or the one that all models share."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from manymodels import Artifact, ModelSettings
from manymodels.errors import LoadFailed
from manymodels.store import Limits, unpack


def program(settings: ModelSettings) -> str:
    """Return the script's file name; the setting may lack the ``.py``."""
    name = settings.program
    return name if name.endswith(".py") else f"{name}.py"


def own_script(artifact: Artifact, settings: ModelSettings) -> Path | None:
    """Return the artifact's script; the one at its root goes before ``code/``."""
    script = _script_in(artifact.path, program(settings))
    # A bare file's folder may hold other artifacts, and a script that is not its own.
    return script if script is not None and str(script.relative_to(artifact.path)) in artifact.files else None


def find_script(artifact: Artifact, settings: ModelSettings) -> Path:
    """Return the artifact's script, or the shared one where it has none.

    :raises LoadFailed: if there is neither.
    """
    name = program(settings)
    script = own_script(artifact, settings)
    if script is None and settings.submit_directory is not None:
        script = _script_in(_shared_folder(settings.submit_directory), name)
        if script is None:
            raise LoadFailed(f"the submit directory {settings.submit_directory!r} holds no {name} and no code/{name}")
    if script is None:
        raise LoadFailed(f"{artifact.name!r} holds no {name} and no code/{name}, which the plugin 'custom' would run")
    return script


def _script_in(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / "code" / name) if path.is_file()), None)


def _shared_folder(address: str) -> Path:
    path = Path(address).absolute()
    if path.is_dir():
        return path
    if "://" in address:
        raise LoadFailed(
            f"the submit directory {address!r} is not on this machine; copy it to a folder or .tar.gz and name that"
        )
    if not path.is_file():
        raise LoadFailed(f"the submit directory {address!r} does not exist")
    return _unpacked(path)


def _unpacked(archive: Path) -> Path:
    """Unpack the archive once for all workers of this user; a changed archive is unpacked anew."""
    status = archive.stat()
    key = hashlib.sha256(f"{archive}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = _private_folder() / key
    if not folder.is_dir():
        try:
            unpack(archive, folder, Limits())
        except LoadFailed:
            # Another worker may have been first.
            if not folder.is_dir():
                raise
    return folder


def _private_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"manymodels-code-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # The name can be guessed, and what lies there is run: another user may have been here before.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise LoadFailed(f"{str(folder)!r} must be a folder that only its owner may write; remove it or set TMPDIR")
    return folder

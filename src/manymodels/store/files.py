"""The files of a folder that is, or becomes, an artifact."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadArtifact

#: Folders within folders that an artifact may have.
DEPTH = 64


def walk(folder: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative name and status of every file, in a fixed order.

    What starts with a dot and ``__pycache__`` is left out: running an artifact's code must not
    make another version of it.

    :param name: the artifact's name, for messages.
    :raises BadArtifact: at a link that is broken, leaves the folder or leads to a folder, and at
        anything that is neither file nor folder.
    """
    yield from _walk(str(folder), "", name)


def _walk(root: str, prefix: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    if prefix.count("/") > DEPTH:
        raise BadArtifact(f"{name!r} holds folders within folders, more than {DEPTH} deep")
    with os.scandir(os.path.join(root, prefix)) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        relative = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, relative + "/", name)
            continue
        if entry.is_symlink() and not _is_there(os.path.realpath(entry.path), os.path.realpath(root)):
            raise BadArtifact(
                f"{name!r} holds {relative!r}, a link that is broken or leads out of it; put the file there itself"
            )
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadArtifact(f"{name!r} holds {relative!r}, a link to a folder; put the folder there itself")
        if not stat.S_ISREG(status.st_mode):
            raise BadArtifact(f"{name!r} holds {relative!r}, which is neither a file nor a folder")
        yield relative, status


def _is_there(real: str, root: str) -> bool:
    return is_within(real, root) and Path(real).exists()


def is_within(path: str, root: str) -> bool:
    """Say whether a real path is the root or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")

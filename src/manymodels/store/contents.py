"""What the files of a folder are, as a digest, and what they take on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

#: Bytes that a disk gives out at a time; a folder takes as many.
BLOCK = 4096
#: No more: fresh memory for each MiB takes as long as to hash it does.
_CHUNK = 256 << 10


def digest(folder: Path) -> tuple[str, int]:
    """Return the SHA-256 of all names and contents below a folder, in hex, and the bytes they take on the disk.

    :raises OSError: if something cannot be read, or is neither a file nor a folder.
    """
    content = hashlib.sha256()
    taken = _add(content, os.fspath(folder), "")
    return content.hexdigest(), taken


def _add(content: hashlib._Hash, folder: str, prefix: str) -> int:
    taken = BLOCK
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            content.update(f"{name}/\0".encode("utf-8", "surrogateescape"))
            taken += _add(content, entry.path, f"{name}/")
            continue
        if not entry.is_file(follow_symlinks=False):
            raise OSError(errno.EINVAL, "Neither a file nor a folder", entry.path)
        with os.fdopen(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            # With its size before it, no content can be taken for the names behind it.
            content.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        taken += -(-size // BLOCK) * BLOCK
    return taken

"""Pack a model into the archive that SageMaker and this platform serve."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..artifact import SIGNATURE
from ..errors import BadArtifact
from .files import walk
from .names import path_fault
from .signatures import digest


def pack(source: Path, output: Path, beside: Mapping[str, bytes] = {}) -> list[str]:
    """Write a ``.tar.gz`` of a folder or a single file and return the names in it.

    The files stand at the archive's root. Names that start with a dot and ``__pycache__`` are
    left out. The same files make the same bytes.

    :param beside: content of further files by name, in place of those of the same name.
    :raises BadArtifact: if there is nothing to pack, or a link or special file in it.
    :raises OSError: if a file cannot be read or the output cannot be written.
    """
    files = _files(source, output)
    names = list({**files, **beside})
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".pack-") as temp:
        partial = Path(temp, output.name)
        with (
            partial.open("xb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in names:
                member = tarfile.TarInfo(name)
                with io.BytesIO(beside[name]) if name in beside else files[name].open("rb") as file:
                    member.size = file.seek(0, os.SEEK_END)
                    file.seek(0)
                    archive.addfile(member, file)
        partial.replace(output)
    return names


def digests(source: Path, output: Path, beside: Mapping[str, bytes] = {}) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of each file that `pack` would write.

    :raises BadArtifact: as `pack`; or if a name is not valid UTF-8, which a signature cannot hold.
    :raises OSError: if a file cannot be read.
    """
    found = {name: digest(path) for name, path in _files(source, output).items() if name not in beside}
    found.pop(SIGNATURE, None)
    for name, content in beside.items():
        found[name] = hashlib.sha256(content).hexdigest()
    for name in found:
        if (fault := path_fault(name)) is not None:
            raise BadArtifact(f"{str(source)!r} holds a file whose name {name!r} {fault}")
    return found


def _files(source: Path, output: Path) -> dict[str, Path]:
    if source.is_file():
        return {source.name: source}
    if not source.is_dir():
        raise BadArtifact(f"{str(source)!r} is neither a file nor a folder")
    found = {name: source / name for name, _ in walk(source, str(source))}
    files = {name: path for name, path in found.items() if not (output.exists() and path.samefile(output))}
    if not files:
        raise BadArtifact(f"{str(source)!r} holds no files")
    return files

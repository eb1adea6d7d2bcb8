"""Unpack an artifact's archive: everything in it is taken to be hostile."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import BadArtifact, LoadFailed
from .base import Limits
from .files import DEPTH
from .names import path_fault

#: An archive may unpack to this many bytes whatever its ratio, since tiny models of zeros exist.
RATIO_FLOOR = 64 << 20
#: Bytes of one extended header (a long name, pax attributes), and how many one member may have.
#: Paths end at 4 KiB, and there are four kinds.
EXTENDED = 16 << 10
EXTENDED_COUNT = 8
#: Bytes that are read, and unpacked, at a time.
_CHUNK = 256 << 10
_GZIP = b"\x1f\x8b"
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_IGNORED = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def unpack(archive: Path, into: Path, limits: Limits, name: str | None = None) -> None:
    """Unpack a ``.tar.gz`` into a new or empty folder; one extra top folder is left out.

    Only files and folders are taken, with ordinary permissions. On failure `into` is unchanged.

    :param name: what messages call the archive; None: its file name.
    :raises BadArtifact: if it is corrupt, empty, over a limit or holds anything else.
    :raises LoadFailed: if the files cannot be written.
    :raises OSError: if the archive cannot be opened.
    """
    name = name or archive.name
    with archive.open("rb") as file, tempfile.TemporaryDirectory(dir=into.parent, prefix=".unpack-") as temp:
        work = Path(temp, "files")
        work.mkdir()
        try:
            _Unpacking(file, work, limits, name).run()
            _top(work).rename(into)
        except EOFError as error:
            raise BadArtifact(f"{name!r} is truncated; upload it again") from error
        except gzip.BadGzipFile as error:
            raise BadArtifact(
                f"{name!r} is not a gzip archive, or is damaged ({error}); pack it with tar -czf"
            ) from error
        except (tarfile.TarError, zlib.error) as error:
            raise BadArtifact(f"{name!r} is damaged ({error}); upload it again") from error
        except OSError as error:
            raise LoadFailed(f"{name!r} cannot be unpacked: {error.strerror or error}") from error


def _top(work: Path) -> Path:
    """Return the folder that holds the model: the only one at the top, or the top itself.

    An archive with nothing but ``code`` is a model of code alone, not one in a folder too many.
    """
    top = [entry for entry in work.iterdir() if not entry.name.startswith(".")]
    if len(top) == 1 and top[0].name != "code" and top[0].is_dir():
        return top[0]
    return work


class _Tape:
    """What a gzip file unpacks to, front to back.

    Python's own reader hands 8 KiB at a time through two more, for which it takes 1 ms of processor time per MiB.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stored = b""
        self._stream: zlib._Decompress | None = None
        self._is_first = True
        self._piece = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer only at the end."""
        pieces = []
        while size and (piece := self.some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def some(self, size: int) -> bytes:
        """Return some of the bytes that come next, so many at most; none only at the end.

        :raises EOFError: if the file ends too early.
        :raises BadGzipFile: if it is none.
        :raises zlib.error: if it is damaged.
        """
        if self._at == len(self._piece):
            self._piece, self._at = self._unpacked(), 0
        piece = self._piece[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _unpacked(self) -> bytes:
        """Return what comes next, of one gzip stream after the other; nothing at the end."""
        while self._stream is not None or self._begins():
            assert self._stream is not None
            self._stored = self._stored or self._file.read(_CHUNK)
            at_end = not self._stored
            piece = self._stream.decompress(self._stored, _CHUNK)
            if self._stream.eof:
                self._stored, self._stream = self._stream.unused_data.lstrip(b"\0"), None
            else:
                self._stored = self._stream.unconsumed_tail
            if piece:
                return piece
            if at_end:
                raise EOFError
        return b""

    def _begins(self) -> bool:
        """Begin with the next stream, if there is one; zeros may lie between two."""
        while len(self._stored) < len(_GZIP) and (more := self._file.read(_CHUNK)):
            self._stored += more
            if not self._is_first:
                self._stored = self._stored.lstrip(b"\0")
        if not self._stored and not self._is_first:
            return False
        if not self._stored.startswith(_GZIP):
            raise gzip.BadGzipFile(f"Not a gzipped file ({self._stored[:2]!r})")
        self._stream = zlib.decompressobj(wbits=31)  # with a header and a checksum
        self._is_first = False
        return True


class _Unpacking:
    """One pass over an archive, front to back.

    Headers are parsed by tarfile, one block at a time. Its reader is not used: it holds an
    extended header of any length in memory, recurses over chains of them, keeps all members, and
    takes a damaged header for the archive's end.
    """

    def __init__(self, file: IO[bytes], work: Path, limits: Limits, name: str) -> None:
        stored = os.fstat(file.fileno()).st_size
        if stored == 0:
            raise BadArtifact(f"{name!r} is empty; upload it again")
        self._tape = _Tape(file)
        self._work = work
        self._name = name
        self._limits = limits
        self._bytes = min(limits.bytes, max(RATIO_FLOOR, limits.ratio * stored))
        self._count = 0
        self._written = 0
        self._folders: set[str] = set()

    def run(self) -> None:
        """Unpack everything."""
        files = 0
        for member, path in self._headers():
            self._count_one()
            segments = self._segments(path)
            if member.type == tarfile.DIRTYPE:
                self._make_folders(segments)
            elif member.type not in _FILES:
                raise BadArtifact(
                    f"{self._name!r} holds {path!r}, which is neither a file nor a folder; "
                    "pack the files themselves (tar --dereference --hard-dereference)"
                )
            else:
                self._make_folders(segments[:-1])
                self._write(member.size, path, self._work.joinpath(*segments))
                files += 1
        if not files:
            raise BadArtifact(f"{self._name!r} holds no files")
        # The gzip stream's checksum lies behind the archive's end and the padding, which is given a
        # budget of its own.
        self._written = 0
        while piece := self._tape.some(_CHUNK):
            self._spend(len(piece))

    def _headers(self) -> Iterator[tuple[tarfile.TarInfo, str]]:
        """Yield each member and its path; its data must be read before the next is asked for."""
        path: str | None = None
        size: int | None = None
        extended = 0
        while extended <= EXTENDED_COUNT:
            extended += 1
            block = self._read(tarfile.BLOCKSIZE)
            if not any(block):
                return
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if member.type == tarfile.GNUTYPE_LONGNAME:
                path = self._extended(member).split(b"\0")[0].decode("utf-8", "surrogateescape")
            elif member.type in _PAX:
                fields = self._pax(self._extended(member))
                path = fields.get("path", path)
                size = int(fields["size"]) if "size" in fields else size
            elif member.type in _IGNORED:
                self._extended(member)
            else:
                member.size = member.size if size is None else size
                if member.size < 0:
                    raise BadArtifact(f"{self._name!r} is damaged (a member of negative size); upload it again")
                if path is not None and path.endswith("/") and member.type == tarfile.AREGTYPE:
                    member.type = tarfile.DIRTYPE
                yield member, member.name if path is None else path
                path = size = None
                extended = 0
        raise BadArtifact(f"{self._name!r} has more than {EXTENDED_COUNT} extended headers before one member")

    def _extended(self, member: tarfile.TarInfo) -> bytes:
        if not 0 <= member.size <= EXTENDED:
            raise BadArtifact(f"{self._name!r} has a header of {member.size} bytes, more than {EXTENDED}")
        data = self._read(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        return data[: member.size]

    def _pax(self, data: bytes) -> dict[str, str]:
        """Return the `path` and `size` of pax records, each ``<its length> <key>=<value>`` and a newline."""
        found = {}
        while data:
            match = re.match(rb"([0-9]{1,5}) ([^=]{1,255})=", data)
            length = int(match[1]) if match else 0
            if match is None or not match.end() < length <= len(data):
                raise BadArtifact(f"{self._name!r} is damaged (a bad pax header); upload it again")
            key, value = match[2], data[match.end() : length - 1]
            if key.startswith(b"GNU.sparse."):
                raise BadArtifact(f"{self._name!r} holds a sparse file; pack it without --sparse")
            if key == b"path" or (key == b"size" and re.fullmatch(rb"[0-9]{1,18}", value)):
                found[key.decode()] = value.decode("utf-8", "surrogateescape")
            data = data[length:]
        return found

    def _segments(self, path: str) -> list[str]:
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        fault = path_fault(path if path.startswith("/") else "/".join(segments)) if segments else None
        if len(segments) > DEPTH:
            fault = f"has more than {DEPTH} segments"
        if fault is not None:
            raise BadArtifact(f"{self._name!r} holds a member whose name {path[:200]!r} {fault}")
        return segments

    def _make_folders(self, segments: list[str]) -> None:
        for depth in range(1, len(segments) + 1):
            relative = "/".join(segments[:depth])
            if relative not in self._folders:
                self._count_one()
                self._folders.add(relative)
                self._create(self._work / relative, relative)

    def _create(self, folder: Path, path: str) -> None:
        try:
            folder.mkdir()
        except FileExistsError as error:
            raise self._twice(path) from error

    def _write(self, size: int, path: str, target: Path) -> None:
        # The size is the header's claim, but no more than that is read, so to count it is to
        # count what is written; a false claim ends in a truncated archive.
        self._spend(size)
        try:
            with target.open("xb") as out:
                left = size
                while left:
                    piece = self._tape.some(left)
                    if not piece:
                        raise EOFError
                    out.write(piece)
                    left -= len(piece)
        except FileExistsError as error:
            raise self._twice(path) from error
        self._read(-size % tarfile.BLOCKSIZE)

    def _read(self, size: int) -> bytes:
        data = self._tape.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _count_one(self) -> None:
        self._count += 1
        if self._count > self._limits.members:
            raise BadArtifact(
                f"{self._name!r} holds more than {self._limits.members} files and folders; "
                "pack fewer or raise the limit"
            )

    def _spend(self, size: int) -> None:
        self._written += size
        if self._written > self._bytes:
            raise BadArtifact(
                f"{self._name!r} unpacks to more than {self._limits.bytes} bytes, or to more than "
                f"{self._limits.ratio} times its size; make the model smaller or raise the limit"
            )

    def _twice(self, path: str) -> BadArtifact:
        return BadArtifact(f"{self._name!r} holds {path!r} twice; pack it anew")

"""Open files of pickles however compressed, and tell what one holds without unpickling it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import re
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol, cast

#: Bytes read of a file: enough for the first block of bz2, which is up to 900 kB.
_READ = 1 << 20
#: Bytes kept of them after decompression. The outermost object's class stands in the first few
#: hundred; what a hostile file would expand to is never produced.
_KEEP = 1 << 16
#: Bytes read at a time of a compressed file.
_CHUNK = 1 << 16
_GZIP = b"\x1f\x8b"
_ZLIB = b"\x78"
_BZ2 = b"BZh"
_LZMA = (b"\xfd7zXZ\x00", b"\x5d\x00\x00")
#: lz4, and joblib before 0.10, are told apart to say so.
_COMPRESSED = (_GZIP, _ZLIB, _BZ2, *_LZMA, b"\x04\x22\x4d\x18", b"ZF")
#: Memory an lzma header may ask for; ``xz -9`` asks for 65 MiB, and hostile ones for 4 GiB.
_LZMA_MEMORY = 128 << 20

#: How joblib names the placeholder of an array, whose bytes follow in the file.
ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"

#: Callables that stand before the class they rebuild.
_REBUILDERS = {"copyreg._reconstructor", "copy_reg._reconstructor"}
#: What the opcode GLOBAL is followed by: the names of a module and of something in it.
_NAMES = re.compile(r"[\w.<>-]+ [\w.<>-]+")
#: Opcodes that may stand before or between the strings of a class's name.
_SKIPPED = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, through what it is compressed by: zlib, gzip, bz2, lzma or xz.

    :raises OSError: if it cannot be read.
    :raises ValueError: if it is compressed otherwise.
    """
    file = path.open("rb")
    try:
        head = file.read(6)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    if not head.startswith(_COMPRESSED):
        return file
    file.close()
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.open(path))
    if head.startswith(_BZ2):
        return cast("BinaryIO", bz2.open(path))
    if head.startswith(_LZMA):
        return cast("BinaryIO", lzma.open(path))
    if head.startswith(_ZLIB):
        return cast("BinaryIO", io.BufferedReader(_Inflated(path), _CHUNK))
    raise ValueError("it is compressed by lz4, or by joblib before 0.10; save it again with compress=3")


class _Inflated(io.RawIOBase):
    """What a zlib stream decompresses to; Python has such readers for all but this."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while not self._stream.eof:
            data = self._stream.unconsumed_tail or self._file.read(_CHUNK)
            if not data:
                raise EOFError("it ends within a compressed part")
            if part := self._stream.decompress(data, len(buffer)):
                buffer[: len(part)] = part
                return len(part)
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def root_class(path: Path) -> str | None:
    """Return the dotted name of the class or function that the outermost object is made by.

    Reads pickles, and joblib files however compressed (zlib, gzip, bz2, lzma, xz); their end may
    be missing or damaged. The answer is None for a file that is no pickle, is compressed
    otherwise, or holds a builtin such as a dict. (A short tuple cannot be told from its first
    element, whose class is then returned.)

    :raises OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_KEEP)
        decompressor = _decompressor(data)
        if decompressor is not None:
            data += file.read(_READ - _KEEP)
    try:
        return _root(data if decompressor is None else decompressor.decompress(data, _KEEP))
    except (OSError, ValueError, zlib.error, lzma.LZMAError):  # whatever is wrong, it is no pickle
        return None


def is_pickle(path: Path) -> bool:
    """Say whether a file begins as a pickle or a joblib file does, compressed or not.

    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(2)
    return (len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5) or root_class(path) is not None


def _decompressor(data: bytes) -> _Decompressor | None:
    if data.startswith(_GZIP):
        return zlib.decompressobj(wbits=31)
    if data.startswith(_ZLIB):
        return zlib.decompressobj()
    if data.startswith(_BZ2):
        return bz2.BZ2Decompressor()
    if data.startswith(_LZMA):
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    return None


def _root(head: bytes) -> str | None:
    """Follow the opcodes until the first callable, which must come before anything else."""
    strings: list[str] = []
    rebuilding = False
    for opcode, argument, _ in pickletools.genops(head):
        if opcode.name == "GLOBAL" and not strings:
            if not _NAMES.fullmatch(str(argument)):
                return None  # a text that begins as this opcode does, such as "channels: ..."
            name = str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) == 2:
            name = ".".join(strings)
        elif isinstance(argument, str) and "UNICODE" in opcode.name and len(strings) < 2:
            strings.append(argument)
            continue
        elif opcode.name in _SKIPPED or (opcode.name == "MARK" and rebuilding):
            continue
        else:
            return None
        if name not in _REBUILDERS:
            return name
        rebuilding = True
        strings = []
    return None

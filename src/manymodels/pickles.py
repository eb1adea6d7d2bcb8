"""Tell what a pickle holds without unpickling it."""

from __future__ import annotations

import bz2
import lzma
import pickletools
import zlib
from pathlib import Path
from typing import Protocol

#: Bytes read of a file: enough for the first block of bz2, which is up to 900 kB.
_READ = 1 << 20
#: Bytes kept of them after decompression. The outermost object's class stands in the first few
#: hundred; what a hostile file would expand to is never produced.
_KEEP = 1 << 16
#: Memory an lzma header may ask for; ``xz -9`` asks for 65 MiB, and hostile ones for 4 GiB.
_LZMA_MEMORY = 128 << 20

#: Callables that stand before the class they rebuild.
_REBUILDERS = {"copyreg._reconstructor", "copy_reg._reconstructor"}
#: Opcodes that may stand before or between the strings of a class's name.
_SKIPPED = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


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


def _decompressor(data: bytes) -> _Decompressor | None:
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31)
    if data.startswith(b"\x78"):
        return zlib.decompressobj()
    if data.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if data.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    return None


def _root(head: bytes) -> str | None:
    """Follow the opcodes until the first callable, which must come before anything else."""
    strings: list[str] = []
    rebuilding = False
    for opcode, argument, _ in pickletools.genops(head):
        if opcode.name == "GLOBAL" and not strings:
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

"""Pickles that say they were executed."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._marker, "w")


def pickles(marker: Path) -> Sequence[bytes]:
    """Return pickles in several wrappings, each of which writes a file when it is loaded."""
    plain = [pickle.dumps(_Bomb(marker), protocol) for protocol in (0, 2, 4)]
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + plain[1]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", plain[1])
        file.writestr("coef.npy", npy)
    return [*plain, zlib.compress(plain[2]), gzip.compress(plain[2]), npy, archive.getvalue()]

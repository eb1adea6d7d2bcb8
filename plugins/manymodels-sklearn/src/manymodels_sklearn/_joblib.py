"""Read what joblib wrote with Python's compiled unpickler, several times as fast as ``joblib.load``.

joblib writes each array's bytes behind a placeholder in the pickle. To put the array in the placeholder's stead,
its reader extends the unpickler that is written in Python. The compiled one cannot be extended so; but it asks for
objects kept elsewhere by an opcode of its own, which `_Stream` slips in behind each placeholder.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper

#: How pickles begin since protocol 2. What begins otherwise is compressed, or older.
_PICKLE = b"\x80"


class _Unusual(Exception):
    """The file holds what is left to joblib."""


class _Stream:
    """The file as the unpickler is to see it: it reads no further than it has to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readline = file.readline
        #: Whether a placeholder has just been read. joblib ends a frame there, so the next to be read is an opcode.
        self.placeholder = False

    def read(self, count: int) -> bytes:
        if self.placeholder:
            self.placeholder = False
            return pickle.BINPERSID
        return self._file.read(count)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = _Stream(file)
        super().__init__(self._stream)

    def find_class(self, module: str, name: str, /) -> Any:
        if name == "NDArrayWrapper":  # of joblib before 0.10, whose arrays are in files of their own
            raise _Unusual
        found = super().find_class(module, name)
        return _placeholder(self._stream) if found is NumpyArrayWrapper else found

    def persistent_load(self, pid: Any, /) -> Any:
        """Return the array that stands behind a placeholder."""
        if not isinstance(pid, NumpyArrayWrapper):
            raise pickle.UnpicklingError("it names an object that is not in the file")
        if pid.dtype.hasobject:
            return pickle.Unpickler(self._file).load()  # noqa: S301 - as all of the file is
        if not pid.dtype.isnative or pid.subclass not in (np.ndarray, np.memmap):
            raise _Unusual
        if getattr(pid, "numpy_array_alignment_bytes", None) is not None:
            self._file.read(self._file.read(1)[0])
        array = np.empty(pid.shape, pid.dtype, pid.order)
        if array.nbytes:
            buffer = (array.T if pid.order == "F" else array).reshape(-1).view(np.uint8)
            if self._file.readinto(buffer) != array.nbytes:  # type: ignore[attr-defined]
                raise EOFError("it ends within an array")
        return array


def _placeholder(stream: _Stream) -> type:
    """Return joblib's class of placeholders, made to tell the stream of each that was read."""

    class Placeholder(NumpyArrayWrapper):  # type: ignore[misc]
        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__.update(state)
            stream.placeholder = True

    return Placeholder


def load(path: Path) -> Any:
    """Return the object that a pickle or joblib file holds, as ``joblib.load`` does.

    :raises Exception: as unpickling may.
    """
    with path.open("rb") as file:
        if file.read(1) == _PICKLE:
            file.seek(0)
            try:
                return _Unpickler(file).load()
            except _Unusual:
                pass
    return joblib.load(path)

"""Open pickles and joblib files: fast, by the operator's policy, saying in a sentence what is wrong with them.

joblib writes each array's bytes behind a placeholder in the pickle. To put the array in the placeholder's stead, its
own reader extends the unpickler that is written in Python. The compiled one, several times as fast, cannot be extended
so; but it asks for objects kept elsewhere by an opcode of its own, which `_Stream` slips in behind each placeholder.
"""

from __future__ import annotations

import lzma
import pickle
import re
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import pickles
from .errors import BadArtifact, LoadFailed, NotTrusted
from .policy import Policy

#: What pickle and decompressors raise for bytes that are not, or no longer, what was saved. A changed byte
#: may also ask for an opcode or a memo that does not exist (KeyError, IndexError).
_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    pickle.UnpicklingError,
    zlib.error,
)

#: How pickle says that a module lacks a class, by protocol. The whole text may hold paths of the server.
_NO_CLASS = (
    re.compile(r"attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'"),
    re.compile(r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'"),
)


def load(path: Path, name: str, policy: Policy | None = None, remedy: str = "install it") -> Any:
    """Return the object that a pickle or joblib file holds, compressed or not.

    :param name: the artifact's name, for messages.
    :param remedy: what to do if a module or class does not exist.
    :raises NotTrusted: if it imports what the policy does not allow.
    :raises BadArtifact: if it is empty, truncated or corrupt.
    :raises LoadFailed: if a module or class it needs does not exist.
    :raises Exception: as unpickling may.
    """
    what = f"{path.name} of {name!r}"
    try:
        return read(path, policy, what)
    except ModuleNotFoundError as error:
        raise LoadFailed(f"{what} needs the module {error.name!r}; {remedy}") from error
    except ImportError as error:
        raise LoadFailed(f"{what} needs {error.name or 'a module'}, which cannot be imported; {remedy}") from error
    except AttributeError as error:
        found = next(filter(None, (pattern.search(str(error)) for pattern in _NO_CLASS)), None)
        if found is None:
            raise
        missing = f"{found['module']}.{found['name']}"
        raise LoadFailed(f"{what} needs {missing}, which does not exist; {remedy}") from error
    except _DAMAGE as error:
        if type(error).__module__.partition(".")[0] not in sys.stdlib_module_names:
            raise  # a framework's own, which its plugin can word
        if isinstance(error, EOFError) and not path.stat().st_size:
            raise BadArtifact(f"{what} is empty; upload it again") from error
        reason = getattr(error, "strerror", None) or error  # an OSError's whole text may hold a path
        raise BadArtifact(
            f"{what} is corrupt or truncated, or was saved with versions that do not fit "
            f"({type(error).__name__}: {reason}); save it again with the versions of the server"
        ) from error


def read(path: Path, policy: Policy | None = None, what: str = "it") -> Any:
    """Return the object that a pickle or joblib file holds.

    :param what: the file, for messages.
    :raises NotTrusted: if it imports what the policy does not allow.
    :raises Exception: as unpickling may.
    """
    with pickles.opened(path) as file:
        return _Unpickler(file, None if policy is None or policy.globals is None else policy, what).load()


class _Placeholder:
    """Stands in a pickle where joblib has put an array's bytes behind it."""

    stream: _Stream
    subclass: type
    shape: tuple[int, ...]
    order: Any
    dtype: Any

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.stream.placeholder = True


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
    def __init__(self, file: BinaryIO, policy: Policy | None, what: str) -> None:
        self._file = file
        self._policy = policy
        self._what = what
        self._stream = _Stream(file)
        super().__init__(self._stream)

    def find_class(self, module: str, name: str, /) -> Any:
        policy = self._policy
        path = f"{module}.{name}"
        # What no entry could allow is not even imported: a module may do something when it is.
        if policy is not None and not (policy.names(path) or policy.covers(path)):
            raise self._refusal(path)
        if path == pickles.ARRAY:
            return type("Placeholder", (_Placeholder,), {"stream": self._stream})
        if name == "NDArrayWrapper":
            raise ValueError("joblib before 0.10 wrote it, and its arrays into other files")
        found = super().find_class(module, name)
        if policy is not None and not policy.allows(path, found):
            raise self._refusal(path)
        return found

    def _refusal(self, path: str) -> NotTrusted:
        return NotTrusted(
            f"{self._what} imports {path}, which the operator's policy does not allow; if it is harmless, add it to "
            "'globals' there ('manymodels scan' lists all that it imports)"
        )

    def persistent_load(self, pid: Any, /) -> Any:
        """Return the array that stands behind a placeholder."""
        if not isinstance(pid, _Placeholder):
            raise pickle.UnpicklingError("it names an object that is not in the file")
        dtype = pid.dtype
        if not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("an array has no dtype")
        if dtype.hasobject:
            return _Unpickler(self._file, self._policy, self._what).load()
        if getattr(pid, "numpy_array_alignment_bytes", None) is not None:
            self._file.read(self._file.read(1)[0])
        array = np.empty(pid.shape, dtype, pid.order)
        if array.nbytes:
            buffer = (array.T if pid.order == "F" else array).reshape(-1).view(np.uint8)
            if self._file.readinto(buffer) != array.nbytes:  # type: ignore[attr-defined]
                raise EOFError("it ends within an array")
        if not dtype.isnative:
            array = array.astype(dtype.newbyteorder("="))
        return array if pid.subclass in (np.ndarray, np.memmap) else array.view(pid.subclass)

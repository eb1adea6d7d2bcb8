"""List what a pickle would import, without unpickling it."""

from __future__ import annotations

import lzma
import math
import pickletools
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .pickles import ARRAY, is_pickle, opened

#: Endings of files that are looked into whatever they begin with.
ENDINGS = (".joblib", ".pkl", ".pickle", ".sav")
#: Most decompressed bytes of a file.
LIMIT = 8 << 30
#: Bytes of a line, in which old pickles have their strings.
_LINE = 16 << 20
_CHUNK = 1 << 20
#: Keys and values of a placeholder's state, at most; of other dicts no more are kept.
_ITEMS = 32
#: What a dtype is pickled by: its kind and the bytes of an item.
_TYPE = re.compile("[biufcmMOSUV][0-9]{0,9}")


@dataclass
class Scan:
    """What was found in a file."""

    #: ``module.name`` of everything it would import, in the order of the file.
    imports: list[str] = field(default_factory=list)
    #: Why that may not be all; None if it is.
    problem: str | None = None
    #: Whether it is no pickle, but code.
    code: bool = False


def is_candidate(path: Path) -> bool:
    """Say whether a file is, or might be taken for, a pickle.

    :raises OSError: if it cannot be read.
    """
    return path.name.endswith(ENDINGS) or is_pickle(path)


def scan(path: Path, limit: int = LIMIT) -> Scan:
    """Follow the opcodes of a pickle, or of a joblib file, however compressed.

    :param limit: most decompressed bytes that are read.
    :raises OSError: if the file cannot be opened.
    """
    found = Scan()
    try:
        with warnings.catch_warnings(), opened(path) as file:
            warnings.simplefilter("ignore")  # pickletools has some for odd escapes in strings
            _Machine(_Reader(file, limit), found).run()
    except _Untold as error:
        found.problem = str(error)
    # What a file of any content leads pickletools, decompressors and the machine below to.
    except (
        *(ArithmeticError, EOFError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError),
        *(struct.error, zlib.error, lzma.LZMAError),
    ) as error:
        found.problem = f"is damaged, or no pickle ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    found.imports = list(dict.fromkeys(found.imports))
    return found


class _Untold(Exception):
    """What is imported cannot be told."""


class _Long(bytes):
    """Stands for as many bytes; nobody looks at what is so long."""

    _count: int

    def __new__(cls, count: int) -> _Long:
        self = super().__new__(cls)
        self._count = count
        return self

    def __len__(self) -> int:
        return self._count


class _Reader:
    """A file of which no more is held in memory than it really has."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit

    def read(self, count: int) -> bytes:
        if count <= _CHUNK:
            return self._spend(self._file.read(count))
        self.skip(count)
        return _Long(count)

    def readline(self) -> bytes:
        return self._spend(self._file.readline(_LINE))

    def skip(self, count: int) -> None:
        """Read on.

        :raises EOFError: if that is beyond the end.
        """
        while count:
            part = self._spend(self._file.read(min(count, _CHUNK)))
            if not part:
                raise EOFError("it ends too early")
            count -= len(part)

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _Untold("is longer than what may be unpacked")
        return data


@dataclass(eq=False)
class _Made:
    """What a call makes."""

    #: What is called, if it is something imported.
    by: str | None
    arguments: Any
    state: Any = None


@dataclass(eq=False)
class _Import:
    path: str


@dataclass(eq=False)
class _Dict:
    #: Keys and values in turn.
    items: list[Any] = field(default_factory=list)


#: Whatever does not matter.
_OTHER = object()
_MARK = object()


class _Machine:
    """The stack of an unpickler with signs instead of objects: nothing is imported, called, hashed or compared."""

    def __init__(self, reader: _Reader, found: Scan) -> None:
        self._reader = reader
        self._found = found
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> None:
        """Follow one pickle to its end."""
        for opcode, argument, _ in pickletools.genops(self._reader):  # type: ignore[arg-type]
            name = opcode.name
            if (special := _SPECIAL.get(name)) is not None:
                special(self, argument)
            elif name in _TO_MARK:
                _TO_MARK[name](self, self._to_mark())
            elif opcode.stack_before or name in ("PROTO", "FRAME", "STOP"):
                if opcode.stack_before and name not in ("STOP", "READONLY_BUFFER"):
                    self._replace(len(opcode.stack_before), _OTHER)
            else:
                # Bytes do not matter, and may be many.
                self.stack.append(
                    argument if isinstance(argument, (str, int)) and len(opcode.stack_after) == 1 else _OTHER
                )

    def _replace(self, count: int, by: Any) -> None:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        self.stack.append(by)

    def _to_mark(self) -> list[Any]:
        index = len(self.stack) - 1
        while self.stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise IndexError("there is no mark")
        above = self.stack[index + 1 :]
        del self.stack[index:]
        return above

    # -- Imports --

    def import_pair(self, argument: Any) -> None:
        """GLOBAL: module and name with a space in between."""
        self.stack.append(self._imported(argument))

    def _imported(self, argument: str) -> _Import:
        if argument.count(" ") != 1:
            raise _Untold(f"imports by a name with spaces, {argument[:200]!r}")
        return self._import(argument.replace(" ", "."))

    def _import(self, path: str) -> _Import:
        if path != ARRAY and path.endswith("ArrayWrapper"):
            raise _Untold(f"has arrays behind {path}, as old versions of joblib wrote them")
        self._found.imports.append(path)
        return _Import(path)

    def import_named(self, _: Any) -> None:
        """STACK_GLOBAL."""
        module, name = self.stack[-2:]
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _Untold("imports by a name that it makes only when it is opened")
        self._replace(2, self._import(f"{module}.{name}"))

    def instance(self, argument: Any) -> None:
        """INST: a class by its name, and its arguments from the mark on."""
        arguments = tuple(self._to_mark())
        self.stack.append(_Made(self._imported(argument).path, arguments))

    def extension(self, argument: Any) -> None:
        """EXT1 and the like."""
        raise _Untold(f"imports by the number {argument}, which means what the program that opens it says")

    # -- Objects --

    def call(self, _: Any) -> None:
        """REDUCE and NEWOBJ."""
        function, arguments = self.stack[-2:]
        self._replace(2, _Made(function.path if isinstance(function, _Import) else None, arguments))

    def build(self, _: Any) -> None:
        """BUILD."""
        made, state = self.stack[-2:]
        if isinstance(made, _Made):
            made.state = state
        is_array = isinstance(made, _Made) and _is_array(made)
        self._replace(2, _OTHER if is_array else made)
        if is_array:
            self._array(state)

    def _array(self, state: Any) -> None:
        """Pass over the bytes that joblib has put behind an array's placeholder; objects are a pickle of their own."""
        items = state.items if isinstance(state, _Dict) and len(state.items) <= _ITEMS else []
        members = {key: value for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str)}
        shape, dtype = members.get("shape"), members.get("dtype")
        if not (isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)):
            raise _Untold("has an array of a shape that cannot be told")
        size, objects = _item(dtype)
        if objects:
            _Machine(self._reader, self._found).run()
            return
        if members.get("numpy_array_alignment_bytes") is not None:
            self._reader.skip(self._reader.read(1)[0])
        self._reader.skip(math.prod(shape) * size)

    def put(self, argument: Any) -> None:
        """PUT and the like."""
        self.memo[argument] = self.stack[-1]

    def get(self, argument: Any) -> None:
        """GET and the like."""
        self.stack.append(self.memo[argument])

    def set_item(self, _: Any) -> None:
        """SETITEM."""
        target, key, value = self.stack[-3:]
        self._replace(3, target)
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        """SETITEMS."""
        target = self.stack[-1]
        if isinstance(target, _Dict) and len(target.items) <= _ITEMS:
            target.items.extend(items)

    def dictionary(self, items: list[Any]) -> None:
        """DICT."""
        self.stack.append(_Dict())
        self.set_items(items)

    def tuple_of(self, count: int) -> None:
        """TUPLE1 and the like."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        self._replace(count, tuple(self.stack[-count:]))


def _is_array(made: _Made) -> bool:
    """Say whether it is joblib's placeholder, also as old protocols make it."""
    if made.by in ("copyreg._reconstructor", "copy_reg._reconstructor") and isinstance(made.arguments, tuple):
        return any(isinstance(argument, _Import) and argument.path == ARRAY for argument in made.arguments)
    if made.by == ARRAY and made.arguments != ():
        raise _Untold("makes arrays in another way than joblib does")
    return made.by == ARRAY


def _item(dtype: Any) -> tuple[int, bool]:
    """Return the bytes of an array's item, and whether it holds objects."""
    if isinstance(dtype, _Made) and dtype.by == "numpy.dtype" and isinstance(dtype.arguments, tuple):
        code, state = dtype.arguments[0], dtype.state
        if isinstance(code, str) and _TYPE.fullmatch(code):
            plain = np.dtype(code)
            if state is None:
                return plain.itemsize, plain.hasobject
            # What the state says goes before the code: of which other type it is a part, its size, and flags, whose
            # lowest says that it holds objects.
            known = (
                isinstance(state, tuple) and len(state) > 7 and state[2] is None and state[5] in (-1, plain.itemsize)
            )
            if known and isinstance(state[7], int):
                return plain.itemsize, bool(state[7] & 1)
    raise _Untold("has an array of a type that cannot be told")


_SPECIAL: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.import_pair,
    "STACK_GLOBAL": _Machine.import_named,
    "INST": _Machine.instance,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": lambda machine, _: machine._replace(3, _OTHER),
    "BUILD": _Machine.build,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PERSID": lambda machine, _: machine.stack.append(_OTHER),
    "NONE": lambda machine, _: machine.stack.append(None),
    "EMPTY_DICT": lambda machine, _: machine.stack.append(_Dict()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": _Machine.set_item,
    "APPEND": lambda machine, _: machine.stack.pop(),
}
_TO_MARK: dict[str, Callable[[_Machine, list[Any]], None]] = {
    "TUPLE": lambda machine, items: machine.stack.append(tuple(items)),
    "DICT": _Machine.dictionary,
    "SETITEMS": _Machine.set_items,
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.stack.append(_OTHER)),
    **dict.fromkeys(("APPENDS", "ADDITEMS", "POP_MARK"), lambda _machine, _items: None),
    "OBJ": lambda machine, items: machine.stack.append(
        _Made(items[0].path if isinstance(items[0], _Import) else None, tuple(items[1:]))
    ),
}

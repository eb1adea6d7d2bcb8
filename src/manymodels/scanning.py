"""List what a pickle would import, without unpickling it."""

from __future__ import annotations

import enum
import lzma
import math
import pickletools
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
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
        #: Bytes that were read.
        self.place = 0

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
        self.place += len(data)
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
    #: Whether there may be a second reference, by which it is changed unseen.
    shared: bool = False


class _Array(enum.Enum):
    """What joblib puts into a pickle for an array whose bytes follow.

    How many they are, and so where the pickle goes on, is known only if it is handled just as joblib does it.
    """

    CLASS = enum.auto()
    #: The arguments by which old protocols have it made.
    ARGUMENTS = enum.auto()
    PLACEHOLDER = enum.auto()


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
        #: Where the frame ends that is open.
        self._frame: int | None = None

    def run(self) -> None:
        """Follow one pickle to its end."""
        for opcode, argument, _ in pickletools.genops(self._reader):  # type: ignore[arg-type]
            self._keep_frame(opcode.name, argument)
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

    def _keep_frame(self, opcode: str, argument: Any) -> None:
        """Refuse what crosses the end of a frame, or begins another within: an unpickler drops what it has of it."""
        place = self._reader.place
        if self._frame is not None and (opcode == "FRAME" or place > self._frame):
            raise _Untold("has frames that do not fit")
        if opcode == "FRAME":
            self._frame = place + argument
        if self._frame == place:
            self._frame = None
        elif opcode == "STOP" and self._frame is not None:
            raise _Untold("has frames that do not fit")

    def _take(self, count: int) -> list[Any]:
        """Take the uppermost off the stack."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _replace(self, count: int, by: Any) -> None:
        _check_no_array(self._take(count))
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

    def _imported(self, argument: str) -> _Import | _Array:
        if argument.count(" ") != 1:
            raise _Untold(f"imports by a name with spaces, {argument[:200]!r}")
        return self._import(argument.replace(" ", "."))

    def _import(self, path: str) -> _Import | _Array:
        if path != ARRAY and path.endswith("ArrayWrapper"):
            raise _Untold(f"has arrays behind {path}, as old versions of joblib wrote them")
        self._found.imports.append(path)
        return _Array.CLASS if path == ARRAY else _Import(path)

    def import_named(self, _: Any) -> None:
        """STACK_GLOBAL."""
        module, name = self.stack[-2:]
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _Untold("imports by a name that it makes only when it is opened")
        self._replace(2, self._import(f"{module}.{name}"))

    def instance(self, argument: Any) -> None:
        """INST: a class by its name, and its arguments from the mark on."""
        arguments = _tuple(self._to_mark())
        self.stack.append(_made(self._imported(argument), arguments))

    def extension(self, argument: Any) -> None:
        """EXT1 and the like."""
        raise _Untold(f"imports by the number {argument}, which means what the program that opens it says")

    # -- Objects --

    def call(self, _: Any) -> None:
        """REDUCE and NEWOBJ."""
        self.stack.append(_made(*self._take(2)))

    def build(self, _: Any) -> None:
        """BUILD."""
        made, state = self._take(2)
        if made is _Array.PLACEHOLDER:
            self._array(state)
            made = _OTHER
        _check_no_array([made, state])
        if isinstance(made, _Import):
            raise _Untold(f"changes {made.path}, which it imports")
        if isinstance(made, _Made):
            made.state = state
        self.stack.append(made)

    def _array(self, state: Any) -> None:
        """Pass over the bytes that joblib has put behind an array's placeholder; objects are a pickle of their own."""
        known = isinstance(state, _Dict) and not state.shared and len(state.items) <= _ITEMS
        items = state.items if known else []
        members = dict(zip(items[::2], items[1::2], strict=True)) if all(type(key) is str for key in items[::2]) else {}
        shape, dtype = members.get("shape"), members.get("dtype")
        if not (isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)):
            raise _Untold("has an array of a shape that cannot be told")
        if self._frame is not None:  # until its end, an unpickler goes on with the pickle
            raise _Untold("has an array in the midst of a frame")
        size, objects = _item(dtype)
        if objects:
            _Machine(self._reader, self._found).run()
            return
        alignment = members.get("numpy_array_alignment_bytes")
        if not (alignment is None or isinstance(alignment, int)):
            raise _Untold("has an array of an alignment that cannot be told")
        if alignment is not None:
            self._reader.skip(self._reader.read(1)[0])
        self._reader.skip(math.prod(shape) * size)

    def put(self, argument: Any) -> None:
        """PUT and the like."""
        self.memo[argument] = self.stack[-1]

    def get(self, argument: Any) -> None:
        """GET and the like."""
        self._again(self.memo[argument])

    def duplicate(self, _: Any) -> None:
        """DUP."""
        self._again(self.stack[-1])

    def _again(self, value: Any) -> None:
        if value is not _Array.CLASS:
            _check_no_array([value])
        if isinstance(value, _Dict):
            value.shared = True
        self.stack.append(value)

    def named(self, _: Any) -> None:
        """PERSID and BINPERSID."""
        raise _Untold("names an object that is not in the file")

    def set_item(self, _: Any) -> None:
        """SETITEM."""
        target, *item = self._take(3)
        self.stack.append(target)
        self.set_items(item)

    def set_items(self, items: list[Any]) -> None:
        """SETITEMS."""
        _check_no_array(items)
        target = self.stack[-1]
        if isinstance(target, _Dict) and len(target.items) <= _ITEMS:
            target.items.extend(items)

    def dictionary(self, items: list[Any]) -> None:
        """DICT."""
        self.stack.append(_Dict())
        self.set_items(items)

    def collection(self, items: list[Any]) -> None:
        """LIST and FROZENSET."""
        _check_no_array(items)
        self.stack.append(_OTHER)

    def tuple_of(self, count: int) -> None:
        """TUPLE1 and the like."""
        self.stack.append(_tuple(self._take(count)))


def _check_no_array(values: Sequence[Any]) -> None:
    """Refuse to have an array's placeholder, or what makes one, where what becomes of it is not known."""
    if any(isinstance(value, _Array) for value in values):
        raise _Untold("makes arrays in another way than joblib does")


def _tuple(values: Sequence[Any]) -> Any:
    if values and values[0] is _Array.CLASS:
        base = values[1] if len(values) == 3 and values[2] is None else None
        if isinstance(base, _Import) and base.path in ("builtins.object", "__builtin__.object"):
            return _Array.ARGUMENTS
    _check_no_array(values)
    return tuple(values)


def _made(function: Any, arguments: Any) -> _Made | _Array:
    """Return what a call makes."""
    by = function.path if isinstance(function, _Import) else None
    if (function is _Array.CLASS and arguments == ()) or (
        by in ("copyreg._reconstructor", "copy_reg._reconstructor") and arguments is _Array.ARGUMENTS
    ):
        return _Array.PLACEHOLDER
    _check_no_array([function, arguments])
    return _Made(by, arguments)


def _item(dtype: Any) -> tuple[int, bool]:
    """Return the bytes of an array's item, and whether it holds objects."""
    if isinstance(dtype, _Made) and dtype.by == "numpy.dtype" and isinstance(dtype.arguments, tuple):
        code, state = dtype.arguments[0], dtype.state
        if isinstance(code, str) and _TYPE.fullmatch(code):
            plain = np.dtype(code)
            if state is None:
                return plain.itemsize, plain.hasobject
            # What the state says goes before the code, unless the type is one of numpy's own, which do not change: of
            # which other type it is a part, its size, and flags, whose lowest says that it holds objects. So the two
            # have to agree; only records, which are some bytes by their code, may hold objects or not.
            sizes = (plain.itemsize,) if code[0] in "SUV" else (-1, plain.itemsize)
            known = isinstance(state, tuple) and len(state) > 7 and state[2] is None and state[5] in sizes
            if known and isinstance(state[7], int):
                objects = bool(state[7] & 1)
                if objects == plain.hasobject or (code[0] == "V" and plain.itemsize):
                    return plain.itemsize, objects
    raise _Untold("has an array of a type that cannot be told")


_SPECIAL: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.import_pair,
    "STACK_GLOBAL": _Machine.import_named,
    "INST": _Machine.instance,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": lambda machine, _: machine._replace(3, _OTHER),
    **dict.fromkeys(("PERSID", "BINPERSID"), _Machine.named),
    "BUILD": _Machine.build,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "DUP": _Machine.duplicate,
    "NONE": lambda machine, _: machine.stack.append(None),
    "EMPTY_DICT": lambda machine, _: machine.stack.append(_Dict()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": _Machine.set_item,
    "APPEND": lambda machine, _: _check_no_array([machine.stack.pop()]),
}
_TO_MARK: dict[str, Callable[[_Machine, list[Any]], None]] = {
    "TUPLE": lambda machine, items: machine.stack.append(_tuple(items)),
    "DICT": _Machine.dictionary,
    "SETITEMS": _Machine.set_items,
    **dict.fromkeys(("LIST", "FROZENSET"), _Machine.collection),
    **dict.fromkeys(("APPENDS", "ADDITEMS", "POP_MARK"), lambda _machine, items: _check_no_array(items)),
    "OBJ": lambda machine, items: machine.stack.append(_made(items[0], _tuple(items[1:]))),
}

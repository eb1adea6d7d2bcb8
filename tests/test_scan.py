"""What pickles would import, listed without importing it."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_unpickling import VALUES, Runs

from manymodels import unpickling
from manymodels.cli import cli
from manymodels.scanning import is_candidate, scan
from manymodels.store import pack

PLACEHOLDER = "joblib.numpy_pickle.NumpyArrayWrapper"


def imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return what is imported when a file is unpickled."""
    names = set()

    class Noting(unpickling._Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    monkeypatch.setattr(unpickling, "_Unpickler", Noting)
    unpickling.read(path)
    return names


@pytest.mark.parametrize("how", ["pickle", "joblib", "zlib", "xz"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_listed_is_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, how: str
) -> None:
    path = tmp_path / "m"
    for name, value in [*VALUES.items(), ("a call", Runs(tmp_path / "mark")), ("all", list(VALUES.values()))]:
        if how == "pickle":
            path.write_bytes(pickle.dumps(value, protocol))
        else:
            joblib.dump(value, path, compress={"joblib": 0, "zlib": 3, "xz": ("xz", 0)}[how], protocol=protocol)
        scanned = scan(path)
        assert scanned.problem is None, name
        assert not (tmp_path / "mark").exists()
        assert set(scanned.imports) == imported(path, monkeypatch), name
        (tmp_path / "mark").unlink(missing_ok=True)


def text(value: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


#: An import of os.system that stands behind whatever is put before it.
EVIL = text("os") + text("system") + pickle.STACK_GLOBAL
START = pickle.PROTO + b"\x04"
WRAPPER = text("joblib.numpy_pickle") + text("NumpyArrayWrapper") + pickle.STACK_GLOBAL
DTYPE = text("numpy") + text("dtype") + pickle.STACK_GLOBAL + text("u1") + pickle.TUPLE1 + pickle.REDUCE
SHAPE = pickle.BININT1 + b"\x05" + pickle.TUPLE1


def placeholder(state: bytes, arguments: bytes = pickle.EMPTY_TUPLE) -> bytes:
    """Return a placeholder of five bytes, in which an import is hidden behind an end."""
    members = pickle.MARK + text("shape") + SHAPE + text("dtype") + DTYPE + state + pickle.SETITEMS
    return START + WRAPPER + arguments + pickle.NEWOBJ + pickle.EMPTY_DICT + members + pickle.BUILD


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            START + text("o") + text("s") + pickle.TUPLE2 + text("system") + pickle.STACK_GLOBAL + b".",
            "name that it makes",
        ),
        (START + pickle.EXT1 + b"\x01.", "by the number 1"),
        (b"cos path\njoin\n.", "a name with spaces"),
        (START + EVIL, "is damaged, or no pickle"),
        (b"", "is damaged, or no pickle"),
        (b"cjoblib.numpy_pickle\nNDArrayWrapper\n.", "as old versions of joblib wrote"),
        (START + pickle.APPENDS + b".", "is damaged"),
        (START + pickle.POP + b".", "is damaged"),
        (START + pickle.BINGET + b"\x07.", "is damaged"),
        (START + pickle.BINBYTES8 + b"\xff" * 7 + b"\x0f", "is damaged"),
        (START + b"\x8e" + b"\x00" * 7 + b"\x01" + b"x", "is damaged"),
        (b"I" + b"1" * 10_000 + b"\n.", "is damaged"),
        (b"\x78\x9c" + b"rubbish", "is damaged"),
        (b"\x04\x22\x4d\x18", "lz4"),
        # Arrays whose length is not what it seems to be, so that what follows would be passed over.
        (placeholder(text("shape") + text("?")) + EVIL + b".", "shape that cannot be told"),
        (placeholder(text("dtype") + text("u1")) + EVIL + b".", "type that cannot be told"),
        (placeholder(b"", SHAPE) + EVIL + b".", "another way than joblib"),
        (placeholder(b"".join(text(f"{n}") + text("") for n in range(20))) + EVIL + b".", "shape that cannot be told"),
    ],
)
def test_what_cannot_be_told_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    scanned = scan(path)
    assert said in (scanned.problem or "nothing")


#: What follows it is bytes to those who do not pass over five of them, and a pickle to those who do.
COVER = pickle.BINBYTES + (len(EVIL) + 1).to_bytes(4, "little")
WRAPPED = WRAPPER + pickle.EMPTY_TUPLE + pickle.NEWOBJ
RECONSTRUCTOR = text("copyreg") + text("_reconstructor") + pickle.STACK_GLOBAL


def state(count: int, dtype: bytes = DTYPE, more: bytes = b"") -> bytes:
    """Return the state of a placeholder of so many items, and BUILD."""
    shape = pickle.BININT1 + bytes([count]) + pickle.TUPLE1
    subclass = text("subclass") + text("numpy") + text("ndarray") + pickle.STACK_GLOBAL
    members = text("shape") + shape + text("dtype") + dtype + text("order") + text("C") + subclass + more
    return pickle.EMPTY_DICT + pickle.MARK + members + pickle.SETITEMS + pickle.BUILD


def dtype(code: str, flags: int) -> bytes:
    """Return one of numpy's own types, which is given other flags and keeps those it has."""
    made = text("numpy") + text("dtype") + pickle.STACK_GLOBAL + text(code) + pickle.TUPLE1 + pickle.REDUCE
    unset = pickle.BININT + (-1).to_bytes(4, "little", signed=True)
    members = pickle.BININT1 + b"\x03" + text("|") + pickle.NONE * 3 + unset * 2 + pickle.BININT1 + bytes([flags])
    return made + pickle.MARK + members + pickle.TUPLE + pickle.BUILD


def framed(content: bytes) -> bytes:
    return pickle.FRAME + len(content).to_bytes(8, "little") + content


def made_anew() -> bytes:
    """Return an array's place, by a class that has an __init__, so that _reconstructor makes one of it."""
    path = text("sklearn.linear_model") + text("LinearRegression") + pickle.STACK_GLOBAL
    return RECONSTRUCTOR + path + WRAPPER + pickle.NONE + pickle.TUPLE3 + pickle.REDUCE


#: Files of which the unpickler reads on elsewhere than one would who takes their arrays for joblib's.
HIDDEN = {
    "made with keywords": WRAPPER + pickle.EMPTY_TUPLE + pickle.EMPTY_DICT + pickle.NEWOBJ_EX + state(5) + COVER,
    "made by a function": text("copyreg")
    + text("__newobj__")
    + pickle.STACK_GLOBAL
    + WRAPPER
    + pickle.TUPLE1
    + pickle.REDUCE
    + state(5)
    + COVER,
    "made by a list's": pickle.MARK
    + text("copyreg")
    + text("__newobj__")
    + pickle.STACK_GLOBAL
    + WRAPPER
    + pickle.OBJ
    + state(5)
    + COVER,
    "not made": made_anew() + state(len(EVIL) + 1),
    "read again": WRAPPED + pickle.MEMOIZE + state(5) + b"....." + pickle.BINGET + b"\x00" + pickle.BINPERSID + COVER,
    "another key": WRAPPED
    + state(
        0,
        more=text("numpy") + text("str_") + pickle.STACK_GLOBAL + text("shape") + pickle.TUPLE1 + pickle.REDUCE + SHAPE,
    )
    + COVER,
    "a changed state": WRAPPED
    + state(0)[: -len(pickle.BUILD)]
    + pickle.MEMOIZE
    + text("operator")
    + text("setitem")
    + pickle.STACK_GLOBAL
    + pickle.BINGET
    + b"\x00"
    + text("shape")
    + SHAPE
    + pickle.TUPLE3
    + pickle.REDUCE
    + pickle.POP
    + pickle.BUILD
    + COVER,
    "no objects": WRAPPED + state(5, dtype("u1", 1)) + COVER,
    "objects": WRAPPED + state(10, dtype("O", 0)),
    "within a frame": framed(WRAPPED + state(len(EVIL) + 1) + EVIL + pickle.POP),
    # The unpickler drops the two bytes, and reads that nothing follows.
    "across a frame": framed(pickle.BINBYTES + (len(EVIL) + 3).to_bytes(2, "little")) + bytes(4),
    "a frame in a frame": framed(
        pickle.FRAME + (len(EVIL) + 1).to_bytes(8, "little") + pickle.SHORT_BINBYTES + bytes([len(EVIL) + 1])
    ),
}


@pytest.mark.parametrize("start", HIDDEN.values(), ids=HIDDEN)
def test_who_hides_an_import_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(START + start + EVIL + b"." + b"." * 100)
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what an estimator says that was not saved as one
        names = imported(path, monkeypatch)
    assert "os.system" in names
    assert scan(path).problem is not None


def test_an_import_that_is_changed_may_do_anything(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(START + RECONSTRUCTOR + pickle.EMPTY_DICT + pickle.BUILD + b".")
    assert scan(tmp_path / "m.pkl").problem == "changes copyreg._reconstructor, which it imports"


def test_an_import_behind_an_array_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(placeholder(text("subclass") + pickle.NONE) + b"....." + EVIL + b".")
    assert scan(path).imports[-1] == "os.system"
    padded = text("numpy_array_alignment_bytes") + pickle.BININT1 + b"\x10"
    path.write_bytes(placeholder(padded) + b"\x03..." + b"....." + EVIL + b".")
    assert scan(path).imports[-1] == "os.system"


def test_a_deep_nest_of_pickles_ends(tmp_path: Path) -> None:
    objects = text("numpy") + text("dtype") + pickle.STACK_GLOBAL + text("O") + pickle.TUPLE1 + pickle.REDUCE
    (tmp_path / "m.pkl").write_bytes(placeholder(text("dtype") + objects) * 5000)
    assert "RecursionError" in (scan(tmp_path / "m.pkl").problem or "")


def test_only_so_much_is_decompressed(tmp_path: Path) -> None:
    joblib.dump(np.zeros(1 << 22), tmp_path / "m.joblib", compress=9)
    assert (tmp_path / "m.joblib").stat().st_size < 1 << 16
    assert scan(tmp_path / "m.joblib", limit=1 << 20).problem == "is longer than what may be unpacked"
    (tmp_path / "m.pkl").write_bytes(START + pickle.BINUNICODE8 + (1 << 40).to_bytes(8, "little") + bytes(1 << 21))
    assert "ends too early" in (scan(tmp_path / "m.pkl").problem or "")


def test_every_byte_may_be_wrong(tmp_path: Path) -> None:
    """Whatever a file holds, it is looked through to the end or said to be damaged."""
    path = tmp_path / "m.joblib"
    joblib.dump([np.arange(3.0), VALUES["objects"], {"a": (1, "two")}], path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        for value in (0x28, 0x30, 0x62, 0x93, 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            scan(path)


def test_which_files_are_looked_into(tmp_path: Path) -> None:
    contents: dict[str, tuple[bytes, bool]] = {
        "m.sav": (b"anything", True),
        "m.bin": (pickle.dumps([1]), True),
        "old": (b"cos\nsystem\n.", True),
        "notes.txt": (b"hello", False),
        "empty": (b"", False),
        "m.json": (b"{}", False),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert is_candidate(tmp_path / name) is expected, name


# -- The command --


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    (path / "code").mkdir(parents=True)
    joblib.dump([np.arange(3.0), Runs(tmp_path / "mark")], path / "model.joblib", compress=3)
    (path / "code" / "inference.py").write_text("import os\n")
    (path / "notes.txt").write_text("none\n")
    return path


def run(*arguments: str | Path) -> Result:
    before = set(sys.modules)
    done = CliRunner().invoke(cli, ["scan", *map(str, arguments)])
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {"sklearn", "xgboost", "onnxruntime"}
    return done


@pytest.mark.parametrize("kind", [lambda path: path, lambda path: packed(path)], ids=["folder", "archive"])
def test_the_imports_of_an_artifact(folder: Path, tmp_path: Path, kind: Callable[[Path], Path]) -> None:
    done = run(kind(folder), "--json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.output)
    code, model = shown["artifacts"][0]["files"]
    assert (code["file"], code["code"], code["imports"]) == ("code/inference.py", True, [])
    names = [imported["name"] for imported in model["imports"]]
    assert PLACEHOLDER in names
    assert "pathlib.Path.touch" in names or "pathlib._local.Path.touch" in names
    assert shown["globals"] == sorted(names)
    assert not (tmp_path / "mark").exists()
    lines = run(folder).output
    assert "code/inference.py  is code, which may import anything" in lines
    assert f'to allow all of it: "globals": {json.dumps(sorted(names), separators=(",", ":"))}' in lines


def packed(folder: Path) -> Path:
    pack(folder, folder.parent / "m.tar.gz")
    return folder.parent / "m.tar.gz"


def test_what_a_policy_would_refuse(folder: Path, tmp_path: Path) -> None:
    names = json.loads(run(folder, "--json").output)["globals"]
    policy = tmp_path / "policy.json"
    for allowed, code in ((names, 0), ([PLACEHOLDER, "numpy.*"], 1), (["numpy.*", "joblib.*", *names[3:]], 0)):
        policy.write_text(json.dumps({"plugins": [], "globals": allowed, "sources": []}))
        done = run(folder, "--policy", policy)
        assert (done.exit_code, "refused" in done.output) == (code, bool(code)), done.output
    assert "numpy.dtype" in done.output
    assert "allowed if it is a class" in done.output


def test_what_is_no_artifact_is_a_finding(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "cut.tar.gz").write_bytes(packed(folder).read_bytes()[:100])
    with tarfile.open(tmp_path / "out.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../m.pkl"), io.BytesIO())
    (tmp_path / "plain.txt").write_text("hello")
    done = run(*(tmp_path / name for name in ("cut.tar.gz", "out.tar.gz", "plain.txt")))
    assert done.exit_code == 1
    assert "is truncated" in done.output
    assert "has a '.' or '..' segment" in done.output
    assert "holds no pickles" in done.output
    assert run(tmp_path / "plain.txt").exit_code == 0

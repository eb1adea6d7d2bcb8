"""What is known of an artifact before it is loaded."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import pickletools
import tracemalloc
import zlib
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from manymodels import Artifact
from manymodels.errors import BadArtifact
from manymodels.pickles import root_class

X = np.arange(20.0).reshape(10, 2)
Y = X @ [1.0, 2.0]
LINEAR = "sklearn.linear_model._base.LinearRegression"


@pytest.fixture(scope="module")
def linear() -> LinearRegression:
    return LinearRegression().fit(X, Y)


class Plain:
    """Rebuilt by copyreg._reconstructor in the old protocols."""

    def __init__(self) -> None:
        self.value = Decimal(1)


def rooted(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    return root_class(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path: Path, linear: LinearRegression, protocol: int) -> None:
    assert rooted(tmp_path / "m", pickle.dumps(linear, protocol)) == LINEAR
    # Pickled by C without an extra frame, by Python with other memo opcodes.
    assert rooted(tmp_path / "m", pickletools.optimize(pickle.dumps(linear, protocol))) == LINEAR
    assert rooted(tmp_path / "m", pickle._dumps(linear, protocol)) == LINEAR  # type: ignore[attr-defined]
    assert rooted(tmp_path / "m", pickle.dumps(Plain(), protocol)) == f"{__name__}.Plain"


@pytest.mark.parametrize("compress", [0, ("zlib", 1), ("zlib", 9), ("gzip", 3), ("bz2", 9), ("xz", 3), ("lzma", 3)])
@pytest.mark.parametrize("rows", [0, 100_000])
def test_every_compression_of_joblib(tmp_path: Path, linear: LinearRegression, compress: Any, rows: int) -> None:
    linear.extra_ = np.random.default_rng(0).normal(size=rows)
    joblib.dump(linear, tmp_path / "m", compress=compress)
    assert root_class(tmp_path / "m") == LINEAR
    content = (tmp_path / "m").read_bytes()
    if rows:
        assert rooted(tmp_path / "m", content[: len(content) * 3 // 4]) in (LINEAR, None)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, lzma.compress])
def test_a_damaged_end_is_of_no_concern(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    content = compress(pickle.dumps((Plain(), os.urandom(200_000))[0]) + os.urandom(200_000))
    assert rooted(tmp_path / "m", content[:120_000]) == f"{__name__}.Plain"
    assert rooted(tmp_path / "m", content[:-20] + bytes(20)) == f"{__name__}.Plain"


def test_an_xgboost_wrapper_is_xgboosts(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=2, max_depth=2).fit(X, Y)
    joblib.dump(model, tmp_path / "m")
    assert root_class(tmp_path / "m") == "xgboost.sklearn.XGBRegressor"
    joblib.dump(model.get_booster(), tmp_path / "m")
    assert root_class(tmp_path / "m") == "xgboost.core.Booster"
    joblib.dump(make_pipeline(StandardScaler(), model), tmp_path / "m")
    assert root_class(tmp_path / "m") == "sklearn.pipeline.Pipeline"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "sklearn",
        [],
        {},
        (),
        {"threshold": np.float64(0.5), "model": LinearRegression()},
        {"model": LinearRegression()},
        [LinearRegression()],
        (np.float64(1), LinearRegression(), 1, 2),
        ("a", "b", LinearRegression()),
        ("a", LinearRegression()),
    ],
    ids=repr,
)
def test_builtins_have_no_root(tmp_path: Path, value: object, protocol: int) -> None:
    assert rooted(tmp_path / "m", pickle.dumps(value, protocol)) is None


@pytest.mark.parametrize(
    ("value", "root"),
    [
        (np.float64(1), "numpy._core.multiarray.scalar"),
        (np.zeros(2), "numpy._core.multiarray._reconstruct"),
        (Fraction(1, 2), "fractions.Fraction"),
        (partial(print, 1), "functools.partial"),
    ],
    ids=repr,
)
def test_the_root_may_be_anothers(tmp_path: Path, value: object, root: str) -> None:
    assert rooted(tmp_path / "m", pickle.dumps(value, 4)) == root


class Trap:
    """Leaves a mark if it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.mark,)


def test_nothing_is_executed(tmp_path: Path) -> None:
    content = pickle.dumps(Trap(str(tmp_path / "mark")))
    assert rooted(tmp_path / "m", content) == "posix.mkdir"
    assert not (tmp_path / "mark").exists()
    pickle.loads(content)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x80\x04",
        b"\x80\x04\x95",
        b"{}",
        b"cos\n",
        b"channels:\n- conda-forge\n",
        b"country,code\nat,43\n",
        b"\x93",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
        b"L" + b"9" * 60_000 + b"L\n.",
        b"\x1f\x8b",
        b"\x78",
        b"BZh9",
        b"\xfd7zXZ\x00",
        b"\x04\x22\x4d\x18 lz4",
        # An lzma header that asks for 4 GiB.
        b"\x5d\x00\x00" + b"\xff" * 10 + bytes(20),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_pickle(tmp_path: Path, content: bytes) -> None:
    assert rooted(tmp_path / "m", content) is None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x04", b"\x1f\x8b\x08", b"\x78\x9c", b"BZh9", b"\x5d\0\0"]))
def test_no_file_makes_it_fail(tmp_path: Path, content: bytes, start: bytes) -> None:
    root = rooted(tmp_path / "m", start + content)
    assert root is None or isinstance(root, str)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, partial(lzma.compress, preset=0)])
def test_a_bomb_is_not_expanded(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "m").write_bytes(compress(bytes(50 << 20)))
    tracemalloc.start()
    try:
        assert root_class(tmp_path / "m") is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"'model\.pkl' of 'team/m' cannot be read: No such file"):
        Artifact(tmp_path, "team/m").pickle_root("model.pkl")


def make(folder: Path, *names: str) -> Artifact:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return Artifact(folder, "team/m")


def test_files_and_patterns(tmp_path: Path) -> None:
    artifact = make(tmp_path, "b.joblib", "a.joblib", "._a.joblib", "manymodels.json", "code/inference.py", ".git/x")
    os.mkfifo(tmp_path / "pipe.joblib")
    assert artifact.files == ("a.joblib", "b.joblib", "code/inference.py", "manymodels.json")
    assert artifact.match("b.*", "*.joblib") == ["b.joblib", "a.joblib", "b.joblib"]
    assert artifact.match("inference.py", "*.json") == []
    assert artifact.size == sum(map(len, artifact.files))
    assert repr(artifact) == f"Artifact('team/m', {str(tmp_path)!r})"


def test_a_bare_file_is_an_artifact_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "a.joblib", "b.joblib", "manymodels.json")
    artifact = Artifact(tmp_path, only="a.joblib")
    assert artifact.files == ("a.joblib",)
    assert artifact.match("*.joblib") == ["a.joblib"]
    assert artifact.manifest.framework is None


@pytest.mark.parametrize("ask", [lambda a: a.files, lambda a: a.match("*")])
def test_a_folder_that_has_gone(tmp_path: Path, ask: Callable[[Artifact], object]) -> None:
    with pytest.raises(BadArtifact, match=r"'gone' of 'team/m' cannot be read: No such file"):
        ask(Artifact(tmp_path / "gone", "team/m"))


def test_the_manifest(tmp_path: Path) -> None:
    assert Artifact(tmp_path).manifest.framework is None
    (tmp_path / "manymodels.json").write_text(json.dumps({"framework": "sklearn", "settings": {"a": [1]}}))
    manifest = Artifact(tmp_path).manifest
    assert manifest.framework == "sklearn"
    assert manifest.settings == {"a": [1]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid"),
        (b"{", "not valid"),
        (b"[]", "not valid: Expected `object`"),
        (b"\xff", "not valid"),
        (b'{"framework": 1}', r"Expected `str \| null`, got `int` - at `\$.framework`"),
        (b'{"framwork": "x"}', "unknown field `framwork`"),
        (b'{"settings": []}', "not valid"),
        (b'{"settings": {"a": ' + b"[" * 100_000, "not valid"),
        (b" " * (2 << 20), "more than 1048576 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_manifest_that_is_not_valid(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "manymodels.json").write_bytes(content)
    with pytest.raises(BadArtifact, match=f"^manymodels.json of 'team/m' .*{reason}"):
        _ = Artifact(tmp_path, "team/m").manifest


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("gone")])
def test_a_manifest_that_is_no_file(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "manymodels.json")
    with pytest.raises(BadArtifact, match="is not a file"):
        _ = Artifact(tmp_path).manifest

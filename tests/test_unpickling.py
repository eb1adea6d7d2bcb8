"""Pickles are opened as joblib and pickle do, and only as far as the operator allows."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from manymodels import Context, ModelSettings, unpickling
from manymodels.errors import BadArtifact, LoadFailed, NotTrusted
from manymodels.policy import Policy

FEATURES = np.random.default_rng(0).normal(size=(60, 4))
LABELS = FEATURES[:, 0] > 0
SHARED = np.arange(5.0)
VALUES: dict[str, Any] = {
    "no array": {"a": [1, "two", None]},
    "empty": np.empty((0, 3)),
    "a number": np.array(1.5),
    "by rows": np.arange(12.0).reshape(3, 4),
    "by columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a view": np.arange(12.0).reshape(3, 4)[:, ::2],
    "the other byte order": np.arange(4, dtype=">f8"),
    "objects": np.array([1, "a", np.arange(3)], dtype=object),
    "texts": np.array(["a", "bcd"]),
    "empty texts": np.array(["", ""]),
    "times": np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    "records": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "a subclass": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "shared": [SHARED, SHARED, {"again": SHARED}],
    "large": [np.zeros(1 << 17), "x" * (1 << 17), np.ones(3)],
}


def same(left: Any, right: Any) -> None:
    """Compare two values that may hold arrays."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.flags.f_contiguous == right.flags.f_contiguous
        assert left.flags.writeable == right.flags.writeable
        if left.dtype.hasobject:
            same(list(left), list(right))
        else:
            np.testing.assert_array_equal(left, right)
    elif isinstance(left, dict):
        same(list(left.items()), list(right.items()))
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("compress", [0, 3])
def test_what_joblib_wrote(tmp_path: Path, value: Any, protocol: int, compress: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(value, path, compress=compress, protocol=protocol)
    same(unpickling.read(path), joblib.load(path))


@pytest.mark.parametrize("compress", [("gzip", 3), ("bz2", 3), ("lzma", 0), ("xz", 0)])
def test_what_joblib_compressed(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(VALUES, path, compress=compress)
    same(unpickling.read(path), joblib.load(path))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_pickle_wrote(tmp_path: Path, value: Any, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    same(unpickling.read(path), joblib.load(path))


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(), GradientBoostingClassifier(n_estimators=5), RandomForestClassifier(n_estimators=5)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_predict_the_same(tmp_path: Path, estimator: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(estimator.fit(FEATURES, LABELS), path)
    assert (unpickling.read(path).predict_proba(FEATURES) == estimator.predict_proba(FEATURES)).all()


def test_joblib_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(VALUES["shared"], path)
    monkeypatch.delattr(joblib, "load")
    same(unpickling.read(path), VALUES["shared"])


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump([np.arange(3.0), VALUES["objects"], np.arange(9.0)], path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((EOFError, IndexError, ValueError, pickle.UnpicklingError)):
            unpickling.read(path)


def test_a_reference_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.PROTO + b"\x02" + pickle.NONE + pickle.BINPERSID + pickle.STOP)
    with pytest.raises(pickle.UnpicklingError, match="not in the file"):
        unpickling.read(path)


@pytest.mark.parametrize("compress", [3, ("gzip", 3), ("bz2", 3), ("xz", 0)])
def test_truncated_within_what_is_compressed(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump([np.arange(300.0), "x" * 300], path, compress=compress)
    whole = path.read_bytes()
    for length in range(41, len(whole) - 30, 41):
        path.write_bytes(whole[:length])
        with pytest.raises(BadArtifact, match=r"^model\.joblib of 'm' is corrupt or truncated"):
            unpickling.load(path, "m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x04\x22\x4d\x18rest", "compressed by lz4, or by joblib before 0.10; save it again with compress=3"),
        (b"ZF0x5", "compressed by lz4, or by joblib before 0.10"),
        (b"cjoblib.numpy_pickle\nNDArrayWrapper\n.", "joblib before 0.10 wrote it"),
        (b"", "model.pkl of 'm' is empty; upload it again"),
    ],
)
def test_what_is_not_read(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(BadArtifact, match=said):
        unpickling.load(path, "m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cacme_models\nThing\n.", "m.pkl of 'm' needs the module 'acme_models'; install it or else"),
        (b"cjson\nThing\n.", "m.pkl of 'm' needs json.Thing, which does not exist; install it or else"),
        (b"\x80\x04\x8c\x04json\x8c\x05Thing\x93.", "m.pkl of 'm' needs json.Thing, which does not exist"),
    ],
)
def test_what_is_not_installed_is_named_with_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=said):
        Context("m", str(tmp_path)).unpickle(path, "install it or else")


# -- Policies --

ARRAYS = ("joblib.numpy_pickle.NumpyArrayWrapper", "numpy.ndarray", "numpy.dtype")


def unpickle(path: Path, *allowed: str) -> Any:
    policy = Policy(plugins=(), globals=allowed)
    return Context("m", str(path.parent), settings=ModelSettings(policy=policy)).unpickle(path)


def refused(path: Path, *allowed: str) -> str:
    with pytest.raises(NotTrusted) as caught:
        unpickle(path, *allowed)
    assert "manymodels scan" in str(caught.value)
    return str(caught.value)


class Runs:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self._mark,))


@pytest.mark.parametrize("compress", [0, 3])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("hidden", ["plain", "among objects"])
def test_only_what_is_allowed_is_imported(tmp_path: Path, protocol: int, compress: int, hidden: str) -> None:
    """Also in the pickle of its own that joblib writes for an array of objects."""
    path, mark = tmp_path / "m.joblib", tmp_path / "mark"
    runs = Runs(mark)
    value = runs if hidden == "plain" else [np.arange(3.0), np.array([1, runs, None], dtype=object)]
    joblib.dump(value, path, compress=compress, protocol=protocol)
    allowed = (
        *(*ARRAYS, "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct", "_codecs.encode"),
        *("pathlib.*", "copyreg._reconstructor", "copy_reg._reconstructor", "__builtin__.object", "builtins.object"),
    )
    said = refused(path, *allowed)
    assert "m.joblib of 'm' imports " in said
    assert not mark.exists()
    unpickling.load(path, "m")
    assert mark.exists(), "the file would not have run anything"


def test_an_estimator_by_names(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(LogisticRegression().fit(FEATURES, LABELS), path)
    estimator = "sklearn.linear_model._logistic.LogisticRegression"
    assert unpickle(path, *ARRAYS, estimator).coef_.shape == (1, 4)
    assert f"imports {estimator}, which the operator's policy does not allow" in refused(path, *ARRAYS)
    assert "imports numpy.dtype" in refused(path, *ARRAYS[:2], estimator)
    assert unpickle(path, "joblib.*", "numpy.*", "sklearn.*").coef_.shape == (1, 4)


@pytest.mark.parametrize(
    ("module", "name", "pattern"),
    [
        ("numpy.testing", "runstring", "numpy.*"),
        ("numpy", "load", "numpy.*"),
        ("joblib.parallel", "os.system", "joblib.*"),
        ("joblib", "os.system", "joblib.*"),
        ("json.decoder", "scanner.re.Scanner", "json.*"),
        ("logging.handlers", "threading.Thread", "logging.*"),
        ("subprocess", "os._wrap_close", "subprocess.*"),
        ("json", "JSONDecoder.decode", "json.*"),
        ("collections", "OrderedDict", "collection.*"),
    ],
)
def test_a_pattern_allows_no_functions_and_no_classes_of_others(
    tmp_path: Path, module: str, name: str, pattern: str
) -> None:
    path = tmp_path / "m.pkl"
    strings = b"".join(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name))
    path.write_bytes(pickle.PROTO + b"\x04" + strings + pickle.STACK_GLOBAL + pickle.STOP)
    assert unpickling.read(path) is not None, "there is no such thing to refuse"
    assert f"imports {module}.{name}," in refused(path, pattern)


def test_what_is_not_allowed_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "side_effect.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "m.pkl").write_bytes(b"cside_effect\nThing\n.")
    assert "imports side_effect.Thing" in refused(tmp_path / "m.pkl", "json.*")


def test_old_names_are_allowed_as_they_stand_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"c__builtin__\nset\n.")
    assert unpickle(tmp_path / "m.pkl", "__builtin__.set") is set
    refused(tmp_path / "m.pkl", "builtins.set")


def test_without_globals_a_policy_restricts_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"cjson\nloads\n.")
    settings = ModelSettings(policy=Policy(plugins=("sklearn",)))
    assert Context("m", "", settings=settings).unpickle(tmp_path / "m.pkl").__name__ == "loads"

"""Files that joblib and pickle wrote hold the same for the plugin as for joblib."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from manymodels_sklearn import _joblib
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

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
def test_what_joblib_wrote(tmp_path: Path, value: Any, protocol: int, compress: int) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(value, path, compress=compress, protocol=protocol)
    same(_joblib.load(path), joblib.load(path))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_pickle_wrote(tmp_path: Path, value: Any, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    same(_joblib.load(path), joblib.load(path))


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(), GradientBoostingClassifier(n_estimators=5), RandomForestClassifier(n_estimators=5)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_predict_the_same(tmp_path: Path, estimator: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(estimator.fit(FEATURES, LABELS), path)
    assert (_joblib.load(path).predict_proba(FEATURES) == estimator.predict_proba(FEATURES)).all()


def test_joblib_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(VALUES["shared"], path)
    monkeypatch.delattr(joblib, "load")
    same(_joblib.load(path), VALUES["shared"])


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump([np.arange(3.0), VALUES["objects"], np.arange(9.0)], path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((EOFError, IndexError, ValueError, pickle.UnpicklingError)):
            _joblib.load(path)


def test_a_reference_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.PROTO + b"\x02" + pickle.NONE + pickle.BINPERSID + pickle.STOP)
    with pytest.raises(pickle.UnpicklingError, match="not in the file"):
        _joblib.load(path)

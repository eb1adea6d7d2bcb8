"""Claiming and loading, driven as the platform drives them."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn
import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from manymodels import Artifact, Context, ModelSettings, Plugins
from manymodels.errors import (
    BadArtifact,
    LoadFailed,
    NoPlugin,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

RNG = np.random.default_rng(7)
X = RNG.random((80, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)


class Rules(BaseEstimator):  # type: ignore[misc]
    """A team's own estimator, of a constructor scikit-learn refuses."""

    def __init__(self, *limits: float) -> None:
        self.limits = limits
        self.n_jobs = 3

    def predict(self, table: Any) -> Any:
        return np.asarray(table)[:, 0] > self.limits[0]


def plugins() -> Plugins:
    return Plugins([("sklearn", manymodels_sklearn)])


def bind(path: Path) -> str:
    return plugins().bind(Artifact(path), ModelSettings()).plugin


def estimator_of(path: Path) -> Any:
    artifact = Artifact(path)
    return plugins().bound("sklearn").load(artifact, Context(artifact.name, str(path)))


def load(path: Path) -> Model:
    registered, artifact, settings = plugins(), Artifact(path, "fraud/x.tar.gz"), ModelSettings()
    return Model(artifact, registered.bind(artifact, settings), registered, settings)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Model]:
    def make(estimator: Any, *, compress: int = 0) -> Model:
        joblib.dump(estimator, tmp_path / "model.joblib", compress=compress)
        return load(tmp_path)

    return make


def predictions(model: Model, rows: Any) -> Any:
    (answer,) = model.invoke([Invocation(json.dumps(np.asarray(rows).tolist()).encode())])
    assert isinstance(answer, Answer), answer
    return json.loads(answer.body)


def logistic() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


# claim


@pytest.mark.parametrize("file", ["model.joblib", "churn.joblib", "model.pkl", "any.pickle"])
def test_a_pickled_estimator_is_claimed_under_any_usual_name(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(pickle.dumps(logistic()))
    assert bind(tmp_path) == "sklearn"
    assert predictions(load(tmp_path), X[:3]) == logistic().predict(X[:3]).tolist()


def test_model_joblib_is_preferred_to_other_pickles(serve: Callable[..., Model], tmp_path: Path) -> None:
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert predictions(serve(logistic()), X[:1]) == [Y[0]]


def test_two_pickles_without_model_joblib_are_not_claimed(tmp_path: Path) -> None:
    for name in ("a.pkl", "b.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(logistic()))
    with pytest.raises(NoPlugin, match="claims"):
        bind(tmp_path)
    (tmp_path / "manymodels.json").write_text('{"framework": "sklearn"}')
    with pytest.raises(LoadFailed, match=r"neither model\.joblib nor exactly one"):
        load(tmp_path)


def test_an_xgboost_wrapper_is_left_to_xgboost_and_a_pipeline_ending_in_one_is_not(tmp_path: Path) -> None:
    wrapper = XGBClassifier(n_estimators=2, n_jobs=2).fit(X, Y)
    joblib.dump(wrapper, tmp_path / "model.joblib")
    with pytest.raises(NoPlugin, match="pickled xgboost"):
        bind(tmp_path)
    pipeline = make_pipeline(StandardScaler(), XGBClassifier(n_estimators=2, n_jobs=2)).fit(X, Y)
    joblib.dump(pipeline, tmp_path / "model.joblib")
    assert predictions(load(tmp_path), X[:5]) == pipeline.predict(X[:5]).tolist()
    assert estimator_of(tmp_path).estimator[-1].get_booster().save_config().count('"nthread":"1"') == 1


def test_a_teams_own_estimator_is_claimed(serve: Callable[..., Model]) -> None:
    assert predictions(serve(Rules(0.5)), [[0.4, 1], [0.6, 1]]) == [False, True]


def test_what_holds_no_pickle_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("tree")
    (tmp_path / "notes.pkl").write_bytes(b"\x00\x01 nothing")
    with pytest.raises(NoPlugin):
        bind(tmp_path)


def test_claiming_imports_no_framework(tmp_path: Path) -> None:
    joblib.dump(logistic(), tmp_path / "model.joblib")
    code = (
        "import sys, pathlib, manymodels_sklearn as p; from manymodels import Artifact;"
        "assert p.claim(Artifact(pathlib.Path(sys.argv[1]))) == 'sklearn';"
        "print([m for m in ('sklearn', 'joblib', 'pandas', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


# load


def test_compressed_joblib_loads(serve: Callable[..., Model]) -> None:
    assert predictions(serve(logistic(), compress=3), X[:1]) == [Y[0]]


@pytest.mark.parametrize("damage", ["truncated", "text", "gzip", "array"])
def test_a_damaged_file_is_called_corrupt(tmp_path: Path, damage: str) -> None:
    forest = io.BytesIO()
    joblib.dump(KNeighborsClassifier().fit(X, Y), forest)
    whole = forest.getvalue()
    (tmp_path / "model.joblib").write_bytes(
        {
            "truncated": whole[:200],
            "text": b"<html>404</html>",
            "gzip": gzip.compress(whole)[:300],
            "array": whole[: len(whole) // 2],
        }[damage]
    )
    with pytest.raises(BadArtifact, match=r"^model\.joblib of 'fraud/x\.tar\.gz' is corrupt or truncated"):
        load(tmp_path)


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"cacme_models\nFraud\n)\x81.")
    with pytest.raises(LoadFailed, match=r"needs the module 'acme_models'; install it .* code/inference\.py"):
        load(tmp_path)


def test_a_missing_class_is_named_without_paths(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"csklearn.linear_model\nFraudRegression\n)\x81.")
    with pytest.raises(LoadFailed, match=r"needs sklearn\.linear_model\.FraudRegression, which does not") as caught:
        load(tmp_path)
    assert sklearn.__path__[0] not in str(caught.value)


def test_a_missing_class_of_a_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"\x80\x04\x8c\x08__main__\x8c\x05Fraud\x93)\x81.")
    with pytest.raises(LoadFailed, match=r"needs (pytest\.)?__main__\.Fraud, which does not exist"):
        load(tmp_path)


@pytest.mark.parametrize("thing", [StandardScaler().fit(X), {"model": logistic()}])
def test_what_cannot_predict_is_refused(serve: Callable[..., Model], thing: Any) -> None:
    with pytest.raises(LoadFailed, match=rf"holds a {type(thing).__name__}, which has no predict"):
        serve(thing)


def test_another_version_of_scikit_learn_is_noted_and_served(tmp_path: Path) -> None:
    # Protocol 0 writes strings by line, so the version's length may change.
    saved = pickle.dumps(RandomForestClassifier(3, random_state=0).fit(X, Y), protocol=0)
    version = f"V{sklearn.__version__}\n".encode()
    assert version in saved
    (tmp_path / "model.joblib").write_bytes(saved.replace(version, b"V1.2.2.post1\n"))
    model = load(tmp_path)
    assert model.notes == [f"trained with scikit-learn 1.2.2.post1, served with {sklearn.__version__}"]
    assert len(predictions(model, X[:2].tolist())) == 2


def test_the_same_version_is_not_noted(serve: Callable[..., Model]) -> None:
    assert serve(logistic()).notes == []


def test_broken_metadata_fails_the_load(serve: Callable[..., Model], tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text("{'n': 1}")
    with pytest.raises(LoadFailed, match=r"metadata\.json of .* is not valid JSON"):
        serve(logistic())


def test_no_estimator_runs_in_parallel(tmp_path: Path) -> None:
    columns = ColumnTransformer([("scale", StandardScaler(), [0, 1])])
    steps = make_pipeline(columns, RandomForestClassifier(3))
    vote = VotingClassifier([("steps", steps), ("near", KNeighborsClassifier())])
    search = GridSearchCV(vote, {"voting": ["hard"]}, cv=2).fit(X, Y)

    def inside(fitted: Any) -> list[Any]:
        pipeline, near = fitted.best_estimator_.estimators_
        return [fitted, fitted.best_estimator_, pipeline[0], pipeline[1], near]

    for part in inside(search):
        part.n_jobs = -1
    joblib.dump(search, tmp_path / "model.joblib")
    assert [part.n_jobs for part in inside(estimator_of(tmp_path).estimator)] == [1] * 5


def test_no_estimator_of_unusual_constructor_runs_in_parallel(tmp_path: Path) -> None:
    joblib.dump(Rules(0.5), tmp_path / "model.joblib")
    assert estimator_of(tmp_path).estimator.n_jobs == 1


def test_the_model_can_be_used_as_its_estimator(tmp_path: Path) -> None:
    joblib.dump(logistic(), tmp_path / "model.joblib")
    model = estimator_of(tmp_path)
    assert model.predict(X[:2]).tolist() == Y[:2].tolist()
    assert model.classes_.tolist() == [0, 1]
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = model.nothing_like_it


# the module


def test_the_modules_to_import_first_exist_and_start_no_thread() -> None:
    code = (
        "import importlib, os, manymodels_sklearn as p\n"
        "for name in p.warm_up_imports(): importlib.import_module(name)\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    # pyarrow, where it is installed, comes in with pandas and starts an allocator's thread unless told not to.
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **quiet})
    if Path("/proc/self/task").exists():
        assert done.stdout.strip() == "1"


def test_the_installed_plugin_is_this_module() -> None:
    (entry,) = entry_points(group="manymodels", name="sklearn")
    assert entry.load() is manymodels_sklearn
    (info,) = plugins().describe()
    assert set(info.hooks) < set(manymodels_sklearn.__all__)

"""Skops files, driven as the platform drives them."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn
import manymodels_skops
import numpy as np
import pytest
import skops.io
from serving import serve
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from manymodels import Artifact, Field, ModelSettings, Plugins, Schema
from manymodels.errors import BadArtifact, LoadFailed, NoPlugin
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.schema import decode

RNG = np.random.default_rng(7)
X = RNG.random((80, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
TREE = "sklearn.tree._tree.Tree"


class Rules(BaseEstimator):  # type: ignore[misc]
    def predict(self, table: Any) -> Any:
        return np.asarray(table)[:, 0] > 0.5


def plugins() -> Plugins:
    return Plugins([("sklearn", manymodels_sklearn), ("skops", manymodels_skops)])


def load(path: Path) -> Model:
    registered, artifact, settings = plugins(), Artifact(path, "fraud/x.tar.gz"), ModelSettings()
    return Model(artifact, registered.bind(artifact, settings), registered, settings)


def ask(model: Model, body: bytes, content_type: str = "application/json", accept: str = "application/json") -> Any:
    (answer,) = model.invoke([Invocation(body, content_type, accept)])
    assert isinstance(answer, Answer), answer
    return answer.body


def test_plugin_is_found() -> None:
    (entry,) = entry_points(group="manymodels", name="skops")
    assert entry.load() is manymodels_skops


def test_the_plugin_itself_imports_no_framework() -> None:
    code = "import sys, manymodels_skops; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"skops", "sklearn", "joblib", "pandas"}.isdisjoint(done.stdout.split())


def test_sample_is_answered_as_it_says(tmp_path: Path) -> None:
    goldens = manymodels_skops.sample_artifact(tmp_path)
    model = load(tmp_path)
    for golden in goldens:
        (answer,) = model.invoke([golden.invocation()])
        assert isinstance(answer, Answer), answer
        golden.check(answer)


def test_answers_are_those_of_the_same_model_in_joblib(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": X[:, 0], "town": np.where(X[:, 1] > 0.5, "Berlin", "Rome")})
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("t", OneHotEncoder(), ["town"])])
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, Y)
    models = []
    for name, dump in (("model.skops", skops.io.dump), ("model.joblib", joblib.dump)):
        (tmp_path / name).mkdir()
        dump(estimator, tmp_path / name / name)
        models.append(load(tmp_path / name))
    body = json.dumps([{"town": "Rome", "age": 0.3}, {"town": "Berlin", "age": 0.9}]).encode()
    for request in (
        body,
        b'{"features": [[0.3, "Rome"]]}',
        b'{"features": [[0.3, "Rome"]], "columns": ["age", "town"]}',
    ):
        assert ask(models[0], request) == ask(models[1], request)
    (refused,) = models[0].invoke([Invocation(b'[{"town": "Rome"}]')])
    assert "missing: 'age'" in str(refused)


def test_the_faster_predictor_of_scikit_learn_serves(tmp_path: Path) -> None:
    skops.io.dump(LogisticRegression().fit(X, Y), tmp_path / "model.skops")
    model = load(tmp_path)
    for _ in model.accelerate():
        pass
    assert model.predictor is not None
    assert model.predictor.name != "original", model.predictor
    assert (
        json.loads(ask(model, json.dumps(X[:20].tolist()).encode()))
        == LogisticRegression().fit(X, Y).predict(X[:20]).tolist()
    )


def test_the_schema_is_told_as_by_scikit_learns(tmp_path: Path) -> None:
    skops.io.dump(LogisticRegression().fit(X, np.where(Y, "yes", "no")), tmp_path / "model.skops")
    assert decode(load(tmp_path).schema) == Schema(
        inputs=(Field(type="number", shape=(-1, 4)),), outputs=(Field(type="string", values=("no", "yes")),)
    )


def test_two_skops_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.skops", "b.skops"):
        skops.io.dump(LogisticRegression().fit(X, Y), tmp_path / name)
    with pytest.raises(LoadFailed, match=r"holds 2 files \*\.skops \(a\.skops, b\.skops\)"):
        load(tmp_path)


def test_a_pickle_beside_it_is_settled_by_the_manifest(tmp_path: Path) -> None:
    skops.io.dump(LogisticRegression().fit(X, Y), tmp_path / "model.skops")
    joblib.dump(LogisticRegression().fit(X, 1 - Y), tmp_path / "model.joblib")
    with pytest.raises(NoPlugin, match="claimed by the plugins sklearn and skops"):
        load(tmp_path)
    (tmp_path / "manymodels.json").write_text('{"framework": "skops"}')
    assert json.loads(ask(load(tmp_path), b"[[0.9, 0.9, 0, 0]]")) == [1]


def test_another_version_is_noted(tmp_path: Path) -> None:
    content = skops.io.dumps(LogisticRegression().fit(X, Y))
    rewrite(content, tmp_path / "model.skops", lambda schema: schema.replace(version().encode(), b"1.2.2"))
    assert any("trained with scikit-learn 1.2.2" in note for note in load(tmp_path).notes)


# trust


def test_types_that_skops_does_not_trust_are_named(tmp_path: Path) -> None:
    skops.io.dump(make_pipeline(Rules()), tmp_path / "model.skops")
    with pytest.raises(LoadFailed, match=r"does not trust: .*\.Rules; .* MANYMODELS_SKOPS_TRUSTED"):
        load(tmp_path)


def test_the_operator_may_trust_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    skops.io.dump(forest, tmp_path / "model.skops")
    with pytest.raises(LoadFailed, match=f"does not trust: {TREE};"):
        load(tmp_path)
    monkeypatch.setenv("MANYMODELS_SKOPS_TRUSTED", f"team.Model, {TREE}")
    assert json.loads(ask(load(tmp_path), json.dumps(X.tolist()).encode())) == forest.predict(X).tolist()


def test_an_artifact_cannot_vouch_for_itself(tmp_path: Path) -> None:
    skops.io.dump(RandomForestClassifier(2).fit(X, Y), tmp_path / "model.skops")
    (tmp_path / "manymodels.json").write_text(json.dumps({"framework": "skops", "settings": {"trusted": [TREE]}}))
    with pytest.raises(LoadFailed, match="does not trust"):
        load(tmp_path)


def test_a_pickle_of_that_name_is_not_executed(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    folder = tmp_path / "model"
    folder.mkdir()
    for content in (pickle.dumps(Bomb(touched)), zipped({"schema.json": pickle.dumps(Bomb(touched))})):
        (folder / "model.skops").write_bytes(content)
        with pytest.raises(BadArtifact):
            load(folder)
        assert not touched.exists()


def test_a_function_of_the_system_is_not_called(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content = skops.io.dumps(LogisticRegression().fit(X, Y))

    def forge(schema: bytes) -> bytes:
        tree = json.loads(schema)
        tree |= {"__module__": "posix", "__class__": "system"}
        tree["__reduce__"] = {"args": [f"touch {touched}"]}
        return json.dumps(tree).encode()

    folder = tmp_path / "model"
    folder.mkdir()
    rewrite(content, folder / "model.skops", forge)
    with pytest.raises(LoadFailed, match=r"does not trust: posix\.system"):
        load(folder)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no skops file"),
        (b"\x80\x04K\x01.", "is no skops file"),
        (skops.io.dumps(LogisticRegression().fit(X, Y))[:2000], "is no skops file"),
    ],
    ids=["empty", "pickle", "truncated"],
)
def test_what_is_no_skops_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(BadArtifact, match=says):
        load(tmp_path)


@pytest.mark.parametrize(
    "schema",
    [b"", b"[]", b"{}", b"\xff", b'{"protocol": 99}', b'{"protocol": 2, "__loader__": "ObjectNode"}', b"[" * 100_000],
)
def test_a_schema_that_is_none_is_refused(tmp_path: Path, schema: bytes) -> None:
    (tmp_path / "model.skops").write_bytes(zipped({"schema.json": schema}))
    with pytest.raises(BadArtifact, match="is corrupt"):
        load(tmp_path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(zipped({"schema.json": bytes(65 << 20)}))
    assert (tmp_path / "model.skops").stat().st_size < 1 << 20
    with pytest.raises(BadArtifact, match="more than 200 times its own"):
        load(tmp_path)


def test_what_cannot_predict_is_refused(tmp_path: Path) -> None:
    skops.io.dump(StandardScaler().fit(X), tmp_path / "model.skops")
    with pytest.raises(LoadFailed, match=r"model\.skops of .* holds a StandardScaler, which has no predict"):
        load(tmp_path)


def test_through_the_server(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "linear").mkdir(parents=True)
    skops.io.dump(LogisticRegression().fit(X, Y), store / "linear" / "model.skops")
    skops.io.dump(LogisticRegression().fit(X, 1 - Y), store / "bare.skops")
    (store / "forged.skops").write_bytes(pickle.dumps(Bomb(tmp_path / "touched")))
    with serve(tmp_path, store, "--workers", "1", env={"MANYMODELS_BLOCK_PLUGINS": ""}) as server:
        assert server.invoke("linear", [[0.9, 0.9, 0, 0]]).json() == [1]
        assert server.invoke("bare.skops", [[0.9, 0.9, 0, 0]]).json() == [0]
        refused = server.invoke("forged.skops", [[0.9, 0.9, 0, 0]])
    assert refused.status_code == 424
    assert "is no skops file" in refused.text
    assert not (tmp_path / "touched").exists()


class Bomb:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.touched}",)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def rewrite(content: bytes, path: Path, change: Any) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["schema.json"] = change(members["schema.json"])
    path.write_bytes(zipped(members))


def version() -> str:
    import sklearn

    with warnings.catch_warnings():
        return str(sklearn.__version__)

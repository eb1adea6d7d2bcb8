"""The XGBoost plugin, driven as the platform drives it, with models that XGBoost trained."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import manymodels_xgboost
import numpy as np
import pytest
import xgboost

from manymodels import Artifact, ModelSettings, Plugins
from manymodels.errors import (
    BadInput,
    LoadFailed,
    ManyModelsError,
    NoPlugin,
    PredictionFailed,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

RNG = np.random.default_rng(7)
X = RNG.normal(size=(120, 4)).astype(np.float32)
BINARY = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
ROWS = X[:3].tolist()


def train(objective: str = "binary:logistic", labels: Any = BINARY, **params: Any) -> Any:
    matrix = xgboost.DMatrix(X, labels)
    return xgboost.train({"objective": objective, "nthread": 1, **params}, matrix, 4)


BOOSTER = train()
SOFTPROB = train("multi:softprob", THREE, num_class=3)
CLASSIFIER = xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1).fit(X, BINARY)


def save(content: Any, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix in (".json", ".ubj"):
        content.save_model(path)
    elif path.suffix == ".joblib":
        joblib.dump(content, path, compress=3)
    else:
        path.write_bytes(pickle.dumps(content))


def raw(booster: Any, kind: str = "ubj") -> bytes:
    return bytes(booster.save_raw(kind))


def load(path: Path, settings: ModelSettings | None = None) -> Model:
    settings = settings or ModelSettings()
    plugins = Plugins([("xgboost", manymodels_xgboost)])
    found = Artifact(path, "m")
    return Model(found, plugins.bind(found, settings), plugins, settings)


def ask(model: Model, body: Any, content_type: str | None = "application/json", accept: str | None = None) -> Answer:
    answer = send(model, body, content_type, accept)
    if isinstance(answer, ManyModelsError):
        raise answer
    return answer


def send(
    model: Model, body: Any, content_type: str | None = "application/json", accept: str | None = None
) -> Answer | ManyModelsError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(content, content_type, accept)])
    return answer


def scores(model: Model, body: Any, content_type: str | None = "application/json") -> Any:
    return json.loads(ask(model, body, content_type).body)


def expected(booster: Any = BOOSTER, rows: Any = None) -> list[Any]:
    matrix = xgboost.DMatrix(X[:3] if rows is None else rows)
    answer: list[Any] = booster.predict(matrix, validate_features=False).tolist()
    return answer


# Claim


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("xgboost-model", raw(BOOSTER)),
        ("xgboost-model", raw(BOOSTER, "json")),
        ("xgboost-model", pickle.dumps(BOOSTER)),
        ("m.ubj", raw(BOOSTER)),
        ("m.xgb", raw(BOOSTER)),
        ("m.bst", raw(BOOSTER, "json")),
        ("m.json", raw(BOOSTER, "json")),
        ("m.json", json.dumps(json.loads(raw(BOOSTER, "json")), indent=2).encode()),
        ("m.model", raw(BOOSTER)),
        ("m.bin", raw(BOOSTER)),
        ("m.model", pickle.dumps(BOOSTER)),
        ("m.pkl", pickle.dumps(BOOSTER, protocol=2)),
    ],
)
def test_it_claims_and_serves_a_booster_in_every_form(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert scores(load(tmp_path), ROWS) == expected()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3)])
def test_it_claims_and_serves_a_wrapper_saved_by_joblib(tmp_path: Path, compress: Any) -> None:
    joblib.dump(CLASSIFIER, tmp_path / "model.joblib", compress=compress)

    assert scores(load(tmp_path), ROWS) == CLASSIFIER.predict(X[:3]).tolist()


def test_a_json_model_with_its_version_first_is_claimed(tmp_path: Path) -> None:
    model = json.loads(raw(BOOSTER, "json"))
    (tmp_path / "m.json").write_text(json.dumps({"version": model["version"], "learner": model["learner"]}))

    assert scores(load(tmp_path), ROWS) == expected()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", b'{"version": [1, 0, 0], "name": "churn"}'),
        ("learner.json", b'{"learner": {"rate": 0.1}, "version": 2}'),
        ("config.json", BOOSTER.save_config().encode()),
        ("manymodels.json", b"{}"),
        ("weights.bin", bytes(64)),
        ("weights.model", b""),
        ("other.pkl", pickle.dumps({"a": 1})),
        ("other.joblib", pickle.dumps(np.zeros(3))),
        (".hidden.ubj", raw(BOOSTER)),
    ],
)
def test_other_files_are_not_claimed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(NoPlugin):
        load(tmp_path)


def test_importing_the_plugin_and_claiming_import_no_framework(tmp_path: Path) -> None:
    save(BOOSTER, tmp_path / "m.json")
    code = (
        "import sys, manymodels_xgboost; from pathlib import Path; from manymodels import Artifact; "
        f"assert manymodels_xgboost.claim(Artifact(Path({str(tmp_path)!r}))) == 'xgboost'; "
        "print(sorted({'xgboost', 'sklearn', 'scipy', 'joblib'} & sys.modules.keys()))"
    )

    assert _python(code) == "[]"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_the_warm_up_imports_start_no_thread() -> None:
    code = (
        "import importlib, os, manymodels_xgboost; "
        "[importlib.import_module(name) for name in manymodels_xgboost.warm_up_imports()]; "
        "print(len(os.listdir('/proc/self/task')))"
    )

    # The last one is for pyarrow, which pandas imports where it is installed, and XGBoost pandas.
    assert (
        _python(code, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", JE_ARROW_MALLOC_CONF="background_thread:false")
        == "1"
    )


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# Load


def test_the_standard_file_wins_over_others(tmp_path: Path) -> None:
    (tmp_path / "xgboost-model").write_bytes(raw(BOOSTER))
    save(SOFTPROB, tmp_path / "a.ubj")

    assert scores(load(tmp_path), ROWS) == expected()


def test_several_models_are_claimed_and_refused_by_name(tmp_path: Path) -> None:
    save(BOOSTER, tmp_path / "a.ubj")
    save(CLASSIFIER, tmp_path / "b.joblib")

    with pytest.raises(LoadFailed, match=r"several XGBoost models \(a\.ubj, b\.joblib\).*no ensemble.*'xgboost-model'"):
        load(tmp_path)


def test_an_artifact_that_names_the_plugin_and_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manymodels.json").write_text('{"framework": "xgboost"}')

    with pytest.raises(LoadFailed, match=r"holds no XGBoost model; save it again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.ubj", b"", "'m.ubj' of 'm' is empty"),
        ("m.ubj", raw(BOOSTER)[:-1], "'m.ubj' of 'm' is damaged"),
        ("m.ubj", b"{", "'m.ubj' of 'm' is damaged"),
        ("m.json", raw(BOOSTER, "json")[:1000], "'m.json' of 'm' is damaged"),
        ("xgboost-model", BOOSTER.save_config().encode(), "'xgboost-model' of 'm' is damaged"),
        (
            "m.model",
            b"binf" + bytes(300),
            "neither JSON nor UBJSON.*older binary format.*load it with XGBoost 3.0 and save",
        ),
        ("m.bin", b"\0\0\0\x3f" + bytes(300), "older binary format"),
        ("xgboost-model", b"hello", "neither JSON nor UBJSON"),
        ("m.pkl", pickle.dumps(BOOSTER).replace(b"gradient_booster", b"gradient_bustier"), "'m.pkl' of 'm' is damaged"),
        ("m.pkl", pickle.dumps(xgboost.XGBRegressor()), "need to call fit"),
        ("m.pkl", pickle.dumps(BOOSTER)[:900], "m.pkl of 'm' is corrupt or truncated"),
        ("xgboost-model", b"cos\nsystem\n(S'exit 1'\ntR.", "is a pickled os.system, not a model of XGBoost's"),
        ("m.pkl", b"cxgboost.gone\nThing\n.", "needs the module 'xgboost.gone'; install it, or save it again"),
        ("m.pkl", b"cxgboost\nThing\n.", "needs xgboost.Thing, which does not exist; install it, or save it again"),
        ("m.pkl", pickle.dumps(xgboost.DMatrix), "'m' is a pickled .*, not a model of XGBoost's"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LoadFailed, match=says) as caught:
        load(tmp_path)
    assert "Stack trace" not in str(caught.value)
    assert "site-packages" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [raw(BOOSTER), pickle.dumps(xgboost.XGBClassifier(n_estimators=1, n_jobs=7).fit(X, BINARY))]
)
def test_the_threads_are_the_operators(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "xgboost-model").write_bytes(content)
    plugins = Plugins([("xgboost", manymodels_xgboost)])
    settings = ModelSettings(threads=3)
    artifact = Artifact(tmp_path)
    context = Model(artifact, plugins.bind(artifact, settings), plugins, settings).context

    loaded = plugins.bound("xgboost").load(artifact, context)

    assert json.loads(loaded.booster.save_config())["learner"]["generic_param"]["nthread"] == "3"


@pytest.mark.parametrize("form", ["m.ubj", "m.joblib"])
def test_a_model_stopped_early_predicts_with_its_best_rounds_and_says_so(tmp_path: Path, form: str) -> None:
    noise = RNG.integers(0, 2, len(X))
    model = xgboost.XGBRegressor(n_estimators=30, early_stopping_rounds=3, n_jobs=1)
    model.fit(X[:60], noise[:60], eval_set=[(X[60:], noise[60:])], verbose=False)
    best = model.predict(X[:3]).tolist()
    assert best != expected(model.get_booster())  # or the test shows nothing
    save(model if form == "m.joblib" else model.get_booster(), tmp_path / form)

    served = load(tmp_path)

    assert scores(served, ROWS) == best
    assert served.notes == [f"training was stopped early: the first {model.best_iteration + 1} rounds predict"]


# Predictions


@pytest.mark.parametrize(
    "wrapper",
    [
        xgboost.XGBClassifier(n_estimators=3).fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3).fit(X, THREE),
        xgboost.XGBClassifier(n_estimators=3, objective="multi:softmax").fit(X, THREE),
        xgboost.XGBClassifier(n_estimators=3, objective="multi:softprob", num_class=2).fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3, objective="binary:logitraw").fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3, objective="binary:hinge").fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3).fit(X, (X[:, :3] > 0).astype(int)),
        xgboost.XGBClassifier(n_estimators=3, booster="gblinear").fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3, missing=float(X[0, 0])).fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=3, booster="dart", rate_drop=0.5).fit(X, BINARY),
        xgboost.XGBClassifier(n_estimators=1, num_parallel_tree=3).fit(X, BINARY),
        xgboost.XGBRegressor(n_estimators=3).fit(X, X[:, 0]),
        xgboost.XGBRegressor(n_estimators=3).fit(X, X[:, :2]),
        xgboost.XGBRanker(n_estimators=3).fit(X, BINARY, group=[60, 60]),
    ],
    ids=lambda wrapper: f"{type(wrapper).__name__}-{wrapper.objective}-{wrapper.booster}",
)
def test_a_wrapper_answers_as_its_own_predict(tmp_path: Path, wrapper: Any) -> None:
    save(wrapper, tmp_path / "model.pkl")
    answer = ask(load(tmp_path), X.tolist(), accept="application/x-npy")
    served = np.load(io.BytesIO(answer.body), allow_pickle=False)

    np.testing.assert_array_equal(served, wrapper.predict(X))
    assert served.dtype == wrapper.predict(X).dtype


@pytest.mark.parametrize("booster", ["gbtree", "gblinear", "dart"])
@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "count:poisson"])
def test_a_booster_answers_as_its_own_predict(tmp_path: Path, booster: str, objective: str) -> None:
    model = train(objective, booster=booster)
    save(model, tmp_path / "model.ubj")

    assert scores(load(tmp_path), ROWS) == pytest.approx(expected(model), rel=1e-6)


def test_what_xgboost_refuses_is_told_without_its_native_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(xgboost.core.XGBoostError) as refused:
        xgboost.DMatrix(np.array([[np.inf]]))
    assert "Stack trace" in str(refused.value)

    def refuse(*_: Any, **__: Any) -> None:
        raise refused.value

    save(BOOSTER, tmp_path / "model.ubj")
    model = load(tmp_path)
    monkeypatch.setattr(xgboost.Booster, "inplace_predict", refuse)
    answer = send(model, b"1,2,3,4\n", "text/csv")

    assert isinstance(answer, PredictionFailed)
    assert "Input data contains `inf`" in str(answer)
    assert ".cc" not in str(answer)
    assert "Stack trace" not in str(answer)


# Joined invocations


@pytest.fixture
def model(tmp_path: Path) -> Model:
    save(BOOSTER, tmp_path / "model.ubj")
    return load(tmp_path)


def bodies(answers: list[Answer | ManyModelsError]) -> list[bytes]:
    return [answer.body for answer in answers if isinstance(answer, Answer)]


def json_row(row: Any) -> Invocation:
    return Invocation(json.dumps([row]).encode(), "application/json")


def libsvm_row(row: Any) -> Invocation:
    return Invocation(" ".join(f"{i}:{v!r}" for i, v in enumerate(row, 1)).encode(), "text/libsvm")


@pytest.mark.parametrize("form", [json_row, libsvm_row])
@pytest.mark.parametrize("output", ["", "labels,probability"])
def test_joined_answers_equal_single_ones(tmp_path: Path, form: Callable[[Any], Invocation], output: str) -> None:
    save(BOOSTER, tmp_path / "model.ubj")
    (tmp_path / "manymodels.json").write_text(json.dumps({"settings": {"output": output}}))
    model = load(tmp_path)
    invocations = [form(row) for row in X[:20].tolist()]

    joined = model.invoke(invocations)
    alone = [model.invoke([invocation])[0] for invocation in invocations]

    assert bodies(joined) == bodies(alone)
    assert len(set(bodies(joined))) > 1


def test_waiting_invocations_are_run_in_one_call(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = xgboost.Booster.inplace_predict

    def counted(booster: Any, data: Any, **rest: Any) -> Any:
        seen.append(data.shape[0])
        return original(booster, data, **rest)

    monkeypatch.setattr(xgboost.Booster, "inplace_predict", counted)

    model.invoke([json_row([1, 2, 3, 4]), json_row([0.5, 1, 1, 1]), Invocation(b"1,2,3,4\n" * 5, "text/csv")])

    assert seen == [7]


def test_a_bad_invocation_fails_alone(model: Model) -> None:
    good, bad = json_row(ROWS[0]), json_row([1, 2])

    first, second, third, fourth = model.invoke([good, bad, libsvm_row(ROWS[1]), Invocation(b"[", "application/json")])

    assert isinstance(first, Answer)
    assert json.loads(first.body) == expected()[:1]
    assert isinstance(second, BadInput)
    assert isinstance(third, Answer)
    assert json.loads(third.body) == expected()[1:2]
    assert isinstance(fourth, BadInput)


def test_the_exported_names_are_the_hooks_and_the_version() -> None:
    hooks = {name for name in vars(manymodels_xgboost) if hasattr(getattr(manymodels_xgboost, name), "manymodels_impl")}

    assert manymodels_xgboost.__all__ == sorted({*hooks, "__version__"})

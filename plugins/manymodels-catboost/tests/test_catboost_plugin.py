"""The CatBoost plugin, driven as the platform drives it, with models that CatBoost trained."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import catboost
import joblib
import manymodels_catboost
import numpy as np
import pytest

from manymodels import Artifact, Context, Field, ModelSettings, Plugins, Schema, codecs
from manymodels.errors import BadInput, LoadFailed, ManyModelsError, NoPlugin
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.schema import decode

RNG = np.random.default_rng(7)
X = RNG.normal(size=(80, 3))
BINARY = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
VALUES = X[:, 2] ** 2 + 0.5
ROWS = X[:3].tolist()
QUIET: dict[str, Any] = {
    "iterations": 4,
    "depth": 3,
    "thread_count": 1,
    "random_seed": 0,
    "verbose": False,
    "allow_writing_files": False,
}
NAMES = ["age", "city", "size"]
TABLE = np.empty((80, 3), object)
TABLE[:, 0], TABLE[:, 1], TABLE[:, 2] = X[:, 0], RNG.choice(["Rome", "Oslo"], 80), RNG.choice([10, 20], 80)
BOUGHT = ((TABLE[:, 1] == "Rome") ^ (TABLE[:, 2] == 20)).astype(int)


def classifier(labels: Any = BINARY, **params: Any) -> Any:
    return catboost.CatBoostClassifier(**{**QUIET, **params}).fit(X, labels)


def regressor(labels: Any = VALUES, **params: Any) -> Any:
    return catboost.CatBoostRegressor(**{**QUIET, **params}).fit(X, labels)


CLASSIFIER = classifier()
CATEGORIES = catboost.CatBoostClassifier(**QUIET).fit(
    catboost.Pool(TABLE, BOUGHT, cat_features=[1, 2], feature_names=NAMES)
)


def save(model: Any, path: Path) -> None:
    if path.suffix == ".cbm":
        model.save_model(str(path))
    else:
        joblib.dump(model, path)


def load(path: Path) -> Model:
    plugins = Plugins([("catboost", manymodels_catboost)])
    found, settings = Artifact(path, "m"), ModelSettings()
    return Model(found, plugins.bind(found, settings), plugins, settings)


def ask(model: Model, body: Any, content_type: str | None = "application/json") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(content, content_type, "application/json")])
    if isinstance(answer, ManyModelsError):
        raise answer
    return json.loads(answer.body)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    save(CLASSIFIER, tmp_path / "model.cbm")
    return load(tmp_path)


@pytest.fixture
def categories(tmp_path: Path) -> Model:
    save(CATEGORIES, tmp_path / "model.cbm")
    return load(tmp_path)


def expected(model: Any = CLASSIFIER, rows: Any = ROWS) -> list[Any]:
    answer: list[Any] = model.predict_proba(np.asarray(rows), thread_count=1).tolist()
    return answer


# Claim and load


@pytest.mark.parametrize(
    ("name", "content"),
    [("m.txt", b"CBM1"), ("other.pkl", pickle.dumps({"a": 1})), (".hidden.cbm", b"CBM1"), ("model.json", b"{}")],
)
def test_other_files_are_not_claimed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(NoPlugin):
        load(tmp_path)


def test_importing_the_plugin_and_claiming_import_no_framework(tmp_path: Path) -> None:
    save(CLASSIFIER, tmp_path / "m.joblib")
    code = (
        "import sys, manymodels_catboost; from pathlib import Path; from manymodels import Artifact; "
        f"assert manymodels_catboost.claim(Artifact(Path({str(tmp_path)!r}))) == 'catboost'; "
        "print(sorted({'catboost', 'pandas', 'joblib'} & sys.modules.keys()))"
    )

    assert _python(code) == "[]"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_the_warm_up_imports_start_no_thread() -> None:
    code = (
        "import importlib, os, manymodels_catboost; "
        "[importlib.import_module(name) for name in manymodels_catboost.warm_up_imports()]; "
        "print(len(os.listdir('/proc/self/task')))"
    )

    # The last one is for pyarrow, which pandas imports where it is installed, and CatBoost pandas.
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert _python(code, **environment, JE_ARROW_MALLOC_CONF="background_thread:false") == "1"


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_several_models_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="holds no CatBoost model; save it again"):
        manymodels_catboost.load(Artifact(tmp_path), Context("m", str(tmp_path)))
    save(CLASSIFIER, tmp_path / "a.cbm")
    save(CLASSIFIER, tmp_path / "b.joblib")
    with pytest.raises(LoadFailed, match=r"several CatBoost models \(a\.cbm, b\.joblib\); keep one"):
        load(tmp_path)


@pytest.mark.parametrize("length", [0, 3, 4, 300, -100, -1])
def test_a_model_that_was_cut_off_is_refused_in_a_sentence(tmp_path: Path, length: int) -> None:
    save(CLASSIFIER, tmp_path / "whole.cbm")
    content = (tmp_path / "whole.cbm").read_bytes()
    (tmp_path / "whole.cbm").unlink()
    (tmp_path / "m.cbm").write_bytes(content[:length])

    with pytest.raises(LoadFailed, match=r"'m\.cbm' of 'm' is no CatBoost model, or a damaged one") as caught:
        load(tmp_path)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.cbm", pickle.dumps(os.system), "is no CatBoost model"),
        ("m.pkl", pickle.dumps(catboost.CatBoostRegressor()), "is a CatBoostRegressor that was not fitted"),
        ("m.pkl", pickle.dumps(CLASSIFIER)[:300], "m.pkl of 'm' is corrupt or truncated"),
        ("m.pkl", b"ccatboost.gone\nThing\n.", "needs the module 'catboost.gone'; install it, or save it again"),
        ("m.pkl", pickle.dumps(catboost.Pool), "'m' is a pickled .*, not a model of CatBoost's"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LoadFailed, match=says) as caught:
        load(tmp_path)
    assert "site-packages" not in str(caught.value)


# Predictions


@pytest.mark.parametrize(
    "wrapper",
    [
        CLASSIFIER,
        classifier(np.array(["no", "yes"])[BINARY]),
        classifier(np.array(["lo", "mid", "hi"])[THREE]),
        regressor(),
        regressor(loss_function="Poisson"),
        regressor(X[:, :2], loss_function="MultiRMSE"),
    ],
    ids=lambda wrapper: f"{type(wrapper).__name__}-{wrapper.get_all_params()['loss_function']}",
)
def test_a_pickled_model_answers_as_its_own_predict(tmp_path: Path, wrapper: Any) -> None:
    save(wrapper, tmp_path / "model.joblib")
    want = wrapper.predict(X, thread_count=1)

    assert ask(load(tmp_path), X.tolist()) == (want[:, 0] if want.shape[1:] == (1,) else want).tolist()


@pytest.mark.parametrize("model", [regressor(), regressor(loss_function="Tweedie:variance_power=1.5")])
def test_a_regressor_in_catboosts_format_answers_with_values(tmp_path: Path, model: Any) -> None:
    save(model, tmp_path / "model.cbm")

    assert ask(load(tmp_path), ROWS) == model.predict(np.array(ROWS)).tolist()


@pytest.mark.parametrize("labels", [BINARY, THREE])
def test_a_classifier_in_catboosts_format_answers_with_probabilities(tmp_path: Path, labels: Any) -> None:
    model = classifier(labels)
    save(model, tmp_path / "model.cbm")

    assert ask(load(tmp_path), ROWS) == expected(model)


@pytest.mark.parametrize("kind", ["Class", "LogProbability", "RawFormulaVal"])
def test_the_type_of_prediction_can_be_chosen(tmp_path: Path, kind: str) -> None:
    save(CLASSIFIER, tmp_path / "model.cbm")
    (tmp_path / "manymodels.json").write_text(json.dumps({"settings": {"prediction_type": kind}}))

    assert ask(load(tmp_path), ROWS) == CLASSIFIER.predict(np.array(ROWS), prediction_type=kind).tolist()


def test_a_type_of_prediction_that_the_model_does_not_have_is_refused_at_load(tmp_path: Path) -> None:
    save(regressor(), tmp_path / "model.cbm")
    (tmp_path / "manymodels.json").write_text('{"settings": {"prediction_type": "Probability"}}')

    with pytest.raises(LoadFailed, match=r"is 'Probability'; it may be RawFormulaVal, Exponent$"):
        load(tmp_path)


# Requests


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS).encode(), "application/json"),
        (json.dumps({"features": ROWS}).encode(), None),
        (b"\n".join(json.dumps(row).encode() for row in ROWS), "application/jsonlines"),
        ("\n".join(",".join(map(repr, row)) for row in ROWS).encode(), "text/csv"),
        (codecs.encode(np.array(ROWS), "application/x-npy")[0], "application/x-npy"),
        ("\n".join(" ".join(f"{i}:{v!r}" for i, v in enumerate(row, 1)) for row in ROWS).encode(), "text/libsvm"),
    ],
)
def test_every_content_type_gives_the_same_answer(model: Model, body: bytes, content_type: str | None) -> None:
    assert ask(model, body, content_type) == expected()


def test_missing_numbers_are_taken(model: Model) -> None:
    assert ask(model, [[None, 1, 2]]) == expected(rows=[[np.nan, 1, 2]])
    assert ask(model, b",1,2\n", "text/csv") == expected(rows=[[np.nan, 1, 2]])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([[1, 2]], "expects 3 features, got 2"),
        ([[[1, 2, 3]]], r"got an array of shape \(1, 1, 3\)"),
        ([], "expects 3 features, got 0"),
        ([[1, "red", 3]], "takes a number in column 2, got 'red' in row 1"),
        ({"rows": ROWS}, "holds no rows; send"),
    ],
)
def test_what_the_model_cannot_take_is_refused_in_a_sentence(model: Model, body: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        ask(model, body)


def test_categories_are_text_or_whole_numbers(categories: Model) -> None:
    want = CATEGORIES.predict_proba(TABLE[:9], thread_count=1).tolist()
    rows = TABLE[:9].tolist()
    lines = "\n".join(",".join(map(str, row)) for row in rows)

    assert len(set(map(str, want))) > 2  # or the test shows nothing
    assert ask(categories, rows) == want
    assert ask(categories, [[age, city, str(size)] for age, city, size in rows]) == want
    assert ask(categories, [dict(zip(NAMES[::-1], row[::-1], strict=True)) for row in rows]) == want
    assert ask(categories, lines.encode(), "text/csv") == want
    assert ask(categories, (",".join(NAMES) + "\n" + lines).encode(), "text/csv") == want


def test_long_numbers_are_other_categories_than_their_neighbours(tmp_path: Path) -> None:
    """As float64, which they are beside fractions, those of one shop are those of another."""
    shops = [2**53 + 1, 2**53 + 3]
    rows = [[X[n, 0], shops[n % 2]] for n in range(80)]
    model = catboost.CatBoostRegressor(**QUIET, cat_features=[1], one_hot_max_size=2).fit(
        [[x, str(shop)] for x, shop in rows], [float(shop == shops[0]) for _, shop in rows]
    )
    save(model, tmp_path / "model.cbm")
    served = load(tmp_path)
    want = model.predict([[0.5, str(shop)] for shop in shops]).tolist()

    assert want[0] != want[1]
    assert ask(served, [[0.5, str(shop)] for shop in shops]) == want
    assert ask(served, [[1, shop] for shop in shops]) == model.predict([[1.0, str(shop)] for shop in shops]).tolist()
    for body, kind in ((b"[[0.5, 9007199254740993]]", "application/json"), (b"0.5,9007199254740993", "text/csv")):
        with pytest.raises(BadInput, match=r"a category in column 2, .* may have lost digits; send it as text"):
            ask(served, body, kind)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        ([[0.5, "Rome", 1.5]], "application/json", "takes a category, text or a whole number, in column 3, got '1.5'"),
        ([[0.5, None, 10]], "application/json", "takes a category, text or a whole number, in column 2, got 'nan'"),
        ([["old", "Rome", 10]], "application/json", "takes a number in column 1, got 'old'"),
        ([{"age": 1, "town": "Rome", "size": 10}], "application/json", "the rows lack 'city'"),
        (b"1:1", "text/libsvm", "takes categories or texts; send JSON or CSV"),
    ],
)
def test_what_is_no_category_is_refused_in_a_sentence(
    categories: Model, body: Any, content_type: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        ask(categories, body, content_type)


def test_joined_answers_equal_single_ones_and_a_bad_invocation_fails_alone(categories: Model) -> None:
    rows = [Invocation(json.dumps([row]).encode(), "application/json") for row in TABLE[:10].tolist()]

    *joined, refused = categories.invoke([*rows, Invocation(b"[[1, 2]]", "application/json")])
    alone = [categories.invoke([invocation])[0] for invocation in rows]

    bodies = [answer.body for answer in joined if isinstance(answer, Answer)]
    assert bodies == [answer.body for answer in alone if isinstance(answer, Answer)]
    assert len(set(bodies)) > 1
    assert isinstance(refused, BadInput)


# The schema


@pytest.mark.parametrize(
    ("content", "kind", "output"),
    [
        (CLASSIFIER, None, Field(type="number", shape=(-1, 2))),
        (CLASSIFIER, "Class", Field(type="integer", values=(0, 1))),
        (CLASSIFIER, "RawFormulaVal", Field(type="number")),
        (classifier(np.array(["a", "b", "c"])[THREE]), "Class", Field(type="string", values=("a", "b", "c"))),
        (classifier(THREE), "LogProbability", Field(type="number", shape=(-1, 3))),
        (classifier(THREE), "RawFormulaVal", Field(type="number", shape=(-1, 3))),
        (classifier(THREE), "Exponent", Field(type="number", shape=(-1, 1))),
        (
            classifier(np.column_stack([BINARY, 1 - BINARY, BINARY]), loss_function="MultiLogloss"),
            "Class",
            Field(type="integer", shape=(-1, 3)),
        ),
        (regressor(), None, Field(type="number")),
        (regressor(loss_function="RMSEWithUncertainty"), None, Field(type="number", shape=(-1, 2))),
    ],
)
def test_what_a_model_tells_of_its_answers(tmp_path: Path, content: Any, kind: str | None, output: Field) -> None:
    save(content, tmp_path / "model.cbm")
    (tmp_path / "manymodels.json").write_text(json.dumps({"settings": {"prediction_type": kind} if kind else {}}))
    model = load(tmp_path)
    assert decode(model.schema) == Schema(inputs=(Field(type="number", shape=(-1, 3)),), outputs=(output,))
    assert not model.notes
    answer = ask(model, ROWS)
    assert np.shape(answer)[1:] == (output.shape or (-1,))[1:]
    assert not output.values or set(answer) <= set(output.values)


def test_what_a_model_tells_of_its_columns(categories: Model) -> None:
    told = decode(categories.schema)
    assert told is not None
    assert told.inputs == (Field(name="age", type="number"), Field(name="city"), Field(name="size"))


# The sample


def test_the_sample_is_answered_as_it_says(tmp_path: Path) -> None:
    goldens = manymodels_catboost.sample_artifact(tmp_path)
    model = load(tmp_path)

    for golden in goldens:
        (answer,) = model.invoke([golden.invocation()])
        assert isinstance(answer, Answer), answer
        golden.check(answer)


def test_the_exported_names_are_the_hooks_and_the_version() -> None:
    module = manymodels_catboost
    hooks = {name for name in vars(module) if hasattr(getattr(module, name), "manymodels_impl")}

    assert module.__all__ == sorted({*hooks, "__version__"})

"""The LightGBM plugin, driven as the platform drives it, with models that LightGBM trained."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import manymodels_lightgbm
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from manymodels import Artifact, Context, Field, LeftToOriginal, ModelSettings, Plugins, Schema, codecs
from manymodels.errors import BadInput, LoadFailed, ManyModelsError, NoPlugin
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.schema import decode

RNG = np.random.default_rng(7)
X = RNG.normal(size=(120, 4))
X[RNG.random(X.shape) < 0.1] = np.nan
BINARY = (np.nan_to_num(X[:, 0] + X[:, 1]) > 0).astype(int)
THREE = np.digitize(np.nan_to_num(X[:, 0]), [-0.5, 0.5])
VALUES = np.nan_to_num(X[:, 2] ** 2) + 0.5
NAMES = ["age", "income", "height", "weight"]
ROWS = np.nan_to_num(X[:3]).tolist()
QUIET: dict[str, Any] = {"num_threads": 1, "verbosity": -1, "min_data_in_leaf": 3, "seed": 0}


def train(objective: str = "binary", labels: Any = BINARY, rounds: int = 4, data: Any = X, **params: Any) -> Any:
    given = {key: params.pop(key) for key in ("feature_name", "categorical_feature", "group") if key in params}
    return lightgbm.train({**QUIET, "objective": objective, **params}, lightgbm.Dataset(data, labels, **given), rounds)


def text(booster: Any) -> bytes:
    content: str = booster.model_to_string()
    return content.encode()


BOOSTER = train()
NAMED = train(feature_name=NAMES)
CLASSIFIER = lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbosity=-1).fit(X, BINARY)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, 120),
        "city": pd.Categorical(RNG.choice(["Rome", "Berlin", "Paris"], 120)),
        "size": pd.Categorical(RNG.choice([10, 20, 30], 120)),
        "income": RNG.normal(size=120),
    }
)
BOUGHT = ((FRAME["city"] == "Rome") ^ (FRAME["size"] == 20)).astype(int)
CATEGORIES = train(data=FRAME, labels=BOUGHT)


def load(path: Path, settings: ModelSettings | None = None) -> Model:
    settings = settings or ModelSettings()
    plugins = Plugins([("lightgbm", manymodels_lightgbm)])
    found = Artifact(path, "m")
    return Model(found, plugins.bind(found, settings), plugins, settings)


def loaded(path: Path) -> Any:
    return manymodels_lightgbm.load(Artifact(path, "m"), Context("m", str(path)))


def ask(model: Model, body: Any, content_type: str | None = "application/json") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(content, content_type, "application/json")])
    if isinstance(answer, ManyModelsError):
        raise answer
    return json.loads(answer.body)


def expected(booster: Any = BOOSTER, rows: Any = ROWS) -> list[Any]:
    answer: list[Any] = booster.predict(np.asarray(rows, float), num_threads=1).tolist()
    return answer


@pytest.fixture
def model(tmp_path: Path) -> Model:
    BOOSTER.save_model(tmp_path / "model.txt")
    return load(tmp_path)


@pytest.fixture
def named(tmp_path: Path) -> Model:
    NAMED.save_model(tmp_path / "model.txt")
    return load(tmp_path)


@pytest.fixture
def categories(tmp_path: Path) -> Model:
    CATEGORIES.save_model(tmp_path / "model.txt")
    return load(tmp_path)


# Claim


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.txt", text(BOOSTER)),
        ("m.lgb", text(BOOSTER)),
        ("m.model", text(BOOSTER)),
        ("m.pkl", pickle.dumps(BOOSTER, protocol=2)),
        ("m.model", pickle.dumps(BOOSTER)),
    ],
)
def test_it_claims_and_serves_a_booster_in_every_form(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert ask(load(tmp_path), ROWS) == expected()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("requirements.txt", b"lightgbm\n"),
        ("tree.txt", b"tree\nof life"),
        ("m.model", b""),
        ("other.pkl", pickle.dumps({"a": 1})),
        (".hidden.lgb", text(BOOSTER)),
    ],
)
def test_other_files_are_not_claimed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(NoPlugin):
        load(tmp_path)


def test_importing_the_plugin_and_claiming_import_no_framework(tmp_path: Path) -> None:
    BOOSTER.save_model(tmp_path / "m.txt")
    code = (
        "import sys, manymodels_lightgbm; from pathlib import Path; from manymodels import Artifact; "
        f"assert manymodels_lightgbm.claim(Artifact(Path({str(tmp_path)!r}))) == 'lightgbm'; "
        "print(sorted({'lightgbm', 'sklearn', 'scipy', 'joblib'} & sys.modules.keys()))"
    )

    assert _python(code) == "[]"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_the_warm_up_imports_start_no_thread() -> None:
    code = (
        "import importlib, os, manymodels_lightgbm; "
        "[importlib.import_module(name) for name in manymodels_lightgbm.warm_up_imports()]; "
        "print(len(os.listdir('/proc/self/task')))"
    )

    # The last one is for pyarrow, which pandas imports where it is installed, and LightGBM pandas.
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert _python(code, **environment, JE_ARROW_MALLOC_CONF="background_thread:false") == "1"


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# Load


def test_several_models_are_claimed_and_refused_by_name(tmp_path: Path) -> None:
    BOOSTER.save_model(tmp_path / "a.txt")
    joblib.dump(CLASSIFIER, tmp_path / "b.joblib")

    with pytest.raises(LoadFailed, match=r"several LightGBM models \(a\.txt, b\.joblib\); keep one"):
        load(tmp_path)


def test_an_artifact_that_names_the_plugin_and_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manymodels.json").write_text('{"framework": "lightgbm"}')

    with pytest.raises(LoadFailed, match=r"holds no LightGBM model; save it again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.lgb", b"", "'m.lgb' of 'm' is no LightGBM model in text: it does not start"),
        ("m.lgb", pickle.dumps(os.system), "it does not start as a model in text does"),
        ("m.txt", text(BOOSTER).replace(b"\n", b"\r\n"), "it does not start as a model in text does"),
        ("m.txt", text(BOOSTER)[:200], "it holds no tree"),
        ("m.txt", text(BOOSTER)[:-200], "it is cut off in its parameters"),
        ("m.txt", text(BOOSTER).partition(b"end of trees")[0], "it is cut off or changed behind the last tree"),
        ("m.txt", text(BOOSTER).partition(b"Tree=2")[0] + b"end of trees\n", "tree 2 is not valid: it is cut off"),
        ("m.txt", text(BOOSTER).replace(b"objective=binary", b"objective=unheard"), "Unknown objective type name"),
        ("m.txt", text(BOOSTER).replace(b"feature_names=", b"feature_names=more "), "4 features, 5 names"),
        ("m.txt", text(BOOSTER).replace(b"num_class=1", b"num_class=3"), "3 classes, and 4 trees, 1 for each"),
        ("m.pkl", pickle.dumps(lightgbm.LGBMRegressor()), "is a LGBMRegressor that was not fitted"),
        ("m.pkl", pickle.dumps(BOOSTER)[:300], "m.pkl of 'm' is corrupt or truncated"),
        ("m.pkl", b"clightgbm.gone\nThing\n.", "needs the module 'lightgbm.gone'; install it, or save it again"),
        ("m.pkl", b"clightgbm\nThing\n.", "needs lightgbm.Thing, which does not exist; install it, or save it again"),
        ("m.pkl", pickle.dumps(lightgbm.Dataset), "'m' is a pickled .*, not a model of LightGBM's"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LoadFailed, match=says) as caught:
        load(tmp_path)
    assert "site-packages" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("left_child", "0", "a branch leads back"),
        ("left_child", "7777", "a branch leads out of it"),
        ("right_child", "-7777", "a branch leads out of it"),
        ("right_child", "1.5", "right_child holds what is no whole number"),
        ("split_feature", "4", "it splits by a feature that the model does not have"),
        ("split_feature", "-1", "it splits by a feature that the model does not have"),
        ("decision_type", "1", "it splits by a set of categories that it does not have"),
        ("threshold", "", "threshold has \\d+ values, not"),
        ("threshold", "0.1.2", "it holds what is no number"),
        ("leaf_value", "0 0", "leaf_value has \\d+ values, not"),
        ("leaf_value", '"one"', "it holds what is no number"),
        ("leaf_value", "1" * 40 + " " + "1" * 40 + " =", "it holds what is no number"),
        ("num_leaves", "0", "it has no leaf"),
        ("num_cat", "1", "its sets of categories do not fit together"),
        ("is_linear", "1", "its leaves' models are not whole"),
        ("shrinkage", "1\nnum_leaves=2", "it has two lines of 'num_leaves'"),
        ("shrinkage", "1" + "".join(f"\nx{n}=1" for n in range(9)), "it has too many lines"),
    ],
)
def test_a_tree_that_leads_astray_never_reaches_lightgbm(tmp_path: Path, field: str, value: str, says: str) -> None:
    """LightGBM itself would end the process over each, read what is not its own, or never return."""
    head, tree, rest = text(BOOSTER).decode().partition("\n\nTree=0\n")
    first, end, others = rest.partition("\n\n\n")
    lines = first.split("\n")
    (at,) = [index for index, line in enumerate(lines) if line.startswith(f"{field}=")]
    key, _, values = lines[at].partition("=")
    lines[at] = f"{key}={' '.join([value, *values.split(' ')[1:]]).strip()}"
    changed = "\n".join(lines)
    sizes = head.replace("tree_sizes=", f"tree_sizes={len('Tree=0' + chr(10) + changed + end)} ", 1)
    first_size = len("Tree=0\n" + first + end)
    sizes = sizes.replace(f" {first_size}", "", 1)
    (tmp_path / "m.txt").write_text(sizes + tree + changed + end + others)

    with pytest.raises(LoadFailed, match=f"tree 0 is not valid: .*{says}"):
        load(tmp_path)


@pytest.mark.parametrize(
    "booster",
    [
        train("regression", VALUES, linear_tree=True, data=np.nan_to_num(X)),
        train("regression", np.ones(120)),
        train("multiclass", THREE, num_class=3),
        train("multiclassova", THREE, num_class=3),
        train("binary", boosting="rf", bagging_freq=1, bagging_fraction=0.5),
        train("binary", boosting="dart"),
        train("regression", VALUES, monotone_constraints=[1, 0, 0, -1]),
        train("poisson", VALUES),
        train("quantile", VALUES, alpha=0.3),
        train("cross_entropy", BINARY.astype(float)),
        train("lambdarank", BINARY, group=[60, 60]),
        train("binary", num_leaves=63, rounds=30),
    ],
    ids=lambda booster: str(booster.params["objective"]),
)
def test_a_booster_answers_as_its_own_predict(tmp_path: Path, booster: Any) -> None:
    booster.save_model(tmp_path / "model.txt")
    rows = np.nan_to_num(X)

    assert ask(load(tmp_path), rows.tolist()) == expected(booster, rows)
    assert ask(load(tmp_path), rows[:1].tolist()) == expected(booster, rows[:1])


def _values_of_its_own(labels: Any, predicted: Any) -> Any:
    return predicted - labels, np.ones_like(predicted)


@pytest.mark.parametrize(
    "wrapper",
    [
        CLASSIFIER,
        lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(X, np.array(["no", "yes"])[BINARY]),
        lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(X, np.array(["lo", "mid", "hi"])[THREE]),
        lightgbm.LGBMClassifier(n_estimators=30, verbosity=-1, pred_early_stop=True, pred_early_stop_margin=0.1).fit(
            X, BINARY
        ),
        lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1, objective=_values_of_its_own).fit(X, BINARY),
        lightgbm.LGBMRegressor(n_estimators=3, n_jobs=2, verbosity=-1).fit(X, VALUES),
        lightgbm.LGBMRanker(n_estimators=3, verbosity=-1).fit(X, BINARY, group=[60, 60]),
    ],
    ids=lambda wrapper: type(wrapper).__name__,
)
@pytest.mark.filterwarnings("ignore:.*customized objective")
def test_a_wrapper_answers_as_its_own_predict(tmp_path: Path, wrapper: Any) -> None:
    joblib.dump(wrapper, tmp_path / "model.joblib", compress=3)
    served = loaded(tmp_path).predict(X)

    np.testing.assert_array_equal(served, wrapper.predict(X))
    assert served.dtype == wrapper.predict(X).dtype


@pytest.mark.parametrize("form", ["m.txt", "m.joblib"])
def test_a_model_stopped_early_predicts_with_its_best_rounds(tmp_path: Path, form: str) -> None:
    noise = RNG.integers(0, 2, len(X))
    data, others = lightgbm.Dataset(X[:60], noise[:60]), lightgbm.Dataset(X[60:], noise[60:])
    # Kept, the rounds after the best stay in it, and so in a pickle.
    booster = lightgbm.train(
        {**QUIET, "objective": "binary"},
        data,
        30,
        valid_sets=[others],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
        keep_training_booster=True,
    )
    best = expected(booster)
    assert best != np.asarray(booster.predict(np.asarray(ROWS), num_iteration=-1)).tolist()  # or the test shows nothing
    if form == "m.txt":
        booster.save_model(tmp_path / form)
    else:
        joblib.dump(booster, tmp_path / form)

    served = load(tmp_path)

    assert ask(served, ROWS) == best
    told = [f"training was stopped early: the first {booster.best_iteration} rounds predict"]
    assert served.notes == (told if form == "m.joblib" else [])  # text holds no others


# Requests


def npz(matrix: Any) -> bytes:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS).encode(), "application/json"),
        (json.dumps({"instances": ROWS}).encode(), "application/json"),
        (json.dumps({"features": ROWS}).encode(), None),
        (b"\n".join(json.dumps(row).encode() for row in ROWS), "application/jsonlines"),
        ("\n".join(",".join(map(repr, row)) for row in ROWS).encode(), "text/csv"),
        (codecs.encode(np.array(ROWS), "application/x-npy")[0], "application/x-npy"),
        (npz(scipy.sparse.csr_matrix(np.array(ROWS))), "application/x-npz"),
        (npz(scipy.sparse.coo_matrix(np.array(ROWS))), "application/x-npz"),
        ("\n".join(" ".join(f"{i}:{v!r}" for i, v in enumerate(row, 1)) for row in ROWS).encode(), "text/libsvm"),
    ],
)
def test_every_content_type_gives_the_same_answer(model: Model, body: bytes, content_type: str | None) -> None:
    assert ask(model, body, content_type) == expected()


def test_a_flat_list_is_one_row_and_whole_numbers_are_taken(model: Model) -> None:
    assert ask(model, [1, 0, -1, 2]) == expected(rows=[[1, 0, -1, 2]])


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"[[null, 1.5, null, 2]]", "application/json"), (b",1.5,nan,2\n", "text/csv")]
)
def test_what_is_not_there_is_missing(model: Model, body: bytes, content_type: str) -> None:
    assert ask(model, body, content_type) == expected(rows=[[np.nan, 1.5, np.nan, 2.0]])


def test_what_a_sparse_row_does_not_name_is_zero(model: Model) -> None:
    assert ask(model, b"1:0.5", "text/libsvm") == expected(rows=[[0.5, 0, 0, 0]])


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"[[1, 2, 3]]", "application/json", "expects 4 features, got 3"),
        (b"[]", "application/json", "expects 4 features, got 0"),
        (b"7", "application/json", "expects 4 features, got 1"),
        (b"1:1 5:1", "text/libsvm", "expects 4 features, got 5"),
        (npz(scipy.sparse.csr_matrix((0, 4))), "application/x-npz", "holds no rows"),
        (codecs.encode(np.zeros((0, 4)), "application/x-npy")[0], "application/x-npy", "holds no rows"),
        (codecs.encode(np.zeros((2, 2, 4)), "application/x-npy")[0], "application/x-npy", r"shape \(2, 2, 4\)"),
        (b'[[1, 2, 3, 4], [1, 2, "red", 4]]', "application/json", "a number in column 3, got 'red' in row 2"),
        (b"1,2,three,4\n", "text/csv", "a number in column 3, got 'three' in row 1"),
        (b'{"rows": [[1, 2, 3, 4]]}', "application/json", "holds no rows; send"),
    ],
)
def test_what_the_model_cannot_take_is_refused_in_a_sentence(
    model: Model, body: bytes, content_type: str | None, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        ask(model, body, content_type)


def test_columns_that_the_client_names_are_put_in_the_models_order(named: Model) -> None:
    order = [3, 1, 0, 2]
    names = [NAMES[i] for i in order]
    rows = [[row[i] for i in order] for row in ROWS]
    header = ",".join(names) + "\n" + "\n".join(",".join(map(repr, row)) for row in rows)

    assert ask(named, [dict(zip(names, row, strict=True)) for row in rows]) == expected(NAMED)
    assert ask(named, {"columns": names, "data": rows}) == expected(NAMED)
    assert ask(named, header.encode(), "text/csv") == expected(NAMED)
    with pytest.raises(BadInput, match="the rows lack 'weight'; the model does not know 'wieght'"):
        ask(named, [{"age": 1, "income": 2, "height": 3, "wieght": 4}])


def test_a_model_without_names_takes_columns_as_they_come(model: Model) -> None:
    assert ask(model, {"columns": NAMES, "data": ROWS}) == expected()


def test_names_with_spaces_are_known_as_the_client_wrote_them(tmp_path: Path) -> None:
    booster = train(data=pd.DataFrame(X, columns=["the age", "b", "c", "d"]))
    booster.save_model(tmp_path / "model.txt")

    assert ask(load(tmp_path), {"columns": ["b", "the age", "c", "d"], "data": [[1, 2, 3, 4]]}) == expected(
        booster, [[2, 1, 3, 4]]
    )


# Categories


def test_categories_are_sent_by_their_names(categories: Model) -> None:
    frame = FRAME.head(20)
    want = CATEGORIES.predict(frame, num_threads=1).tolist()
    rows = frame.astype(object).to_numpy().tolist()

    assert len(set(want)) > 3  # or the test shows nothing
    assert ask(categories, rows) == want
    assert ask(categories, [dict(zip(FRAME, row, strict=True)) for row in rows]) == want
    assert ask(categories, frame.to_csv(index=False).encode(), "text/csv") == want


def test_text_categories_are_sent_by_their_codes_too(categories: Model) -> None:
    code = list(FRAME["city"].cat.categories).index("Rome")

    assert ask(categories, [[40, code, 20, 0.5]]) == ask(categories, [[40, "Rome", 20, 0.5]])
    assert ask(categories, [[40, "Rome", 20, 0.5]]) != ask(categories, [[40, "Paris", 20, 0.5]])


def test_a_category_the_model_was_not_trained_with_is_missing(categories: Model) -> None:
    asked = pd.DataFrame(FRAME.head(1).copy())
    asked["city"] = pd.Categorical(["Oslo"])
    asked["size"] = pd.Categorical([40])
    row = asked.astype(object).to_numpy().tolist()
    want = CATEGORIES.predict(asked, num_threads=1).tolist()

    assert ask(categories, row) == want
    assert ask(categories, [[row[0][0], None, None, row[0][3]]]) == want


def test_categories_do_not_come_in_a_sparse_matrix(categories: Model) -> None:
    with pytest.raises(BadInput, match="takes categories; send JSON or CSV"):
        ask(categories, b"1:1", "text/libsvm")


def test_where_it_cannot_be_told_which_columns_were_categories_codes_are_asked_for(tmp_path: Path) -> None:
    frame = FRAME.assign(size=FRAME["size"].cat.as_ordered())
    booster = train(data=frame, labels=BOUGHT)
    booster.save_model(tmp_path / "model.txt")
    served = load(tmp_path)

    assert served.notes == [
        "trained with 2 columns of categories, 1 of them unordered: it cannot be told which is which, "
        "so categories are to be sent as their codes"
    ]
    assert ask(served, [[40, 2, 1, 0.5]]) == expected(booster, [[40, 2, 1, 0.5]])
    with pytest.raises(BadInput, match=r"a number in column 2, got 'Rome'.*send categories as their codes"):
        ask(served, [[40, "Rome", 1, 0.5]])


# Joined, and directly


def test_joined_answers_equal_single_ones_and_a_bad_invocation_fails_alone(model: Model) -> None:
    rows = [Invocation(json.dumps([row]).encode(), "application/json") for row in np.nan_to_num(X[:20]).tolist()]
    bad = Invocation(b"[[1, 2]]", "application/json")

    *joined, refused = model.invoke([*rows, bad])
    alone = [model.invoke([invocation])[0] for invocation in rows]

    bodies = [answer.body for answer in joined if isinstance(answer, Answer)]
    assert bodies == [answer.body for answer in alone if isinstance(answer, Answer)]
    assert len(set(bodies)) > 1
    assert isinstance(refused, BadInput)


@pytest.mark.parametrize(
    "booster",
    [BOOSTER, train("multiclass", THREE, num_class=3), CATEGORIES, train("poisson", VALUES), CLASSIFIER],
    ids=lambda booster: type(booster).__name__,
)
def test_called_directly_the_answers_are_the_same_bit_for_bit(tmp_path: Path, booster: Any) -> None:
    joblib.dump(booster, tmp_path / "model.joblib")
    model = loaded(tmp_path)
    direct = manymodels_lightgbm.accelerate(model)
    assert direct is not None

    for rows in (*direct.probes, X, X[:1], np.asfortranarray(X[:9]), X[::-2], X[3:4]):
        original, answer = manymodels_lightgbm.predict_fn(rows, model), direct.predict(rows)
        assert (answer.dtype, answer.shape) == (original.dtype, original.shape)
        assert answer.tobytes() == original.tobytes()
    kept = direct.predict(X[:1])
    before = kept.copy()
    direct.predict(X[5:6])
    np.testing.assert_array_equal(kept, before)
    for rows in (scipy.sparse.csr_matrix(np.nan_to_num(X)), X.astype(np.float32), X[:0], X[:, :2]):
        with pytest.raises(LeftToOriginal):
            direct.predict(rows)


def test_the_threads_are_the_operators(tmp_path: Path) -> None:
    joblib.dump(lightgbm.LGBMRegressor(n_estimators=2, n_jobs=7, verbosity=-1).fit(X, VALUES), tmp_path / "m.joblib")
    context = Context("m", str(tmp_path), settings=ModelSettings(threads=3))

    assert manymodels_lightgbm.load(Artifact(tmp_path), context).parameters == {"num_threads": 3}


# The schema

FOUR = (Field(type="number", shape=(-1, 4)),)


@pytest.mark.parametrize(
    ("content", "schema"),
    [
        (BOOSTER, Schema(inputs=FOUR, outputs=(Field(type="number"),))),
        (
            train("multiclass", THREE, num_class=3),
            Schema(inputs=FOUR, outputs=(Field(type="number", shape=(-1, 3)),)),
        ),
        (CLASSIFIER, Schema(inputs=FOUR, outputs=(Field(type="integer", values=(0, 1)),))),
        (
            lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbosity=-1).fit(X, np.array(["a", "b", "c"])[THREE]),
            Schema(inputs=FOUR, outputs=(Field(type="string", values=("a", "b", "c")),)),
        ),
        (
            CATEGORIES,
            Schema(
                inputs=(
                    Field(name="age", type="number"),
                    Field(name="city", type="string", values=("Berlin", "Paris", "Rome")),
                    Field(name="size", type="integer", values=(10, 20, 30)),
                    Field(name="income", type="number"),
                ),
                outputs=(Field(type="number"),),
            ),
        ),
    ],
)
def test_what_a_model_tells_of_its_columns_and_answers(tmp_path: Path, content: Any, schema: Schema) -> None:
    joblib.dump(content, tmp_path / "model.joblib")
    model = load(tmp_path)
    assert decode(model.schema) == schema
    assert not model.notes
    answer = ask(model, [[50, "Rome", 10, 0.5]] if content is CATEGORIES else ROWS)
    (output,) = schema.outputs
    assert np.shape(answer)[1:] == (output.shape or (-1,))[1:]
    assert not output.values or set(answer) <= set(output.values)


# The sample


def test_the_sample_is_answered_as_it_says(tmp_path: Path) -> None:
    goldens = manymodels_lightgbm.sample_artifact(tmp_path)
    model = load(tmp_path)

    for golden in goldens:
        (answer,) = model.invoke([golden.invocation()])
        assert isinstance(answer, Answer)
        assert golden.check(answer) == 0
    assert {golden.content_type for golden in goldens} == {"application/json", "application/jsonlines", "text/csv"}


def test_the_exported_names_are_the_hooks_and_the_version() -> None:
    module = manymodels_lightgbm
    hooks = {name for name in vars(module) if hasattr(getattr(module, name), "manymodels_impl")}

    assert module.__all__ == sorted({*hooks, "__version__"})

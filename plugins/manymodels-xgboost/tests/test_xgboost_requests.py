"""What models of XGBoost are asked and what they answer: content types, names, replies, selected output."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import manymodels_xgboost
import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
import xgboost

from manymodels import Artifact, ModelSettings, Plugins
from manymodels.errors import (
    BadInput,
    LoadFailed,
    ManyModelsError,
    UnsupportedAccept,
    UnsupportedContentType,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

RNG = np.random.default_rng(7)
X = RNG.normal(size=(120, 4)).astype(np.float32)
BINARY = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
NAMES = ["age", "income", "height", "weight"]
SINGLE = ModelSettings(multi_model=False)
ROWS = X[:3].tolist()
RECORDIO = "application/x-recordio-protobuf"


def train(
    objective: str = "binary:logistic", labels: Any = BINARY, names: list[str] | None = None, **params: Any
) -> Any:
    matrix = xgboost.DMatrix(X, labels, feature_names=names)
    return xgboost.train({"objective": objective, "nthread": 1, **params}, matrix, 4)


BOOSTER = train()
NAMED = train(names=NAMES)
SOFTPROB = train("multi:softprob", THREE, num_class=3)


def load(path: Path, settings: ModelSettings | None = None) -> Model:
    settings = settings or ModelSettings()
    plugins = Plugins([("xgboost", manymodels_xgboost)])
    found = Artifact(path, "m")
    return Model(found, plugins.bind(found, settings), plugins, settings)


def ask(model: Model, body: Any, content_type: str | None = "application/json", accept: str | None = None) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(content, content_type, accept)])
    if isinstance(answer, ManyModelsError):
        raise answer
    return answer


def scores(model: Model, body: Any, content_type: str | None = "application/json") -> Any:
    return json.loads(ask(model, body, content_type).body)


def expected(booster: Any = BOOSTER, rows: Any = None) -> list[Any]:
    matrix = xgboost.DMatrix(X[:3] if rows is None else rows)
    answer: list[Any] = booster.predict(matrix, validate_features=False).tolist()
    return answer


# Requests


@pytest.fixture
def model(tmp_path: Path) -> Model:
    BOOSTER.save_model(tmp_path / "model.ubj")
    return load(tmp_path)


@pytest.fixture
def named(tmp_path: Path) -> Model:
    NAMED.save_model(tmp_path / "model.ubj")
    return load(tmp_path)


def npy(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(matrix: Any) -> bytes:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix)
    return stream.getvalue()


def lines(rows: Any, label: str = "") -> bytes:
    return "\n".join(label + " ".join(f"{i}:{v!r}" for i, v in enumerate(row, 1)) for row in rows).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS).encode(), "application/json"),
        (json.dumps({"instances": ROWS}).encode(), "application/json"),
        (json.dumps({"instances": [{"features": row} for row in ROWS]}).encode(), "application/json; charset=utf-8"),
        (json.dumps({"features": ROWS}).encode(), "application/json"),
        (b"\n".join(json.dumps(row).encode() for row in ROWS), "application/jsonlines"),
        ("\n".join(",".join(map(repr, row)) for row in ROWS).encode(), "text/csv"),
        (lines(ROWS), "text/libsvm"),
        (lines(ROWS, "1 "), "text/x-libsvm"),
        (npy(X[:3]), "application/x-npy"),
        (npy(X[:3].astype(np.float64)), "application/x-npy"),
        (npz(scipy.sparse.csr_matrix(X[:3])), "application/x-npz"),
        (npz(scipy.sparse.coo_matrix(X[:3].astype(np.float64))), "application/x-npz"),
        (lines(ROWS), None),
        (json.dumps(ROWS).encode(), None),
        (b' \n {"instances": ' + json.dumps(ROWS).encode() + b"}", None),
    ],
)
def test_every_content_type_gives_the_same_answer(model: Model, body: bytes, content_type: str | None) -> None:
    assert scores(model, body, content_type) == expected()


def test_a_flat_list_is_one_row(model: Model) -> None:
    assert scores(model, ROWS[0]) == expected()[:1]
    assert scores(model, {"features": ROWS[0]}) == expected()[:1]


def test_integers_are_taken(model: Model) -> None:
    assert scores(model, [[1, 0, -1, 2]]) == expected(rows=np.array([[1.0, 0.0, -1.0, 2.0]]))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"[[null, 1.5, null, 2]]", "application/json"), (b",1.5,nan,2\n", "text/csv"), (b"2:1.5 4:2", "text/libsvm")],
)
def test_what_is_not_there_is_missing(model: Model, body: bytes, content_type: str) -> None:
    assert scores(model, body, content_type) == expected(rows=np.array([[np.nan, 1.5, np.nan, 2.0]]))


def test_libsvm_narrower_than_the_model_leaves_features_missing_and_zero_is_no_missing_value(model: Model) -> None:
    assert scores(model, b"1:0.5 2:0", "text/libsvm") == expected(rows=np.array([[0.5, 0.0, np.nan, np.nan]]))


def test_features_that_a_double_alone_can_hold_become_infinite(model: Model) -> None:
    huge = expected(rows=np.array([[3e38, 1, 1, 1]]))

    assert scores(model, [[1e300, 1, 1, 1]]) == huge
    assert scores(model, b"1:1e300 2:1 3:1 4:1", "text/libsvm") == huge


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"[[1e300, 1, 1, 1]]", "application/json"), (b"1:1e300 2:1", "text/libsvm")]
)
def test_a_linear_booster_takes_no_infinite_numbers(tmp_path: Path, body: bytes, content_type: str) -> None:
    train(booster="gblinear").save_model(tmp_path / "model.ubj")

    with pytest.raises(BadInput, match=r"finite numbers of float32 only; one sent is infinite, or beyond 3\.4e38"):
        ask(load(tmp_path), body, content_type)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"[[1, 2, 3]]", "application/json", "expects 4 features, got 3"),
        (b"[1, 2, 3, 4, 5]", "application/json", "expects 4 features, got 5"),
        (b"[]", "application/json", "expects 4 features, got 0"),
        (b"7", "application/json", "expects 4 features, got 1"),
        (b"1,2,3\n", "text/csv", "expects 4 features, got 3"),
        (b"1:1 5:1", "text/libsvm", "expects 4 features, got 5"),
        (npz(scipy.sparse.csr_matrix((1, 9))), "application/x-npz", "expects 4 features, got 9"),
        (npy(np.zeros((2, 2, 4))), "application/x-npy", r"expects 4 features, got an array of shape \(2, 2, 4\)"),
        (b'[[1, 2, 3, 4], [1, 2, "red", 4]]', "application/json", "numbers only, got 'red' in row 2, column 3"),
        (b"1,2,three,4\n", "text/csv", "numbers only, got 'three' in row 1, column 3"),
        (b'{"rows": [[1, 2, 3, 4]]}', "application/json", "holds no rows; send"),
        (b"[[1, 2", "application/json", "not valid JSON"),
        (b"", "application/json", "not valid JSON"),
        (b"", None, "holds no rows"),
    ],
)
def test_what_the_model_cannot_take_is_refused_in_a_sentence(
    model: Model, body: bytes, content_type: str | None, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        ask(model, body, content_type)


def test_a_pickled_body_is_not_unpickled(model: Model) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(BadInput, match="not taken"):
        ask(model, stream.getvalue(), "application/x-npy")


def test_an_unknown_content_type_is_unsupported(model: Model) -> None:
    with pytest.raises(UnsupportedContentType):
        ask(model, b"x", "image/png")


def test_a_model_with_names_takes_rows_without(named: Model) -> None:
    assert scores(named, ROWS) == expected(NAMED)
    assert scores(named, lines(ROWS), "text/libsvm") == expected(NAMED)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_columns_that_the_client_names_are_put_in_the_models_order(named: Model, order: list[int]) -> None:
    names = [NAMES[i] for i in order]
    rows = [[row[i] for i in order] for row in ROWS]
    header = ",".join(names) + "\n" + "\n".join(",".join(map(repr, row)) for row in rows)

    assert scores(named, [dict(zip(names, row, strict=True)) for row in rows]) == expected(NAMED)
    assert scores(named, {"columns": names, "data": rows}) == expected(NAMED)
    assert scores(named, {"features": rows, "columns": names}) == expected(NAMED)
    assert scores(named, header.encode(), "text/csv") == expected(NAMED)


def test_names_the_model_does_not_have_are_named(named: Model) -> None:
    with pytest.raises(BadInput, match="the rows lack 'weight'; the model does not know 'wieght'"):
        ask(named, [{"age": 1, "income": 2, "height": 3, "wieght": 4}])
    with pytest.raises(BadInput, match=r"the rows lack 'height', 'weight'$"):
        ask(named, [{"age": 1, "income": 2}])
    with pytest.raises(BadInput, match=r"does not know 'c0', 'c1', 'c2', 'c3', 'c4' and 2 more$"):
        ask(named, [dict.fromkeys([*NAMES, *(f"c{i}" for i in range(7))], 1)])


def test_a_model_without_names_takes_columns_as_they_come(model: Model) -> None:
    assert scores(model, {"columns": NAMES, "data": ROWS}) == expected()


# Replies


@pytest.mark.parametrize(
    ("settings", "accept", "body"),
    [
        (ModelSettings(), "application/json", b"[0.25,0.5]"),
        (SINGLE, "application/json", b'{"predictions":[{"score":0.25},{"score":0.5}]}'),
        (SINGLE, "application/jsonlines", b'{"score":0.25}\n{"score":0.5}\n'),
        (ModelSettings(), "application/jsonlines", b'{"score":0.25}\n{"score":0.5}\n'),
        (ModelSettings(), "text/csv", b"0.25,0.5"),
        (ModelSettings(batch_transform=True), "text/csv", b"0.25\n0.5\n"),
        (ModelSettings(batch_transform=True), "application/jsonlines", b'{"score":0.25}\n{"score":0.5}\n'),
        (ModelSettings(), "text/*;q=0.5, image/png", b"0.25,0.5"),
        (ModelSettings(), "*/*", b"[0.25,0.5]"),
        (ModelSettings(), None, b"[0.25,0.5]"),
        (ModelSettings(default_accept="text/csv"), None, b"0.25,0.5"),
    ],
)
def test_the_replies_are_those_of_the_sagemaker_container(
    tmp_path: Path, settings: ModelSettings, accept: str | None, body: bytes
) -> None:
    # One split without shrinkage: the leaves are the labels' means.
    tree = {"objective": "reg:squarederror", "eta": 1, "lambda": 0, "base_score": 0, "tree_method": "exact"}
    matrix = xgboost.DMatrix(np.array([[0.0], [1.0]]), [0.25, 0.5])
    xgboost.train({**tree, "min_child_weight": 0, "nthread": 1}, matrix, 1).save_model(tmp_path / "m.ubj")

    assert ask(load(tmp_path, settings), [[0], [1]], accept=accept).body == body


@pytest.mark.parametrize("accept", ["application/json", "application/jsonlines", "text/csv", "application/x-npy"])
def test_the_reply_has_the_accepted_type(model: Model, accept: str) -> None:
    assert ask(model, ROWS, accept=accept).content_type == accept


def test_scores_keep_every_digit_the_container_sends(model: Model) -> None:
    assert ask(model, ROWS, accept="text/csv").body.decode() == ",".join(map(str, expected()))


def test_vectors_are_rows_of_csv_and_lists_of_json(tmp_path: Path) -> None:
    SOFTPROB.save_model(tmp_path / "model.ubj")
    want = expected(SOFTPROB)

    csv = ask(load(tmp_path), ROWS, accept="text/csv").body.decode()
    assert csv == "".join(",".join(map(str, row)) + "\n" for row in want)
    assert ask(load(tmp_path, ModelSettings(batch_transform=True)), ROWS, accept="text/csv").body.decode() == csv
    assert scores(load(tmp_path), ROWS) == want
    assert scores(load(tmp_path, SINGLE), ROWS) == {"predictions": [{"score": row} for row in want]}


def test_another_accept_is_unsupported(model: Model) -> None:
    with pytest.raises(UnsupportedAccept, match="application/json"):
        ask(model, ROWS, accept="image/png")


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def records(rows: list[dict[str, list[float]]]) -> bytes:
    """Return RecordIO with a record a row, its values as labels of float32."""
    written = b""
    for row in rows:
        record = b""
        for name, values in row.items():
            tensor = field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
            record += field(2, field(1, name.encode()) + field(2, tensor))
        written += struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)
    return written


def test_records_have_scores_as_labels(tmp_path: Path, model: Model) -> None:
    answer = ask(model, ROWS, accept=RECORDIO)
    assert (answer.body, answer.content_type) == (records([{"values": [score]} for score in expected()]), RECORDIO)
    SOFTPROB.save_model(tmp_path / "model.ubj")
    vectors = [{"values": row} for row in expected(SOFTPROB)]
    assert ask(load(tmp_path), ROWS, accept=RECORDIO).body == records(vectors)


# Selected output


def selecting(path: Path, booster: Any, output: Any) -> Model:
    booster.save_model(path / "model.ubj")
    (path / "manymodels.json").write_text(json.dumps({"settings": {"output": output}}))
    return load(path)


def test_selected_output_of_a_binary_model(tmp_path: Path) -> None:
    keys = "predicted_label, labels,probability,probabilities,raw_score,raw_scores"
    model = selecting(tmp_path, BOOSTER, keys)
    want = [
        {
            "predicted_label": int(p > 0.5),
            "labels": [0, 1],
            "probability": p,
            "probabilities": [1 - p, p],
            "raw_score": p,
            "raw_scores": [1 - p, p],
        }
        for p in expected()
    ]

    assert scores(model, ROWS) == {"predictions": want}
    assert list(scores(model, ROWS)["predictions"][0]) == keys.replace(" ", "").split(",")


def test_selected_output_of_a_multiclass_model(tmp_path: Path) -> None:
    model = selecting(tmp_path, SOFTPROB, "predicted_label,labels,probability,probabilities")
    want = [
        {"predicted_label": int(np.argmax(row)), "labels": [0, 1, 2], "probability": max(row), "probabilities": row}
        for row in expected(SOFTPROB)
    ]

    assert scores(model, ROWS) == {"predictions": want}


@pytest.mark.parametrize(
    ("objective", "labels", "params", "label"),
    [
        ("binary:logitraw", BINARY, {}, lambda raw: int(raw > 0)),
        ("binary:hinge", BINARY, {}, float),
        ("multi:softmax", THREE, {"num_class": 3}, float),
    ],
)
def test_the_predicted_label_of_other_classifiers(
    tmp_path: Path, objective: str, labels: Any, params: Any, label: Callable[[float], float]
) -> None:
    booster = train(objective, labels, **params)
    model = selecting(tmp_path, booster, "predicted_label")
    rows = X.tolist()

    assert scores(model, rows) == {"predictions": [{"predicted_label": label(r)} for r in expected(booster, X)]}


def test_selected_output_of_a_regression(tmp_path: Path) -> None:
    booster = train("reg:squarederror", X[:, 0])

    assert scores(selecting(tmp_path, booster, "predicted_score"), ROWS) == {
        "predictions": [{"predicted_score": score} for score in expected(booster)]
    }


def test_selected_output_of_a_wrapper_is_that_of_its_booster(tmp_path: Path) -> None:
    classifier = xgboost.XGBClassifier(n_estimators=4).fit(X, BINARY)
    joblib.dump(classifier, tmp_path / "model.joblib")
    (tmp_path / "manymodels.json").write_text('{"settings": {"output": "predicted_label,probability"}}')
    probability = classifier.predict_proba(X[:3])[:, 1].tolist()

    assert scores(load(tmp_path), ROWS) == {
        "predictions": [
            {"predicted_label": int(label), "probability": p}
            for label, p in zip(classifier.predict(X[:3]), probability, strict=True)
        ]
    }


def test_selected_output_in_lines_and_csv(tmp_path: Path) -> None:
    model = selecting(tmp_path, BOOSTER, "predicted_label,probabilities")
    rows = [(int(p > 0.5), [1 - p, p]) for p in expected()]

    lines = ask(model, ROWS, accept="application/jsonlines")
    assert [json.loads(line) for line in lines.body.splitlines()] == [
        {"predicted_label": label, "probabilities": p} for label, p in rows
    ]
    csv = "\n".join(f'{label},"{p}"' for label, p in rows)
    assert ask(model, ROWS, accept="text/csv").body.decode() == csv
    batch = load(tmp_path, ModelSettings(batch_transform=True))
    assert ask(batch, ROWS, accept="text/csv").body.decode() == f"{csv}\n"
    labels = [{"predicted_label": [label], "probabilities": p} for label, p in rows]
    assert ask(model, ROWS, accept=RECORDIO).body == records(labels)
    with pytest.raises(UnsupportedAccept):
        ask(model, ROWS, accept="application/x-npy")


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (
            "predicted_label,shap",
            "names 'shap'; a model of its objective .binary:logistic. answers with predicted_label, lab",
        ),
        ("predicted_score", "names 'predicted_score'"),
        (",", "names ''"),
        (["labels"], "must be a string of keys"),
    ],
)
def test_output_the_model_cannot_give_is_refused_at_load(tmp_path: Path, output: Any, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        selecting(tmp_path, BOOSTER, output)


def test_the_labels_of_several_targets_cannot_be_selected(tmp_path: Path) -> None:
    several = xgboost.XGBClassifier(n_estimators=2).fit(X, (X[:, :3] > 0).astype(int)).get_booster()

    with pytest.raises(LoadFailed, match="several targets"):
        selecting(tmp_path, several, "predicted_label")

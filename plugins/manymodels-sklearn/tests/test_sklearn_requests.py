"""From a request's body to its reply, driven as the platform drives it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

from manymodels import Artifact, Context, ModelSettings, Plugins
from manymodels.errors import (
    BadInput,
    ManyModelsError,
    PredictionFailed,
    UnsupportedAccept,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

RNG = np.random.default_rng(7)
X = RNG.random((80, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
PEOPLE = pd.DataFrame({"age": RNG.integers(18, 80, 60), "city": RNG.choice(["Bonn", "Kiel"], 60)})
RICH = ((PEOPLE["age"] > 40) & (PEOPLE["city"] == "Kiel")).astype(int)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Model]:
    def make(estimator: Any, *, metadata: Any = None) -> Model:
        joblib.dump(estimator, tmp_path / "model.joblib")
        if metadata is not None:
            (tmp_path / "metadata.json").write_text(json.dumps(metadata))
        plugins, artifact = Plugins([("sklearn", manymodels_sklearn)]), Artifact(tmp_path)
        return Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())

    return make


def request(data: Any, content_type: str | None = "application/json", accept: str | None = None) -> Invocation:
    return Invocation(data if isinstance(data, bytes) else json.dumps(data).encode(), content_type, accept)


def answer(result: Answer | ManyModelsError) -> Answer:
    if isinstance(result, ManyModelsError):
        raise result
    return result


def ask(model: Model, data: Any, content_type: str | None = "application/json", accept: str | None = None) -> Any:
    reply = answer(model.invoke([request(data, content_type, accept)])[0])
    return json.loads(reply.body) if reply.content_type == "application/json" else reply.body


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def logistic() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


# input


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (X[:2].tolist(), "application/json"),
        (X[:2].tolist(), None),
        ("\n".join(",".join(map(str, row)) for row in X[:2]).encode(), "text/csv"),
        ("\n".join(json.dumps(row) for row in X[:2].tolist()).encode(), "application/jsonlines"),
        (npy(X[:2]), "application/x-npy"),
        (npy(np.asfortranarray(X[:2].astype(np.float32))), "application/x-npy"),
    ],
)
def test_every_dense_type_gives_the_same_answer(serve: Callable[..., Model], body: Any, content_type: str) -> None:
    assert ask(serve(logistic()), body, content_type) == logistic().predict(X[:2]).tolist()


def test_a_flat_list_is_one_row(serve: Callable[..., Model]) -> None:
    assert ask(serve(logistic()), X[0].tolist()) == [Y[0]]


def test_a_flat_list_is_a_column_for_a_model_of_one_feature(serve: Callable[..., Model]) -> None:
    model = serve(LinearRegression().fit([[1.0], [2.0]], [10.0, 20.0]))
    assert ask(model, [1, 2, 3]) == pytest.approx([10, 20, 30])


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [1, 2, 3, 4, 5]])
def test_another_width_is_refused(serve: Callable[..., Model], rows: Any) -> None:
    with pytest.raises(BadInput, match=r"expects 4 features, got [35]"):
        ask(serve(logistic()), rows)


@pytest.mark.parametrize("body", [[], 3, {"rows": [[1]]}, [[[1.0]]], [[1, 2, 3, {"a": 1}]]])
def test_what_is_no_table_is_refused(serve: Callable[..., Model], body: Any) -> None:
    with pytest.raises(BadInput):
        ask(serve(logistic()), body)


def test_an_array_without_rows_is_refused(serve: Callable[..., Model]) -> None:
    with pytest.raises(BadInput, match="no rows"):
        ask(serve(logistic()), npy(np.zeros((0, 4))), "application/x-npy")


def test_null_is_missing(serve: Callable[..., Model]) -> None:
    model = serve(make_pipeline(SimpleImputer(), LinearRegression()).fit([[1.0, 0], [3.0, 0]], [1.0, 3.0]))
    assert ask(model, [[None, 0]]) == pytest.approx([2.0])
    with pytest.raises(BadInput, match="contains NaN"):
        ask(serve(logistic()), [[None, 1, 2, 3]])


def test_a_header_that_is_not_known_for_one_is_told(serve: Callable[..., Model]) -> None:
    for body in (b"a,b,c,d\n1,2,3,4\n", b"a,b,c,d\n1,2,3,\n5,6,7,8\n"):
        with pytest.raises(BadInput, match=r"float: 'a'; if the first row is a header, .* text/csv; header=present$"):
            ask(serve(logistic()), body, "text/csv")


def test_what_the_estimator_refuses_is_one_line(serve: Callable[..., Model]) -> None:
    with pytest.raises(BadInput, match="the model refuses the data: ") as caught:
        ask(serve(logistic()), [["x" * 5000 + "\nsecret", "b", "c", "d"]])
    assert "secret" not in str(caught.value)
    assert "header" not in str(caught.value)
    assert len(str(caught.value)) < 350


def test_names_put_columns_in_order(serve: Callable[..., Model]) -> None:
    trained = LogisticRegression().fit(pd.DataFrame(X, columns=list("abcd")), Y)
    model, expected = serve(trained), Y[:5].tolist()
    expected = logistic().predict(X[:5]).tolist()
    turned = [dict(zip("dcba", row[::-1], strict=True)) for row in X[:5].tolist()]
    assert ask(model, turned) == expected
    assert ask(model, {"columns": list("dcba"), "data": X[:5, ::-1].tolist()}) == expected
    csv = "d,c,b,a\n" + "\n".join(",".join(map(str, row[::-1])) for row in X[:5].tolist())
    assert ask(model, csv.encode(), "text/csv") == expected
    assert ask(model, X[:5].tolist()) == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": 1, "b": 1, "c": 1}, r"missing: 'd'\)$"),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "id": 7}, r"unknown: 'id'\)$"),
        ({"a": 1, "b": 1, "c": 1, "D": 1}, r"missing: 'd'; unknown: 'D'\)$"),
    ],
)
def test_names_that_do_not_fit_are_listed(serve: Callable[..., Model], row: Any, said: str) -> None:
    model = serve(LogisticRegression().fit(pd.DataFrame(X, columns=list("abcd")), Y))
    with pytest.raises(BadInput, match=said):
        ask(model, [row])


def test_names_mean_nothing_to_a_model_trained_without(serve: Callable[..., Model]) -> None:
    assert ask(serve(logistic()), [dict(zip("wxyz", X[0].tolist(), strict=True))]) == [Y[0]]


def people() -> Any:
    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("age", SimpleImputer(), ["age"])])
    missing = pd.DataFrame({"age": [30], "city": [np.nan]})
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(
        pd.concat([PEOPLE, missing]), pd.concat([RICH, pd.Series([0])])
    )


def test_a_column_transformer_gets_its_names_and_dtypes(serve: Callable[..., Model]) -> None:
    trained = people()
    model, expected = serve(trained), trained.predict(PEOPLE[:4]).tolist()
    assert ask(model, PEOPLE[:4].to_dict("records")) == expected
    assert ask(model, PEOPLE[:4].values.tolist()) == expected
    assert ask(model, PEOPLE[:4].to_csv(index=False).encode(), "text/csv") == expected
    assert ask(model, PEOPLE[:4].to_csv(index=False, header=False).encode(), "text/csv") == expected


def test_null_in_a_text_column_is_the_nan_of_training(serve: Callable[..., Model]) -> None:
    model = serve(people())
    assert ask(model, [{"age": None, "city": None}]) == [0]
    with pytest.raises(BadInput, match="unknown categories"):
        ask(model, [{"age": 3, "city": "Rome"}])


def test_categorical_columns_of_a_tree_model(serve: Callable[..., Model]) -> None:
    table = PEOPLE.assign(city=PEOPLE["city"].astype("category"))
    trained = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(table, RICH)
    assert ask(serve(trained), PEOPLE[:9].to_dict("records")) == trained.predict(table[:9]).tolist()


def test_text_stays_text_to_a_model_of_categories(serve: Callable[..., Model]) -> None:
    codes = np.array([["1"], ["2"]] * 4, dtype=object)
    model = serve(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(codes, [0, 1] * 4))
    assert ask(model, [["1"], ["2"]]) == [0, 1]


DOCUMENTS = ["cheap pills now", "meeting at noon", "cheap watches", "lunch at noon"]


def spam() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(DOCUMENTS, [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (DOCUMENTS[:2], "application/json"),
        ([[text] for text in DOCUMENTS[:2]], "application/json"),
        ({"instances": DOCUMENTS[:2]}, "application/json"),
        ("\n".join(DOCUMENTS[:2]).encode(), "text/csv"),
    ],
)
def test_texts_reach_a_text_pipeline(serve: Callable[..., Model], body: Any, content_type: str) -> None:
    assert ask(serve(spam()), body, content_type) == [1, 0]


@pytest.mark.parametrize("body", [[1, 2], [["a", "b"]], ["a", None]])
def test_a_text_pipeline_takes_only_texts(serve: Callable[..., Model], body: Any) -> None:
    with pytest.raises(BadInput, match="takes texts"):
        ask(serve(spam()), body)


def npz(matrix: Any) -> bytes:
    out = io.BytesIO()
    scipy.sparse.save_npz(out, matrix)
    return out.getvalue()


def test_sparse_input_is_widened_to_the_model(serve: Callable[..., Model]) -> None:
    model, trained = serve(logistic()), logistic()
    assert (
        ask(model, b"0 1:0.9 2:0.8\n1 2:0.1\n", "text/libsvm")
        == trained.predict([[0.9, 0.8, 0, 0], [0, 0.1, 0, 0]]).tolist()
    )
    assert ask(model, npz(scipy.sparse.csr_matrix(X[:3])), "application/x-npz") == trained.predict(X[:3]).tolist()
    with pytest.raises(BadInput, match="expects 4 features, got 9"):
        ask(model, b"0 9:1\n", "text/libsvm")


def test_sparse_input_is_refused_where_it_makes_no_sense(serve: Callable[..., Model]) -> None:
    with pytest.raises(BadInput, match="named columns"):
        ask(serve(people()), b"0 1:1\n", "text/libsvm")
    with pytest.raises(BadInput, match="takes texts"):
        ask(serve(spam()), b"0 1:1\n", "text/libsvm")
    with pytest.raises(BadInput, match="the model refuses the data"):
        ask(serve(HistGradientBoostingClassifier(max_iter=2).fit(X, Y)), b"0 1:1\n", "text/libsvm")


# replies


def test_the_features_form_is_answered_in_full(serve: Callable[..., Model]) -> None:
    model, trained = serve(logistic(), metadata={"n_features": 4, "accuracy": 0.9}), logistic()
    reply = ask(model, {"features": X[:3].tolist()})
    assert list(reply) == ["predictions", "probabilities", "model_metadata"]
    assert reply["predictions"] == trained.predict(X[:3]).tolist()
    np.testing.assert_allclose(reply["probabilities"], trained.predict_proba(X[:3]), rtol=1e-12)
    assert reply["model_metadata"] == {"n_features": 4, "accuracy": 0.9}


def test_one_row_of_features_may_be_flat(serve: Callable[..., Model]) -> None:
    assert ask(serve(logistic()), {"features": X[0].tolist()})["predictions"] == [Y[0]]


def test_a_model_without_probabilities_or_metadata_says_so(serve: Callable[..., Model]) -> None:
    reply = ask(serve(LinearRegression().fit(X, X[:, 0])), {"features": X[:1].tolist()})
    assert list(reply) == ["predictions", "model_metadata"]
    assert reply["model_metadata"] is None


def test_features_with_names(serve: Callable[..., Model]) -> None:
    trained = people()
    turned = PEOPLE[["city", "age"]][:3]
    reply = ask(serve(trained), {"features": turned.values.tolist(), "columns": ["city", "age"]})
    assert reply["predictions"] == trained.predict(PEOPLE[:3]).tolist()


def test_features_asked_for_as_csv_are_the_predictions(serve: Callable[..., Model]) -> None:
    model = serve(logistic())
    assert ask(model, {"features": X[:2].tolist()}, accept="text/csv") == ask(model, X[:2].tolist(), accept="text/csv")


def test_text_labels(serve: Callable[..., Model]) -> None:
    labels = np.where(Y == 1, "yes", "no, never")
    model = serve(SVC().fit(X, labels))
    assert ask(model, X[:3].tolist()) == SVC().fit(X, labels).predict(X[:3]).tolist()
    assert ask(model, {"features": X[:1].tolist()})["predictions"] == [labels[0]]


def test_many_outputs_stay_nested_by_row(serve: Callable[..., Model]) -> None:
    targets = np.column_stack([Y, np.arange(80) % 3])
    trained = MultiOutputClassifier(LogisticRegression()).fit(X, targets)
    reply = ask(serve(trained), {"features": X[:2].tolist()})
    assert reply["predictions"] == trained.predict(X[:2]).tolist()
    first, second = trained.predict_proba(X[:2])
    assert [len(part) for part in reply["probabilities"][1]] == [2, 3]
    np.testing.assert_allclose(reply["probabilities"][1][0], first[1])
    np.testing.assert_allclose(reply["probabilities"][1][1], second[1])


def test_accept_is_honoured(serve: Callable[..., Model]) -> None:
    model, expected = serve(logistic()), logistic().predict(X[:3])
    reply = ask(model, X[:3].tolist(), accept="application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(reply), allow_pickle=False), expected)
    for form in (X[:1].tolist(), {"features": X[:1].tolist()}):
        with pytest.raises(UnsupportedAccept):
            ask(model, form, accept="image/png")


def test_an_unfitted_model_is_not_the_clients_fault(serve: Callable[..., Model]) -> None:
    with pytest.raises(PredictionFailed, match="not fitted yet"):
        ask(serve(LogisticRegression()), X[:1].tolist())


# batches


def test_joined_answers_equal_single_ones(serve: Callable[..., Model]) -> None:
    requests = [request(X[start : start + 1 + start % 3].tolist()) for start in range(0, 30, 3)]
    requests.append(request(b"0.1,0.2,0.3,0.4", "text/csv", "text/csv"))
    for estimator in (logistic(), GradientBoostingClassifier(n_estimators=5).fit(X, Y), KMeans(2, n_init=1).fit(X)):
        model = serve(estimator)
        joined = [answer(result).body for result in model.invoke(requests)]
        assert joined == [answer(model.invoke([one])[0]).body for one in requests]


def test_requests_are_joined_into_one_call(tmp_path: Path) -> None:
    joblib.dump(people(), tmp_path / "model.joblib")
    bound, context = Plugins([("sklearn", manymodels_sklearn)]).bound("sklearn"), Context("x", str(tmp_path))
    model = bound.load(Artifact(tmp_path), context)
    batch = bound.batch(model, context)
    assert batch is not None

    def read(body: Any) -> Any:
        return bound.input_fn(json.dumps(body).encode(), "application/json", model, context)

    rows = [[30, "Bonn"], [55, "Kiel"]]
    bare = [read(rows), read([{"city": "Kiel", "age": 41.5}])]
    joined = batch.join(bare)
    assert joined is not None
    assert joined[1] == [2, 1]
    shares = batch.split(bound.predict_fn(joined[0], model, context), joined[1])
    assert [share.tolist() for share in shares] == [bound.predict_fn(one, model, context).tolist() for one in bare]
    assert batch.join([*bare, read({"features": rows})]) is None


def test_columns_that_only_some_requests_fill_are_joined_alike(serve: Callable[..., Model]) -> None:
    model = serve(people())
    cities: list[str | None] = ["Kiel", None, "Bonn", "Kiel"]
    ages: list[int | None] = [70, 20, None, None]
    requests = [request([{"city": city, "age": age}]) for city, age in zip(cities, ages, strict=True)]
    joined = [answer(result).body for result in model.invoke(requests)]
    assert joined == [answer(model.invoke([one])[0]).body for one in requests]
    assert set(joined) == {b"[0]", b"[1]"}


@pytest.mark.parametrize("multi", [False, True])
def test_joined_features_forms_are_split(serve: Callable[..., Model], multi: bool) -> None:
    trained = MultiOutputClassifier(LogisticRegression()).fit(X, np.column_stack([Y, 1 - Y])) if multi else logistic()
    model = serve(trained, metadata={"v": 1})
    requests = [request({"features": X[:2].tolist()}), request({"features": X[2:3].tolist()}, accept="text/csv")]
    joined = [answer(result) for result in model.invoke(requests)]
    alone = [answer(model.invoke([one])[0]) for one in requests]
    first, expected = json.loads(joined[0].body), json.loads(alone[0].body)
    np.testing.assert_allclose(first.pop("probabilities"), expected.pop("probabilities"), rtol=1e-12)
    assert first == expected
    assert joined[1].body == alone[1].body


def test_texts_are_joined(serve: Callable[..., Model]) -> None:
    results = serve(spam()).invoke([request(DOCUMENTS[:2]), request(DOCUMENTS[2:3])])
    assert [json.loads(answer(result).body) for result in results] == [[1, 0], [1]]


def test_one_bad_request_fails_alone(serve: Callable[..., Model]) -> None:
    good = request(X[:1].tolist())
    bad = [
        request([[1, 2, 3]]),
        request(b"{", "application/json"),
        request([[None, 1, 2, 3]]),
        request([["a", 1, 2, 3]]),
        request({"features": []}),
        request([]),
    ]
    results = serve(logistic()).invoke([good, *bad, good])
    assert [type(result) for result in results] == [Answer, *[BadInput] * len(bad), Answer]
    assert json.loads(answer(results[0]).body) == json.loads(answer(results[-1]).body) == [Y[0]]


SHOPS = pd.DataFrame({"postcode": ["01067", "1067", "10115"] * 20, "area": np.arange(60.0)})
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
IMPUTED = make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT)
POSTCODES = {
    "one-hot": make_pipeline(
        ColumnTransformer([("c", ONE_HOT, ["postcode"]), ("n", "passthrough", ["area"])]), LinearRegression()
    ),
    "imputed": make_pipeline(ColumnTransformer([("c", IMPUTED, [0])], remainder="passthrough"), LinearRegression()),
    "words": make_pipeline(
        ColumnTransformer([("t", TfidfVectorizer(), "postcode"), ("n", "passthrough", ["area"])]), LinearRegression()
    ),
    "searched": GridSearchCV(make_pipeline(ONE_HOT, LinearRegression()), {}, cv=2),
    "histograms": HistGradientBoostingRegressor(categorical_features=["postcode"], min_samples_leaf=2),
}


@pytest.mark.parametrize("name", POSTCODES)
def test_text_of_digits_stays_text_in_csv(serve: Callable[..., Model], name: str) -> None:
    table = SHOPS.astype({"postcode": "category"}) if name == "histograms" else SHOPS
    estimator = POSTCODES[name].fit(table, SHOPS["postcode"].map({"01067": 5.0, "1067": 10.0, "10115": 20.0}))
    model = serve(estimator)
    expected = estimator.predict(table[:3]).tolist()
    assert len(set(expected)) == 3

    for row, answer in zip(SHOPS[:3].itertuples(index=False), expected, strict=True):
        assert ask(model, f"{row.postcode},{row.area}".encode(), "text/csv") == pytest.approx([answer])
    header = b"area,postcode\n" + "".join(f"{row.area},{row.postcode}\n" for row in SHOPS[:3].itertuples()).encode()
    assert ask(model, header, "text/csv") == pytest.approx(expected)
    assert ask(model, SHOPS[:3].to_numpy().tolist()) == pytest.approx(expected)


def test_lines_of_digits_are_texts(serve: Callable[..., Model]) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["10", "20"] * 5, ["ten", "twenty"] * 5)

    assert ask(serve(estimator), b"10\n20\n", "text/csv") == ["ten", "twenty"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[10, 1]], r"takes text in column 1 'postcode', got 10\.0 in row 1"),
        ([["a", 1], [None, 2]], r"takes text in column 1 'postcode', got nothing in row 2"),
        ([["a", 1], [True, 2]], r"takes text in column 1 'postcode', got True in row 2"),
    ],
)
def test_what_is_no_text_is_refused_where_words_are_told(serve: Callable[..., Model], rows: Any, says: str) -> None:
    model = serve(POSTCODES["words"].fit(SHOPS, SHOPS["area"]))

    with pytest.raises(BadInput, match=says):
        ask(model, rows)


def test_a_function_of_the_users_may_tell_words_of_anything(serve: Callable[..., Model]) -> None:
    words = TfidfVectorizer(preprocessor=str)
    estimator = make_pipeline(
        ColumnTransformer([("t", words, "postcode"), ("n", "passthrough", ["area"])]), LinearRegression()
    ).fit(SHOPS, SHOPS["area"])

    assert ask(serve(estimator), [[10, 1]]) == pytest.approx(
        estimator.predict(pd.DataFrame({"postcode": [10.0], "area": [1.0]})).tolist()
    )

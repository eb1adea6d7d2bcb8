"""Models of texts in lean form answer as the originals do, or leave texts to them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn as plugin
import numpy as np
import pandas as pd
import pytest
from manymodels_sklearn._input import Detailed
from manymodels_sklearn._lean import NotLean, Source, predictor_of
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR

from manymodels import Accelerated, Artifact, Context, LeftToOriginal, ModelSettings
from manymodels.agreement import difference

RNG = np.random.default_rng(5)
WORDS = ["fine", "good", "not", "bad", "The", "ship", "late", "Größe", "x1", "42", "and", "it's", "e-mail", "worn", "a"]
DOCUMENTS = np.array([" ".join(RNG.choice(WORDS, size)) for size in RNG.integers(1, 15, 120)], object)
TWO = np.where([("good" in text) or ("fine" in text) for text in DOCUMENTS], "up", "down")
FOUR = np.array([len(text) % 4 for text in DOCUMENTS])
#: Texts that hold what those of the training do not.
ODD = np.array(
    [
        "",
        "   ",
        "good",
        "GOOD good gooD",
        "nothing known",
        "a b c d",
        "groesse größe GRÖSSE",
        "日本語 good",
        "bad " * 300,
    ],
    object,
)

MODELS: dict[str, Any] = {
    "tf-idf, logistic": make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "pairs, logarithms": make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words="english", min_df=2), LogisticRegression()
    ),
    "letters": make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), norm="l1"), LinearSVC()),
    "letters, unnormalized": make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 2), norm=None, use_idf=False), RidgeClassifier()
    ),
    "accents": make_pipeline(TfidfVectorizer(strip_accents="unicode", max_features=6), LogisticRegression()),
    "counts, bayes": make_pipeline(CountVectorizer(), MultinomialNB()),
    "counts, complement": make_pipeline(CountVectorizer(binary=True, lowercase=False), ComplementNB()),
    "two steps": make_pipeline(CountVectorizer(), TfidfTransformer(), SGDClassifier(loss="log_loss", random_state=0)),
    "hashes": make_pipeline(HashingVectorizer(n_features=1 << 12), SGDClassifier(random_state=0)),
    "hashes that meet": make_pipeline(HashingVectorizer(n_features=8, norm="l1"), LogisticRegression()),
    "hashes without signs": make_pipeline(
        HashingVectorizer(n_features=16, alternate_sign=False, norm=None), TfidfTransformer(), MultinomialNB()
    ),
    "binary hashes": make_pipeline(HashingVectorizer(n_features=4, binary=True), LogisticRegression()),
    "the best words": make_pipeline(TfidfVectorizer(), SelectKBest(chi2, k=5), LogisticRegression()),
    "topics": make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=0), LogisticRegression()),
    "topics, forest": make_pipeline(
        TfidfVectorizer(), TruncatedSVD(3, random_state=0), RandomForestClassifier(3, random_state=0)
    ),
    "words and letters": make_pipeline(
        FeatureUnion(
            [("w", TfidfVectorizer()), ("c", TfidfVectorizer(analyzer="char"))], transformer_weights={"c": 0.3}
        ),
        LogisticRegression(),
    ),
    "words and topics": make_pipeline(
        FeatureUnion([("w", CountVectorizer()), ("t", make_pipeline(CountVectorizer(), TruncatedSVD(2)))]),
        LogisticRegression(),
    ),
    "search": GridSearchCV(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2
    ),
    "vote": VotingClassifier(
        [
            ("a", make_pipeline(CountVectorizer(), MultinomialNB())),
            ("b", make_pipeline(TfidfVectorizer(), LogisticRegression())),
        ],
        voting="soft",
    ),
    "stack": StackingClassifier(
        [
            ("a", make_pipeline(CountVectorizer(), MultinomialNB())),
            ("b", make_pipeline(TfidfVectorizer(), LogisticRegression())),
        ],
        cv=2,
    ),
    "nested": Pipeline([("words", make_pipeline(CountVectorizer(), TfidfTransformer())), ("last", LinearSVC())]),
}


def fitted(model: Any, data: Any, wanted: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(data, wanted)


def loaded(estimator: Any, folder: Path) -> tuple[Any, Accelerated | None]:
    joblib.dump(estimator, folder / "model.joblib")
    context = Context("m", str(folder), settings=ModelSettings(), options={})
    model = plugin.load(Artifact(folder), context)
    return model, plugin.accelerate(model)


def assert_same(model: Any, accelerated: Accelerated, given: Any) -> None:
    table = given.table if isinstance(given, Detailed) else given
    before = table.copy()
    assert difference(plugin.predict_fn(given, model), accelerated.predict(given), 1e-12) < 1e-12
    assert difference(before, table, None) == 0


@pytest.mark.parametrize("name", MODELS)
def test_texts_are_answered_as_by_the_original(name: str, tmp_path: Path) -> None:
    wanted = TWO if list(MODELS).index(name) % 2 else FOUR
    model, accelerated = loaded(fitted(MODELS[name], DOCUMENTS, wanted), tmp_path)
    assert accelerated is not None
    assert accelerated.probes[0].shape == (1,)
    for given in (*accelerated.probes, DOCUMENTS, ODD, *(ODD[at : at + 1] for at in range(len(ODD)))):
        assert_same(model, accelerated, given)
        if not isinstance(given, Detailed):
            assert_same(model, accelerated, Detailed(given))


@pytest.mark.parametrize("last", [Ridge(), LinearSVR()], ids=str)
def test_numbers_are_told_of_texts(last: Any, tmp_path: Path) -> None:
    model = fitted(make_pipeline(TfidfVectorizer(), last), DOCUMENTS, FOUR.astype(float))
    model, accelerated = loaded(model, tmp_path)
    assert accelerated is not None
    for given in (DOCUMENTS, ODD, ODD[:1]):
        assert_same(model, accelerated, given)


def test_requests_for_texts_are_answered(tmp_path: Path) -> None:
    model, accelerated = loaded(fitted(MODELS["tf-idf, logistic"], DOCUMENTS, TWO), tmp_path)
    assert accelerated is not None
    for body in (["a good ship", "bad"], {"features": ["a good ship"]}, {"instances": [["late"], ["fine"]]}):
        data = plugin.input_fn(json.dumps(body).encode(), "application/json", model)
        assert_same(model, accelerated, data)
    joined = plugin.batch().join([DOCUMENTS[:1], DOCUMENTS[5:7]])
    assert joined is not None
    assert_same(model, accelerated, joined[0])


FRAME = pd.DataFrame({"text": DOCUMENTS, "price": RNG.normal(size=120), "shop": RNG.choice(["a", "b"], 120)})


def beside(*more: Any) -> Any:
    columns = ColumnTransformer([("text", TfidfVectorizer(), "text"), *more])
    return fitted(make_pipeline(columns, LogisticRegression()), FRAME, TWO)


@pytest.mark.parametrize(
    "model",
    [
        beside(),
        beside(("price", StandardScaler(), ["price"]), ("shop", OneHotEncoder(handle_unknown="ignore"), ["shop"])),
        beside(("price", "passthrough", ["price"])),
    ],
    ids=["alone", "columns", "passed through"],
)
def test_a_column_of_texts(model: Any, tmp_path: Path) -> None:
    model, accelerated = loaded(model, tmp_path)
    assert accelerated is not None
    table = FRAME.to_numpy(object)
    for given in (*accelerated.probes, table, table[:1], Detailed(table[3:8])):
        assert_same(model, accelerated, given)


@pytest.mark.parametrize("row", [["good", np.nan, "a"], [np.nan, 1.0, "a"], [3.0, 1.0, "a"], ["good", np.inf, "a"]])
def test_cells_that_the_original_refuses_are_left_to_it(row: list[Any], tmp_path: Path) -> None:
    _, accelerated = loaded(beside(("price", StandardScaler(), ["price"])), tmp_path)
    assert accelerated is not None
    with pytest.raises(LeftToOriginal):
        accelerated.predict(np.array([row], object))


@pytest.mark.parametrize("given", [np.array([["good"]], object), np.zeros(1), np.array([b"good"], object), None])
def test_what_are_no_texts_is_left_to_the_original(given: Any, tmp_path: Path) -> None:
    _, accelerated = loaded(fitted(MODELS["counts, bayes"], DOCUMENTS, TWO), tmp_path)
    assert accelerated is not None
    with pytest.raises(LeftToOriginal):
        accelerated.predict(given)


def test_half_a_character_is_left_to_the_original(tmp_path: Path) -> None:
    model = make_pipeline(HashingVectorizer(n_features=8, analyzer="char"), LogisticRegression())
    _, accelerated = loaded(fitted(model, DOCUMENTS, TWO), tmp_path)
    assert accelerated is not None
    with pytest.raises(LeftToOriginal):
        accelerated.predict(np.array(["half \ud800half"], object))


class Mine(TfidfVectorizer):  # type: ignore[misc]
    """Might do anything."""


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(Mine(), LogisticRegression()),
        make_pipeline(TfidfVectorizer(tokenizer=str.split, token_pattern=None), LogisticRegression()),
        make_pipeline(TfidfVectorizer(analyzer=str.split), LogisticRegression()),
        make_pipeline(TfidfVectorizer(preprocessor=str.lower), LogisticRegression()),
        make_pipeline(TfidfVectorizer(dtype=np.float32), LogisticRegression()),
        make_pipeline(TfidfVectorizer(), RandomForestClassifier(3)),
    ],
    ids=["subclass", "tokenizer", "analyzer", "preprocessor", "float32", "forest of words"],
)
def test_what_has_no_lean_form(model: Any) -> None:
    fitted(model, DOCUMENTS, TWO)
    with pytest.raises(NotLean):
        predictor_of(model, Source(1, form="texts"))


def test_texts_in_files_have_no_lean_form(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("good")
    (tmp_path / "b").write_text("bad")
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    model = fitted(make_pipeline(CountVectorizer(input="filename"), LogisticRegression()), names, ["up", "down"])
    with pytest.raises(NotLean):
        predictor_of(model, Source(1, form="texts"))

"""Ensembles and meta-estimators of lean parts answer as the originals do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn as plugin
import numpy as np
import pytest
from manymodels_sklearn._input import Detailed
from manymodels_sklearn._lean import NotLean, Source, predictor_of
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from manymodels import Accelerated, Artifact, Context, LeftToOriginal, ModelSettings
from manymodels.agreement import difference

RNG = np.random.default_rng(9)
TABLE = RNG.normal(size=(150, 4)) * [1, 2, 0.5, 30]
TWO = np.where(TABLE[:, 0] + TABLE[:, 1] ** 2 > 1, "up", "down")
THREE = np.digitize(TABLE[:, 0] + TABLE[:, 2], [-0.5, 0.5])
NUMBER = TABLE @ [1.0, -2.0, 3.0, 0.1]

TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
CLASSIFIERS: dict[str, Any] = {
    "ada boost": AdaBoostClassifier(n_estimators=20, random_state=0),
    "ada boost of trees": AdaBoostClassifier(TREE, n_estimators=8, learning_rate=0.5, random_state=0),
    "ada boost of logistic": AdaBoostClassifier(LogisticRegression(), n_estimators=4, random_state=0),
    "bagging": BaggingClassifier(n_estimators=7, random_state=0),
    "bagging, some columns": BaggingClassifier(
        GaussianNB(), n_estimators=4, max_features=0.6, max_samples=0.2, random_state=0
    ),
    "bagging, columns twice": BaggingClassifier(
        GaussianNB(), n_estimators=4, max_features=3, bootstrap_features=True, random_state=0
    ),
    "calibrated forest": CalibratedClassifierCV(RandomForestClassifier(4, random_state=0), cv=2),
    "calibrated margins": CalibratedClassifierCV(LinearSVC(), cv=3),
    "calibrated by steps": CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=3),
    "calibrated trees by steps": CalibratedClassifierCV(TREE, method="isotonic", cv=2),
    "calibrated kernel": CalibratedClassifierCV(SVC(), cv=2),
    "calibrated, one part": CalibratedClassifierCV(
        make_pipeline(StandardScaler(), RidgeClassifier()), cv=3, ensemble=False
    ),
    "stack of margins": StackingClassifier([("a", LinearSVC()), ("b", GaussianNB())], LogisticRegression(), cv=2),
}
OF_THREE: dict[str, Any] = {
    "rest": OneVsRestClassifier(LogisticRegression()),
    "rest, trees": OneVsRestClassifier(TREE),
    "rest, margins": OneVsRestClassifier(make_pipeline(StandardScaler(), LinearSVC())),
}
REGRESSORS: dict[str, Any] = {
    "ada boost": AdaBoostRegressor(n_estimators=10, random_state=0),
    "bagging": BaggingRegressor(n_estimators=7, random_state=0),
    "bagging, some columns": BaggingRegressor(Ridge(), n_estimators=5, max_features=2, random_state=0),
}
OUTPUTS: dict[str, tuple[Any, Any]] = {
    "labels": (MultiOutputClassifier(LogisticRegression()), np.column_stack([TWO, np.roll(TWO, 3)])),
    "classes": (MultiOutputClassifier(TREE), np.column_stack([THREE, THREE > 1])),
    "without probabilities": (MultiOutputClassifier(LinearSVC()), np.column_stack([THREE, THREE > 1])),
    "numbers": (MultiOutputRegressor(Ridge()), np.column_stack([NUMBER, NUMBER**2])),
    "numbers of trees": (
        MultiOutputRegressor(DecisionTreeRegressor(max_depth=3, random_state=0)),
        np.column_stack([NUMBER, NUMBER**2]),
    ),
}


def fitted(model: Any, *data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data)


def assert_served_alike(estimator: Any, folder: Path, data: Any = TABLE) -> None:
    joblib.dump(estimator, folder / "model.joblib")
    model = plugin.load(Artifact(folder), Context("m", str(folder), settings=ModelSettings(), options={}))
    accelerated = plugin.accelerate(model)
    assert isinstance(accelerated, Accelerated)
    for given in (*accelerated.probes, data, data[:1], data[-2:], Detailed(data), Detailed(data[:1])):
        table = given.table if isinstance(given, Detailed) else given
        before = table.copy()
        assert difference(plugin.predict_fn(given, model), accelerated.predict(given), 1e-12) < 1e-12
        assert difference(before, table, None) == 0
    if data is TABLE:
        for bad in (np.nan, np.inf):
            with pytest.raises(LeftToOriginal):
                accelerated.predict(np.array([[0.0, 1.0, bad, 2.0]]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, tmp_path: Path) -> None:
    wanted = TWO if list(CLASSIFIERS).index(name) % 2 else THREE
    assert_served_alike(fitted(CLASSIFIERS[name], TABLE, wanted), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["ada boost", "bagging", "calibrated forest", "calibrated by steps", "calibrated kernel", "calibrated, one part"],
)
def test_classifiers_of_another_number_of_classes(name: str, tmp_path: Path) -> None:
    wanted = THREE if list(CLASSIFIERS).index(name) % 2 else TWO
    assert_served_alike(fitted(CLASSIFIERS[name], TABLE, wanted), tmp_path)


@pytest.mark.parametrize("name", OF_THREE)
def test_one_class_against_the_rest(name: str, tmp_path: Path) -> None:
    assert_served_alike(fitted(OF_THREE[name], TABLE, THREE), tmp_path)


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str, tmp_path: Path) -> None:
    assert_served_alike(fitted(REGRESSORS[name], TABLE, NUMBER), tmp_path)


@pytest.mark.parametrize("name", OUTPUTS)
def test_several_outputs(name: str, tmp_path: Path) -> None:
    model, wanted = OUTPUTS[name]
    assert_served_alike(fitted(model, TABLE, wanted), tmp_path)


def test_a_bag_without_some_classes(tmp_path: Path) -> None:
    rare = np.where(np.arange(len(TABLE)) < 2, "rare", TWO)
    # Whose parts are fitted on the rows that were drawn, not on weights of all.
    part = make_pipeline(StandardScaler(), GaussianNB())
    model = BaggingClassifier(part, n_estimators=6, max_samples=60, bootstrap=False, random_state=0)
    fitted(model, TABLE, rare)
    assert {len(one.classes_) for one in model.estimators_} == {2, 3}
    assert_served_alike(model, tmp_path)


@pytest.mark.parametrize(
    "last",
    [CalibratedClassifierCV(LinearSVC(), cv=2), OneVsRestClassifier(MultinomialNB())],
    ids=["calibrated", "rest"],
)
def test_behind_words(last: Any, tmp_path: Path) -> None:
    texts = np.array([f"{'good' if two == 'up' else 'bad'} {three}x" for two, three in zip(TWO, THREE, strict=True)])
    texts = texts.astype(object)
    assert_served_alike(fitted(make_pipeline(TfidfVectorizer(), last), texts, THREE), tmp_path, texts)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (OneVsRestClassifier(LogisticRegression()), TWO),
        (OneVsRestClassifier(HistGradientBoostingClassifier(max_iter=2)), THREE),
        (OneVsRestClassifier(LinearRegression()), THREE),
        (BaggingClassifier(LinearSVC(), n_estimators=2), TWO),
    ],
    ids=["two classes", "scores of trees", "regressor", "bag of margins"],
)
def test_what_has_no_lean_form(model: Any, wanted: Any) -> None:
    with pytest.raises(NotLean):
        predictor_of(fitted(model, TABLE, wanted), Source(4))


def test_the_older_kind_of_ada_boost_has_no_lean_form() -> None:
    model = fitted(AdaBoostClassifier(n_estimators=2), TABLE, TWO)
    model.algorithm = "SAMME.R"
    with pytest.raises(NotLean):
        predictor_of(model, Source(4))

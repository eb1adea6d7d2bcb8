"""Neighbours and kernels in lean form answer as scikit-learn does, bit for bit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from manymodels_sklearn._lean import NotLean, Source, predictor_of, rows
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from manymodels import LeftToOriginal

RNG = np.random.default_rng(3)
#: Rows of which many are equally far from one another.
TABLE = np.round(RNG.normal(size=(160, 4)), 1) * [1.0, 2.0, 0.5, 10.0]
TWO = np.where(TABLE[:, 0] + TABLE[:, 1] ** 2 > 1, "up", "down")
FOUR = np.digitize(TABLE[:, 0] + TABLE[:, 2], [-0.5, 0.0, 0.5])
NUMBER = TABLE @ [1.0, -2.0, 3.0, 0.1]
EDGES = np.array(
    [
        [value if column == place else 0.5 for column in range(4)]
        for place in range(4)
        for value in (0.0, -0.0, 5e-324, 1e-300, 1e15, -1e15, 1e150)
    ]
)

CLASSIFIERS: dict[str, Any] = {
    "neighbours": KNeighborsClassifier(),
    "one neighbour": KNeighborsClassifier(1, algorithm="ball_tree"),
    "near neighbours": KNeighborsClassifier(12, weights="distance", algorithm="kd_tree"),
    "neighbours by blocks": KNeighborsClassifier(4, p=1, weights="distance", algorithm="ball_tree"),
    "radial": SVC(),
    "radial, each pair": SVC(gamma=0.3, decision_function_shape="ovo", class_weight="balanced"),
    "polynomial": SVC(kernel="poly", degree=2, coef0=1.0),
    "linear": SVC(kernel="linear"),
    "nu": NuSVC(nu=0.1, kernel="sigmoid", gamma=0.01),
    "with probabilities": SVC(probability=True, random_state=0),
}
REGRESSORS: dict[str, Any] = {
    "neighbours": KNeighborsRegressor(algorithm="kd_tree"),
    "near neighbours": KNeighborsRegressor(9, weights="distance", algorithm="ball_tree"),
    "radial": SVR(),
    "nu": NuSVR(kernel="poly"),
}


def fitted(model: Any, wanted: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # probabilities of SVC are to go
        return model.fit(TABLE, wanted)


def assert_same(model: Any) -> None:
    lean = predictor_of(model, Source(4))
    probes = rows(lean.values(), lean.prepare)
    assert probes is not None
    for given in (*probes, TABLE, EDGES):
        before = given.copy()
        for part in (given[:1], given[-1:], np.asfortranarray(given[:64]), given):
            try:
                prepared = lean.prepare(part)
                pairs = [(lean.predict(prepared), model.predict)]
            except LeftToOriginal:
                assert part is not TABLE
                continue
            for method, function in (("predict_proba", lean.predict_proba), ("decision_function", lean.decision)):
                if function is not None:
                    pairs.append((function(prepared), getattr(model, method)))
                elif method == "predict_proba":
                    assert not hasattr(model, method)
            for answer, function in pairs:
                original = function(part)
                assert (answer.dtype, answer.shape) == (original.dtype, original.shape)
                np.testing.assert_array_equal(answer, original)
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("wanted", [TWO, FOUR], ids=["two", "four"])
def test_classifiers(name: str, wanted: Any) -> None:
    assert_same(fitted(CLASSIFIERS[name], wanted))


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    assert_same(fitted(REGRESSORS[name], NUMBER))


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbours_of_several_numbers(weights: str) -> None:
    assert_same(fitted(KNeighborsRegressor(7, weights=weights), np.column_stack([NUMBER, NUMBER**2])))
    assert_same(fitted(KNeighborsRegressor(7, weights=weights), FOUR))


@pytest.mark.parametrize("bad", [np.nan, np.inf, "text"])
@pytest.mark.parametrize("model", [SVC(), KNeighborsClassifier()], ids=["kernel", "neighbours"])
def test_what_is_refused_is_left_to_the_original(model: Any, bad: Any) -> None:
    lean = predictor_of(fitted(model, TWO), Source(4))
    with pytest.raises(LeftToOriginal):
        lean.prepare(np.array([[1.0, bad, 2.0, 3.0]], object if isinstance(bad, str) else np.float64))


def test_rows_out_of_reach_are_left_to_the_original() -> None:
    lean = predictor_of(fitted(KNeighborsRegressor(weights="distance"), NUMBER), Source(4))
    with np.errstate(over="ignore"), pytest.raises(LeftToOriginal):
        lean.predict(lean.prepare(np.full((1, 4), 1e200)))


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (KNeighborsClassifier(algorithm="brute"), TWO),
        (KNeighborsClassifier(weights=np.exp), TWO),
        (KNeighborsClassifier(), np.column_stack([TWO, TWO])),
        (SVC(kernel=lambda one, other: one @ other.T), TWO),
        (SVC(break_ties=True), FOUR),
    ],
    ids=["searched in all", "own weights", "several outputs", "own kernel", "ties"],
)
def test_what_has_no_lean_form(model: Any, wanted: Any) -> None:
    with pytest.raises(NotLean):
        predictor_of(fitted(model, wanted), Source(4))


def test_support_vectors_that_are_not_there_are_not_read() -> None:
    model = fitted(SVC(), TWO)
    model._n_support = model._n_support + np.int32(1)
    with pytest.raises(NotLean):
        predictor_of(model, Source(4))

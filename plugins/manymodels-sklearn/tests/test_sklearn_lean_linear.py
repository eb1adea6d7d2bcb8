"""Linear models, naive Bayes and nearest centres in lean form answer as scikit-learn does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model as linear
from manymodels_sklearn._lean import NotLean, Source, predictor_of, rows
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.svm import LinearSVC, LinearSVR

from manymodels import LeftToOriginal

CLASSIFIERS: list[Any] = [
    linear.LogisticRegression(),
    linear.LogisticRegression(C=0.01, fit_intercept=False),
    linear.Perceptron(),
    linear.RidgeClassifier(),
    linear.RidgeClassifierCV(),
    linear.SGDClassifier(loss="hinge", random_state=0),
    linear.SGDClassifier(loss="log_loss", random_state=0),
    linear.SGDClassifier(loss="modified_huber", random_state=0),
    LinearSVC(),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    GaussianNB(),
    GaussianNB(var_smoothing=0.1),
    BernoulliNB(),
    BernoulliNB(binarize=0.4),
]
REGRESSORS: list[Any] = [
    linear.ARDRegression(),
    linear.BayesianRidge(),
    linear.ElasticNet(alpha=0.1),
    linear.ElasticNetCV(cv=3),
    linear.HuberRegressor(max_iter=1000),
    linear.Lars(),
    linear.Lasso(alpha=0.1),
    linear.LassoCV(cv=3),
    linear.LassoLars(alpha=0.1),
    linear.LassoLarsIC(),
    linear.LinearRegression(),
    linear.LinearRegression(positive=True),
    linear.OrthogonalMatchingPursuit(),
    linear.QuantileRegressor(alpha=0.01),
    linear.Ridge(),
    linear.RidgeCV(),
    linear.SGDRegressor(random_state=0),
    linear.TheilSenRegressor(max_subpopulation=100, random_state=0),
    LinearSVR(),
    linear.GammaRegressor(),
    linear.PoissonRegressor(),
    linear.TweedieRegressor(power=0),
    linear.TweedieRegressor(power=1.5),
]
NAMES = np.array(["red", "green", "blue", "black", "white"])


def table(seed: int, width: int = 5) -> Any:
    """Return 90 rows whose columns have scales of their own."""
    chance = np.random.default_rng(seed)
    return chance.normal(size=(90, width)) * 2.0 ** chance.integers(-2, 3, size=width)


def labels(drawn: Any, classes: int) -> Any:
    """Return as many labels of each class, by the sum of a row and some noise."""
    place = np.argsort(np.argsort(drawn.sum(axis=1) + drawn[:, 0] * np.cos(np.arange(len(drawn)))))
    return NAMES[place * classes // len(drawn)]


def fitted(model: Any, *data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that so short a training has not converged
        return model.fit(*data)


def assert_same(model: Any, drawn: Any) -> None:
    lean = predictor_of(model, Source(drawn.shape[1]))
    probes = rows(lean.values(), lean.prepare)
    assert probes is not None
    edges = np.array([[0.0] * 5, [-0.0] * 5, [5e-324] * 5, [2.0**40, -(2.0**40), 1e-300, 1.0, -1.0]])[
        :, : drawn.shape[1]
    ]
    curved = isinstance(model, (linear.GammaRegressor, linear.PoissonRegressor, linear.TweedieRegressor))
    for given in (*probes, drawn, np.asfortranarray(drawn), edges[:3] if curved else edges):
        for part in (given[:1], given):
            before = part.copy()
            prepared = lean.prepare(part)
            pairs = [(model.predict(part), lean.predict(prepared))]
            assert (lean.predict_proba is None) is not hasattr(model, "predict_proba")
            if lean.predict_proba is not None:
                pairs.append((model.predict_proba(part), lean.predict_proba(prepared)))
            for original, answer in pairs:
                assert (answer.dtype, answer.shape) == (original.dtype, original.shape)
                if original.dtype.kind == "f":
                    near = np.abs(answer - original) <= 1e-12 * np.maximum(1, np.abs(original))
                    assert near.all(), np.abs(answer - original).max()
                else:
                    np.testing.assert_array_equal(answer, original)
            np.testing.assert_array_equal(part, before)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classifiers(model: Any, classes: int) -> None:
    drawn = table(classes)
    assert_same(fitted(model, drawn, labels(drawn, classes)), drawn)


@pytest.mark.parametrize("model", [MultinomialNB(), ComplementNB(), ComplementNB(norm=True)], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_counts(model: Any, classes: int) -> None:
    drawn = np.abs(table(classes)).round()
    assert_same(fitted(model, drawn, labels(drawn, classes)), drawn)


@pytest.mark.parametrize("model", REGRESSORS, ids=str)
@pytest.mark.parametrize("width", [1, 5])
def test_regressors(model: Any, width: int) -> None:
    drawn = table(width, width)
    if isinstance(model, linear.OrthogonalMatchingPursuit) and width == 1:
        model.set_params(n_nonzero_coefs=1)
    assert_same(fitted(model, drawn, np.abs(drawn.sum(axis=1)) + 0.1), drawn)


@pytest.mark.parametrize("model", [linear.LinearRegression(), linear.Ridge(), linear.MultiTaskLasso()], ids=str)
def test_several_targets(model: Any) -> None:
    drawn = table(7)
    model = fitted(model, drawn, drawn[:, :3] ** 2)
    if isinstance(model, linear.MultiTaskLasso):
        with pytest.raises(NotLean):
            predictor_of(model, Source(5))
    else:
        assert_same(model, drawn)


@pytest.mark.parametrize("model", [KMeans(4, n_init=1, random_state=0), MiniBatchKMeans(3, n_init=1, random_state=0)])
def test_clusters(model: Any) -> None:
    drawn = table(11)
    assert_same(fitted(model, drawn), drawn)


@pytest.mark.parametrize("kind", [np.int32, np.int64, bool])
def test_labels_that_are_no_text(kind: Any) -> None:
    drawn = table(12)
    assert_same(fitted(linear.LogisticRegression(), drawn, (drawn[:, 0] > 0).astype(kind)), drawn)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "text", None])
@pytest.mark.parametrize("model", [linear.LogisticRegression(), GaussianNB()], ids=str)
def test_what_is_refused_is_left_to_the_original(model: Any, bad: Any) -> None:
    drawn = table(13)
    lean = predictor_of(fitted(model, drawn, labels(drawn, 2)), Source(5))
    row = np.array([[1.0, bad, 2.0, 0.0, 1.0]], np.float64 if isinstance(bad, float) else object)
    with pytest.raises(LeftToOriginal):
        lean.prepare(row)


def test_what_has_no_lean_form() -> None:
    class Mine(linear.LogisticRegression):  # type: ignore[misc]
        pass

    drawn = table(14)
    two = labels(drawn, 2)
    several = linear.RidgeClassifier().fit(drawn, np.column_stack([two == "red", drawn[:, 0] > 0]))
    sparse = fitted(linear.LogisticRegression(), drawn, two).sparsify()
    older = fitted(linear.LogisticRegression(), drawn, two)
    older.multi_class = "multinomial"
    narrow = KMeans(3, n_init=1).fit(drawn.astype(np.float32))
    for model in (fitted(Mine(), drawn, two), several, sparse, older, narrow):
        with pytest.raises(NotLean):
            predictor_of(model, Source(5))

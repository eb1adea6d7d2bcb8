"""Linear models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from .base import Form, NotLean, Predictor, Source, Values, checked, predictor
from .cells import Array

_VALUES = (0.0, 1.0, -1.0, 0.5, -2.5, 30.0)
#: Rows of a model's own whose values are probed.
_ROWS = 16

#: All that they do with a table is to multiply it.
FORMS: tuple[Form, ...] = ("table", "sparse")

#: Takes a table, returns numbers for each of its rows.
Scores = Callable[[Array], Array]


def ordinary(source: Source) -> Callable[[], Values]:
    """Return what returns probe values for arithmetic that has no thresholds."""
    return lambda: [] if source.form == "sparse" else [list(_VALUES) for _ in range(source.width)]


def around(rows: Array, source: Source) -> Callable[[], Values]:
    """Return what returns probe values for arithmetic of distances: those of some rows, and ordinary ones."""
    few = np.asarray(rows[:: max(1, len(rows) // _ROWS)], np.float64)
    usual = ordinary(source)
    return lambda: [[*own, *others] for own, others in zip(few.T.tolist(), usual(), strict=True)]


def _scores(model: Any) -> Scores:
    coefficients, intercept = model.coef_, model.intercept_
    if not isinstance(coefficients, np.ndarray):
        raise NotLean("sparse coefficients")
    weights = coefficients.T if coefficients.ndim == 2 else coefficients
    return lambda table: table @ weights + intercept


# -- Regressors --


@predictor(
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LinearSVR",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "PassiveAggressiveRegressor",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
    forms=FORMS,
)
def _regressor(model: Any, source: Source) -> Predictor:
    return Predictor("lean linear", checked(source), _scores(model), None, ordinary(source))


@predictor("GammaRegressor", "PoissonRegressor", "TweedieRegressor", forms=FORMS)
def _generalized(model: Any, source: Source) -> Predictor:
    raw, inverse = _scores(model), model._base_loss.link.inverse
    return Predictor("lean linear", checked(source), lambda table: inverse(raw(table)), None, ordinary(source))


# -- Classifiers --


def _decision(model: Any) -> Scores:
    """Return what gives a column for each class; in binary models a flat array, for the second."""
    raw = _scores(model)
    flat = model.coef_.ndim == 2 and model.coef_.shape[0] == 1
    return lambda table: raw(table).ravel() if flat else raw(table)


def _classifier(model: Any, source: Source, probabilities: Callable[[Array], Array] | None) -> Predictor:
    """Return the lean form.

    :param probabilities: from the scores, which are its own, to what `predict_proba` returns.
    """
    decision = _decision(model)
    classes = np.asarray(model.classes_)

    def predict(table: Array) -> Array:
        scores = decision(table)
        return classes.take((scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1))

    predict_proba = None if probabilities is None else lambda table: probabilities(decision(table))
    return Predictor("lean linear", checked(source), predict, predict_proba, ordinary(source), decision)


def _sigmoid(scores: Array) -> Array:
    second: Array = expit(scores)
    return np.stack([1 - second, second], axis=1)


def _softmax(scores: Array) -> Array:
    if scores.ndim == 1:
        return _sigmoid(scores)
    shares: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _normalized(shares: Array) -> Array:
    """Divide by their sum the shares of classes that were each told from all others; all 0 means all alike."""
    total = shares.sum(axis=1)
    nothing = total == 0
    if nothing.any():
        shares[nothing] = 1
        total[nothing] = shares.shape[1]
    shares /= total[:, np.newaxis]
    return shares


def _one_against_all(scores: Array) -> Array:
    return _sigmoid(scores) if scores.ndim == 1 else _normalized(expit(scores))


def _clipped(scores: Array) -> Array:
    shares = (np.clip(scores, -1, 1) + 1.0) / 2.0
    return np.stack([1.0 - shares, shares], axis=1) if scores.ndim == 1 else _normalized(shares)


@predictor("LogisticRegression", "LogisticRegressionCV", forms=FORMS)
def _logistic(model: Any, source: Source) -> Predictor:
    # Until scikit-learn 1.8 these chose another formula of the probabilities.
    if getattr(model, "multi_class", "auto") not in ("auto", "deprecated", "warn"):
        raise NotLean(f"multi_class={model.multi_class!r}")
    if model.solver == "liblinear" and len(model.classes_) > 2:
        raise NotLean("more than two classes by liblinear")
    return _classifier(model, source, _softmax)


@predictor("LinearDiscriminantAnalysis")
def _discriminant(model: Any, source: Source) -> Predictor:
    return _classifier(model, source, _softmax)


@predictor("SGDClassifier", forms=FORMS)
def _descent(model: Any, source: Source) -> Predictor:
    formulas = {"log_loss": _one_against_all, "modified_huber": _clipped}
    return _classifier(model, source, formulas.get(model.loss))


@predictor("LinearSVC", "PassiveAggressiveClassifier", "Perceptron", forms=FORMS)
def _without_probabilities(model: Any, source: Source) -> Predictor:
    return _classifier(model, source, None)


@predictor("RidgeClassifier", "RidgeClassifierCV", forms=FORMS)
def _ridge(model: Any, source: Source) -> Predictor:
    if model._label_binarizer.y_type_.startswith("multilabel"):
        raise NotLean("several labels at once")
    return _classifier(model, source, None)

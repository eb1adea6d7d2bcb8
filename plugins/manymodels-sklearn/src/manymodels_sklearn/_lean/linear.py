"""Linear models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from .base import Predictor, Source, Values, predictor
from .cells import Array, finite

_VALUES = (0.0, 1.0, -1.0, 0.5, -2.5, 30.0)


def _values(source: Source) -> Values:
    return [list(_VALUES) for _ in range(source.width)]


def _scores(model: Any) -> Callable[[Array], Array]:
    coefficients = np.asarray(model.coef_)
    weights = coefficients.T if coefficients.ndim == 2 else coefficients
    intercept = model.intercept_
    return lambda table: table @ weights + intercept


@predictor("ElasticNet", "Lasso", "LinearRegression", "Ridge", "RidgeCV")
def _regressor(model: Any, source: Source) -> Predictor:
    return Predictor("lean linear", finite, _scores(model), None, _values(source))


@predictor("LogisticRegression", "LogisticRegressionCV")
def _logistic(model: Any, source: Source) -> Predictor:
    raw = _scores(model)
    classes = np.asarray(model.classes_)
    binary = np.asarray(model.coef_).shape[0] == 1

    def predict(table: Array) -> Array:
        scores = raw(table)
        return classes.take((scores.ravel() > 0).astype(np.intp) if binary else scores.argmax(axis=1))

    def predict_proba(table: Array) -> Array:
        scores = raw(table)
        if binary:
            positive = expit(scores.ravel())
            return np.stack([1 - positive, positive], axis=1)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Array = scores / scores.sum(axis=1, keepdims=True)
        return shares

    return Predictor("lean linear", finite, predict, predict_proba, _values(source))

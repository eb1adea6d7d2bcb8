"""Naive Bayes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Predictor, Source, checked, predictor
from .cells import Array
from .linear import FORMS, ordinary


def _predictor(model: Any, source: Source, joint: Callable[[Array], Array]) -> Predictor:
    """Return the lean form.

    :param joint: gives the log likelihood of each row with each class.
    """
    classes = np.asarray(model.classes_)

    def predict_proba(table: Array) -> Array:
        likelihood = joint(table)
        top = likelihood.max(axis=1, keepdims=True)
        is_top = likelihood == top
        ties = is_top.sum(axis=1, keepdims=True, dtype=np.float64)
        others = np.exp(likelihood - top)
        others[is_top] = 0.0
        evidence = np.log1p(others.sum(axis=1, keepdims=True) / ties) + np.log(ties) + top
        shares: Array = np.exp(likelihood - evidence)
        return shares

    def predict(table: Array) -> Any:
        return classes.take(joint(table).argmax(axis=1))

    return Predictor("lean bayes", checked(source), predict, predict_proba, ordinary(source))


@predictor("GaussianNB")
def _gaussian(model: Any, source: Source) -> Predictor:
    places = [
        (np.log(prior), -0.5 * np.sum(np.log(2.0 * np.pi * variance)), mean, variance)
        for prior, mean, variance in zip(model.class_prior_, model.theta_, model.var_, strict=True)
    ]

    def joint(table: Array) -> Any:
        # Class by class, since a cube of rows, classes and columns may be large.
        return np.stack(
            [
                prior + (scale - 0.5 * ((table - mean) ** 2 / variance).sum(axis=1))
                for prior, scale, mean, variance in places
            ]
        ).T

    return _predictor(model, source, joint)


@predictor("MultinomialNB", forms=FORMS)
def _multinomial(model: Any, source: Source) -> Predictor:
    weights, prior = model.feature_log_prob_.T, model.class_log_prior_
    return _predictor(model, source, lambda table: table @ weights + prior)


@predictor("ComplementNB", forms=FORMS)
def _complement(model: Any, source: Source) -> Predictor:
    weights = model.feature_log_prob_.T
    prior = model.class_log_prior_ if len(model.classes_) == 1 else 0.0
    return _predictor(model, source, lambda table: table @ weights + prior)


@predictor("BernoulliNB")
def _bernoulli(model: Any, source: Source) -> Predictor:
    absent = np.log(1 - np.exp(model.feature_log_prob_))
    weights = (model.feature_log_prob_ - absent).T
    prior = model.class_log_prior_ + absent.sum(axis=1)
    limit = model.binarize

    def joint(table: Array) -> Array:
        present = table if limit is None else (table > limit).astype(np.float64)
        likelihood: Array = present @ weights + prior
        return likelihood

    return _predictor(model, source, joint)

"""Nearest neighbours, where scikit-learn finds them in a tree: its own search, without what is around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Predictor, Source, predictor
from .cells import Array, packed
from .linear import around


def _found(model: Any) -> Callable[[Array], tuple[Array, Array | None]]:
    """Return what finds the rows next to each row of a table, and their weights, None if they have all the same."""
    if model._fit_method not in ("ball_tree", "kd_tree"):
        raise NotLean("neighbours are not searched in a tree")
    if model.weights not in (None, "distance", "uniform"):
        raise NotLean("weights by a function of one's own")
    search, count = model._tree.query, model.n_neighbors
    if model.weights != "distance":
        return lambda table: (search(table, count, False), None)

    def find(table: Array) -> tuple[Array, Array | None]:
        distances, rows = search(table, count, True)
        with np.errstate(divide="ignore"):
            weights = 1.0 / distances
        same = np.isinf(weights)  # rows that are the very one asked for are all that counts
        exact = same.any(axis=1)
        weights[exact] = same[exact]
        if not weights.any(axis=1).all():
            raise LeftToOriginal("infinitely far from all rows")
        return rows, weights

    return find


@predictor("KNeighborsRegressor")
def _regressor(model: Any, source: Source) -> Predictor:
    find = _found(model)
    targets = np.asarray(model._y)
    flat = targets.ndim == 1
    targets = targets.reshape(len(targets), -1)

    def predict(table: Array) -> Array:
        rows, weights = find(table)
        if weights is None:
            means: Array = targets[rows].mean(axis=1)
        else:
            total = weights.sum(axis=1)
            # Output by output, so that numbers are added up in the original's order.
            sums = [(output[rows] * weights).sum(axis=1) / total for output in targets.T]
            means = np.stack(sums, axis=1)
        return means.ravel() if flat else means

    return Predictor("lean neighbours", packed, predict, None, around(model._fit_X, source))


@predictor("KNeighborsClassifier")
def _classifier(model: Any, source: Source) -> Predictor:
    find = _found(model)
    if model.outputs_2d_:
        raise NotLean("several outputs")
    classes, labels = np.asarray(model.classes_), np.asarray(model._y)

    def votes(near: Array, weights: Array | None) -> Array:
        shares = np.zeros((len(near), len(classes)))
        each = np.arange(len(near))
        for place, label in enumerate(near.T):  # in the original's order
            shares[each, label] += 1.0 if weights is None else weights[:, place]
        return shares

    def predict_proba(table: Array) -> Array:
        rows, weights = find(table)
        shares = votes(labels[rows], weights)
        shares /= shares.sum(axis=1)[:, np.newaxis]
        return shares

    def predict(table: Array) -> Array:
        rows, weights = find(table)
        near = labels[rows]
        if weights is None:
            winners = votes(near, None).argmax(axis=1)
        else:
            # Which adds up otherwise than for probabilities, and so does the original.
            sums = [np.where(near == place, weights, 0.0).sum(axis=1) for place in range(len(classes))]
            winners = np.argmax(sums, axis=0)
        labelled: Array = classes.take(winners)
        return labelled

    return Predictor("lean neighbours", packed, predict, predict_proba, around(model._fit_X, source))

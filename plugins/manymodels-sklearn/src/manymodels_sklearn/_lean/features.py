"""Transformers that choose columns or make new ones of them."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from .base import NotLean, Source, Transform, Values, checked, transformer
from .cells import Array, finite, floats

#: Where a column is probed that nothing else is known of.
_PLAIN = (0.0, 1.0, -1.0, 0.5, -2.5, 30.0)


@transformer(
    "GenericUnivariateSelect",
    "RFE",
    "RFECV",
    "SelectFdr",
    "SelectFpr",
    "SelectFromModel",
    "SelectFwe",
    "SelectKBest",
    "SelectPercentile",
    "SequentialFeatureSelector",
    "VarianceThreshold",
    forms=("table", "sparse"),
)
def _selector(selector: Any, source: Source) -> Transform:
    chosen = np.asarray(selector.get_support(indices=True))
    if not len(chosen):
        raise NotLean("no columns are selected")
    if source.form == "sparse":
        choose: Any = lambda rows: rows.chosen(chosen)  # noqa: E731 - whose argument is no table
        return Transform(choose, len(chosen), lambda _: [], sparse=True)
    # Which of the others take NaN depends on the estimator inside.
    nan = type(selector).__name__ == "VarianceThreshold"

    def apply(table: Array) -> Array:
        table = floats(table)
        return (table if nan else finite(table)).take(chosen, axis=1)

    def values(wanted: Values) -> Values:
        columns: Values = [list(_PLAIN) for _ in range(source.width)]
        for column, found in zip(chosen, wanted, strict=True):
            columns[column].extend(found)
        return columns

    return Transform(apply, len(chosen), values)


@transformer("PCA", "IncrementalPCA")
def _pca(pca: Any, source: Source) -> Transform:
    axes = np.asarray(pca.components_, np.float64).T
    offset = np.reshape(np.asarray(pca.mean_, np.float64), (1, -1)) @ axes
    scale = None
    if pca.whiten:
        scale = np.maximum(np.sqrt(pca.explained_variance_), np.finfo(np.float64).eps)

    def apply(table: Array) -> Array:
        projected: Array = finite(table) @ axes
        projected -= offset
        return projected if scale is None else projected / scale

    spread = np.sqrt(np.asarray(pca.var_, np.float64)) if hasattr(pca, "var_") else np.ones(source.width)
    means = np.asarray(pca.mean_, np.float64)
    own = (means + np.multiply.outer(_PLAIN, spread)).T.tolist()
    return Transform(apply, axes.shape[1], lambda _: own)


@transformer("TruncatedSVD", forms=("table", "sparse"))
def _svd(svd: Any, source: Source) -> Transform:
    axes = np.asarray(svd.components_, np.float64).T
    prepare = checked(source)

    def apply(table: Array) -> Array:
        projected: Array = prepare(table) @ axes
        return projected

    return Transform(apply, axes.shape[1], lambda _: [] if source.form == "sparse" else [list(_PLAIN)] * source.width)


@transformer("PolynomialFeatures")
def _polynomial(features: Any, source: Source) -> Transform:
    combine = combinations if features.interaction_only else combinations_with_replacement
    degrees = features.degree if isinstance(features.degree, tuple) else (0, features.degree)
    # Terms of each degree, as positions among those of the degree below and among the columns: what the original
    # multiplies, in its order, so that the roundings are the same.
    levels: list[tuple[Array, Array]] = []
    below: dict[tuple[int, ...], int] = {(column,): column for column in range(source.width)}
    for degree in range(2, degrees[1] + 1):
        terms = list(combine(range(source.width), degree))
        rest = np.array([below[term[1:]] for term in terms], np.intp)
        levels.append((rest, np.array([term[0] for term in terms], np.intp)))
        below = {term: index for index, term in enumerate(terms)}
    bias = bool(features.include_bias)
    linear = degrees[0] <= 1 and degrees[1] >= 1

    def apply(table: Array) -> Array:
        table = finite(table)
        parts = [np.ones((len(table), 1))] if bias else []
        if linear:
            parts.append(table)
        level = table
        for degree, (rest, column) in enumerate(levels, 2):
            level = level.take(rest, axis=1) * table.take(column, axis=1)
            if degree >= degrees[0]:
                parts.append(level)
        return np.concatenate(parts, axis=1)

    def values(wanted: Values) -> Values:
        start = int(bias)
        own = [list(_PLAIN[:5]) for _ in range(source.width)]
        return [column + (wanted[start + index] if linear else []) for index, column in enumerate(own)]

    return Transform(apply, int(features.n_output_features_), values)

"""Trees, and ensembles of them.

scikit-learn walks a tree in compiled code; what a request of few rows costs is the calls around it, one or more for
each tree. So all trees of an ensemble are put into one tree of the same kind, below nodes that choose among them by
a further column, and are walked in a single call. Values, comparisons and the order of sums stay the original's, so
predictions are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Predictor, Source, Values, predictor, some
from .cells import Array, numbers

#: Rows up to which the joined tree is faster than one call for each tree, which needs no copies of the rows.
FEW = 64
#: Most bytes of a joined tree, which is a copy; of a larger ensemble the trees are called one by one.
_MOST_BYTES = 64 << 20
#: Thresholds of a column tried as probes.
_THRESHOLDS = 24

#: Takes a table, returns numbers for each of its rows: rows, outputs.
Scores = Callable[[Array], Array]


def _float32(table: Array) -> Array:
    """Return a table as scikit-learn's trees compare it.

    :raises LeftToOriginal: for what they refuse: NaN, and values beyond float32.
    """
    with np.errstate(over="ignore"):
        table = numbers(table).astype(np.float32, order="C")
    if not np.isfinite(table).all():
        raise LeftToOriginal("NaN, or beyond float32")
    return table


# -- Probes --


def threshold_values(source: Source, features: Array, thresholds: Array) -> Values:
    """Return for each column values on both sides of its thresholds, by float64 and by float32, and extreme ones."""
    values: Values = [[0.0, -0.0, 1e-40, 1e30, -1e30] for _ in range(source.width)]
    for column in np.unique(features):  # few of many, where the trees are stumps
        own = np.unique(thresholds[features == column])
        own = own[np.isfinite(own)]
        own = own[:: max(1, len(own) // _THRESHOLDS)]
        narrow = own.astype(np.float32)
        near = [own, np.nextafter(own, np.inf), np.nextafter(own, -np.inf)]
        near += [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
        found = np.concatenate(near).astype(np.float64).tolist()
        values[column] = [*found[len(own) // 2 :], *found[: len(own) // 2], *values[column]]  # a middle one first
    return values


def _tree_values(source: Source, trees: Sequence[Any]) -> Values:
    trees = some(trees)
    branches = [tree.feature >= 0 for tree in trees]
    features = np.concatenate([tree.feature[inner] for tree, inner in zip(trees, branches, strict=True)])
    thresholds = np.concatenate([tree.threshold[inner] for tree, inner in zip(trees, branches, strict=True)])
    return threshold_values(source, features, thresholds)


# -- Trees in one --


@dataclass(frozen=True)
class Fields:
    """What the nodes of a kind of tree call their parts."""

    feature: str
    threshold: str
    left: str
    right: str


_FOREST = Fields("feature", "threshold", "left_child", "right_child")


def joined(parts: Sequence[Array], branches: Sequence[Array], fields: Fields, column: int) -> Array:
    """Return the nodes of all trees below nodes that choose a tree by its number in a further column.

    :param branches: for each tree, which of its nodes have children.
    :param column: the place of that column.
    """
    room = len(parts) - 1
    lengths = list(map(len, parts))
    bounds = np.cumsum([room, *lengths]).tolist()
    roots = bounds[:-1]
    nodes = np.empty(bounds[-1], parts[0].dtype)
    nodes[:room] = np.zeros(1, nodes.dtype)
    for part, root, end in zip(parts, roots, bounds[1:], strict=True):
        nodes[root:end] = part
    # For all trees at once: the building is one step of a trial, for which requests wait.
    own = nodes[room:]
    shifts = np.repeat(roots, lengths) * np.concatenate(branches)
    for children in (fields.left, fields.right):
        own[children] += shifts.astype(own[children].dtype)
    free = iter(range(room))

    def chooser(first: int, end: int) -> int:
        if end - first == 1:
            return int(roots[first])
        node, middle = next(free), (first + end) // 2
        nodes[fields.feature][node] = column
        nodes[fields.threshold][node] = middle - 0.5
        nodes[fields.left][node] = chooser(first, middle)
        nodes[fields.right][node] = chooser(middle, end)
        return node

    chooser(0, len(parts))
    return nodes


def spread(count: int, dtype: Any, walk: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return what asks a joined tree: each row once for each tree. Its answers are trees, rows, outputs."""
    order = np.arange(count, dtype=dtype)[:, np.newaxis]

    def leaves(table: Array) -> Array:
        rows, width = table.shape
        copies = np.empty((count, rows, width + 1), dtype)
        copies[:, :, :-1] = table
        copies[:, :, -1] = order
        return walk(copies.reshape(count * rows, width + 1)).reshape(count, rows, -1)

    return leaves


def summed(leaves: Array) -> Array:
    """Add up over the trees in their order; numpy's own sum of few rows would pair them."""
    total: Array = leaves.cumsum(axis=0)[-1]
    return total


# -- sklearn.tree and forests --


def _forest_scores(trees: Sequence[Any]) -> Scores:
    """Return the mean over a forest's trees, which are scikit-learn's ``tree_``."""
    total = _forest_sum(trees, [tree.__getstate__()["values"] for tree in trees], [tree.predict for tree in trees])
    return lambda table: total(table) / len(trees)


def _forest_sum(trees: Sequence[Any], values: Sequence[Array], walks: Sequence[Scores]) -> Scores:
    """Return the sum over a forest's trees.

    :param values: of each tree's nodes.
    :param walks: what gives a tree's values for the rows of a table, tree by tree.
    """
    first, *others = walks

    def each(table: Array) -> Array:
        total: Array = first(table)
        for walk in others:
            total += walk(table)
        return total

    states = [tree.__getstate__() for tree in trees]
    parts = [state["nodes"] for state in states]
    if len(trees) == 1 or sum(part.nbytes for part in (*parts, *values)) > _MOST_BYTES:
        return each
    width = trees[0].n_features
    nodes = joined(parts, [part["left_child"] >= 0 for part in parts], _FOREST, width)
    room = np.zeros((len(trees) - 1, *values[0].shape[1:]))
    tree = type(trees[0])(width + 1, np.array(trees[0].n_classes, np.intp), trees[0].n_outputs)
    depth = max(state["max_depth"] for state in states) + len(trees).bit_length()
    content = {"nodes": nodes, "values": np.concatenate([room, *values])}
    tree.__setstate__({"max_depth": depth, "node_count": len(nodes), **content})
    leaves = spread(len(trees), np.float32, tree.predict)
    return lambda table: summed(leaves(table)) if len(table) <= FEW else each(table)


def _classifier(name: str, model: Any, source: Source, trees: Sequence[Any], scores: Scores) -> Predictor:
    if model.n_outputs_ > 1:
        return _classifier_of_several(name, model, source, trees, scores)
    classes = np.asarray(model.classes_)
    values = partial(_tree_values, source, trees)
    return Predictor(name, _float32, lambda table: classes.take(scores(table).argmax(axis=1)), scores, values)


def _classifier_of_several(name: str, model: Any, source: Source, trees: Sequence[Any], scores: Scores) -> Predictor:
    classes = [np.asarray(own) for own in model.classes_]

    def predict_proba(table: Array) -> list[Array]:
        # An output of fewer classes than another has zeros for those it lacks.
        found = scores(table).reshape(len(table), len(classes), -1)
        return [found[:, place, : len(own)] for place, own in enumerate(classes)]

    def predict(table: Array) -> Array:
        labels = np.empty((len(table), len(classes)), classes[0].dtype)
        for place, (own, shares) in enumerate(zip(classes, predict_proba(table), strict=True)):
            labels[:, place] = own.take(shares.argmax(axis=1))
        return labels

    return Predictor(name, _float32, predict, predict_proba, partial(_tree_values, source, trees))


def _regressor(name: str, model: Any, source: Source, trees: Sequence[Any], scores: Scores) -> Predictor:
    several = model.n_outputs_ > 1

    def predict(table: Array) -> Array:
        found = scores(table).reshape(len(table), -1)
        return found if several else found[:, 0]

    return Predictor(name, _float32, predict, None, partial(_tree_values, source, trees))


@predictor("DecisionTreeClassifier", "ExtraTreeClassifier")
def _tree_classifier(model: Any, source: Source) -> Predictor:
    return _classifier("lean tree", model, source, [model.tree_], model.tree_.predict)


@predictor("DecisionTreeRegressor", "ExtraTreeRegressor")
def _tree_regressor(model: Any, source: Source) -> Predictor:
    return _regressor("lean tree", model, source, [model.tree_], model.tree_.predict)


@predictor("RandomForestClassifier", "ExtraTreesClassifier")
def _forest_classifier(model: Any, source: Source) -> Predictor:
    trees = [estimator.tree_ for estimator in model.estimators_]
    return _classifier("lean forest", model, source, trees, _forest_scores(trees))


@predictor("RandomForestRegressor", "ExtraTreesRegressor")
def _forest_regressor(model: Any, source: Source) -> Predictor:
    trees = [estimator.tree_ for estimator in model.estimators_]
    return _regressor("lean forest", model, source, trees, _forest_scores(trees))


@predictor("IsolationForest")
def _isolation(model: Any, source: Source) -> Predictor:
    from sklearn.ensemble._iforest import _average_path_length

    if model._max_features != source.width:
        raise NotLean("each tree has columns of its own")
    trees = [estimator.tree_ for estimator in model.estimators_]
    depths = [
        (lengths + averages - 1.0).reshape(-1, 1, 1)
        for lengths, averages in zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)
    ]

    def walk(tree: Any, own: Array) -> Scores:
        return lambda table: own[tree.apply(table)][:, 0]

    total = _forest_sum(trees, depths, [walk(tree, own) for tree, own in zip(trees, depths, strict=True)])
    # What a tree of as many rows is deep on average; for a single row there is nothing to divide by.
    usual = len(trees) * _average_path_length([model._max_samples])
    if not usual.all():
        raise NotLean("trained on a row for each tree")
    offset = model.offset_

    def predict(table: Array) -> Any:
        scores = -(2 ** -(total(table)[:, 0] / usual)) - offset
        return np.where(scores < 0, -1, 1)

    return Predictor("lean forest", _float32, predict, None, partial(_tree_values, source, trees))


# -- Gradient boosting --


def _boosted(model: Any, source: Source) -> tuple[Scores, Callable[[], Values]]:
    """Return the raw predictions of GradientBoosting*, a column for each class but in binary ones, and probes."""
    from sklearn.ensemble._gradient_boosting import predict_stages

    init = model.init_
    kind = type(init).__name__
    constant = kind == "DummyRegressor" or (kind == "DummyClassifier" and init.strategy in ("prior", "most_frequent"))
    if not (constant or (isinstance(init, str) and init == "zero")):
        raise NotLean(f"the initial estimator {init!r} is not constant")
    start = model._raw_predict_init(np.zeros((1, source.width), np.float32))
    stages, rate = model.estimators_, model.learning_rate

    def raw(table: Array) -> Array:
        scores: Array = start.repeat(len(table), axis=0)
        predict_stages(stages, table, rate, scores)  # compiled, and over all trees
        return scores

    return raw, partial(_tree_values, source, [estimator.tree_ for estimator in stages.ravel()])


@predictor("GradientBoostingClassifier")
def _boosting_classifier(model: Any, source: Source) -> Predictor:
    raw, values = _boosted(model, source)
    classes, loss = np.asarray(model.classes_), model._loss
    binary = len(classes) == 2

    def scores(table: Array) -> Array:
        return raw(table).ravel() if binary else raw(table)

    def predict(table: Array) -> Array:
        return classes.take((scores(table) >= 0).astype(np.intp) if binary else scores(table).argmax(axis=1))

    return Predictor("lean boosting", _float32, predict, lambda table: loss.predict_proba(scores(table)), values)


@predictor("GradientBoostingRegressor")
def _boosting_regressor(model: Any, source: Source) -> Predictor:
    raw, values = _boosted(model, source)
    return Predictor("lean boosting", _float32, lambda table: raw(table).ravel(), None, values)

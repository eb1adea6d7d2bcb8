"""Trees, and ensembles of them.

scikit-learn walks a tree in compiled code; what a request of few rows costs is the calls around it, one or more for
each tree. So all trees of an ensemble are put into one tree of the same kind, below nodes that choose among them by
a further column, and are walked in a single call. Values, comparisons and the order of sums stay the original's, so
predictions are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Predictor, Source, Values, predictor
from .cells import Array, numbers

#: Rows up to which the joined tree is faster than one call for each tree, which needs no copies of the rows.
_FEW = 64
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


def _values(source: Source, features: Array, thresholds: Array) -> Values:
    """Return for each column values on both sides of its thresholds, by float64 and by float32, and extreme ones."""
    values: Values = []
    for column in range(source.width):
        own = np.unique(thresholds[features == column])
        own = own[np.isfinite(own)]
        own = own[:: max(1, len(own) // _THRESHOLDS)]
        narrow = own.astype(np.float32)
        near = [own, np.nextafter(own, np.inf), np.nextafter(own, -np.inf)]
        near += [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
        middle = float(np.median(own)) if len(own) else 0.0
        values.append([middle, *np.concatenate(near).astype(np.float64).tolist(), 0.0, -0.0, 1e-40, 1e30, -1e30])
    return values


def _tree_values(source: Source, trees: Sequence[Any]) -> Values:
    branches = [tree.feature >= 0 for tree in trees]
    features = np.concatenate([tree.feature[inner] for tree, inner in zip(trees, branches, strict=True)])
    thresholds = np.concatenate([tree.threshold[inner] for tree, inner in zip(trees, branches, strict=True)])
    return _values(source, features, thresholds)


# -- Trees in one --


@dataclass(frozen=True)
class _Fields:
    """What the nodes of a kind of tree call their parts."""

    feature: str
    threshold: str
    left: str
    right: str


_FOREST = _Fields("feature", "threshold", "left_child", "right_child")
_HISTOGRAM = _Fields("feature_idx", "num_threshold", "left", "right")


def _joined(parts: Sequence[Array], branches: Sequence[Array], fields: _Fields, column: int) -> Array:
    """Return the nodes of all trees below nodes that choose a tree by its number in a further column.

    :param branches: for each tree, which of its nodes have children.
    :param column: the place of that column.
    """
    room = np.zeros(len(parts) - 1, parts[0].dtype)
    nodes = np.concatenate([room, *parts])
    roots = np.cumsum([len(room), *map(len, parts)])[:-1].tolist()
    for root, part, inner in zip(roots, parts, branches, strict=True):
        own = nodes[root : root + len(part)]
        own[fields.left][inner] += root
        own[fields.right][inner] += root
    free = iter(range(len(room)))

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


def _spread(count: int, dtype: Any, walk: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return what asks a joined tree: each row once for each tree. Its answers are trees, rows, outputs."""
    order = np.arange(count, dtype=dtype)[:, np.newaxis]

    def leaves(table: Array) -> Array:
        rows, width = table.shape
        spread = np.empty((count, rows, width + 1), dtype)
        spread[:, :, :-1] = table
        spread[:, :, -1] = order
        return walk(spread.reshape(count * rows, width + 1)).reshape(count, rows, -1)

    return leaves


def _sum(leaves: Array) -> Array:
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
    nodes = _joined(parts, [part["left_child"] >= 0 for part in parts], _FOREST, width)
    room = np.zeros((len(trees) - 1, *values[0].shape[1:]))
    tree = type(trees[0])(width + 1, np.array(trees[0].n_classes, np.intp), trees[0].n_outputs)
    depth = max(state["max_depth"] for state in states) + len(trees).bit_length()
    content = {"nodes": nodes, "values": np.concatenate([room, *values])}
    tree.__setstate__({"max_depth": depth, "node_count": len(nodes), **content})
    leaves = _spread(len(trees), np.float32, tree.predict)
    return lambda table: _sum(leaves(table)) if len(table) <= _FEW else each(table)


def _one_output(model: Any) -> None:
    if model.n_outputs_ != 1:
        raise NotLean("several outputs")


def _classifier(name: str, model: Any, source: Source, trees: Sequence[Any], scores: Scores) -> Predictor:
    _one_output(model)
    classes = np.asarray(model.classes_)
    values = _tree_values(source, trees)
    return Predictor(name, _float32, lambda table: classes.take(scores(table).argmax(axis=1)), scores, values)


def _regressor(name: str, model: Any, source: Source, trees: Sequence[Any], scores: Scores) -> Predictor:
    _one_output(model)
    return Predictor(name, _float32, lambda table: scores(table)[:, 0], None, _tree_values(source, trees))


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

    return Predictor("lean forest", _float32, predict, None, _tree_values(source, trees))


# -- Gradient boosting --


def _boosted(model: Any, source: Source) -> tuple[Scores, Values]:
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

    return raw, _tree_values(source, [estimator.tree_ for estimator in stages.ravel()])


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


# -- Histogram gradient boosting --


def _histogram(model: Any, source: Source) -> tuple[Scores, Values]:
    """Return the raw predictions of HistGradientBoosting*, a column for each class but in binary ones, and probes."""
    from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data

    if getattr(model, "is_categorical_", None) is not None:
        raise NotLean("categorical features")
    trees = [tree for iteration in model._predictors for tree in iteration]
    parts = [tree.nodes for tree in trees]
    nodes = _joined(parts, [part["is_leaf"] == 0 for part in parts], _HISTOGRAM, source.width)
    known, places = model._bin_mapper.make_known_categories_bitsets()
    none = trees[0].raw_left_cat_bitsets

    def walk(table: Array) -> Array:
        out = np.empty(len(table), np.float64)
        _predict_from_raw_data(nodes, table, none, known, places, 1, out)
        return out

    joined = _spread(len(trees), np.float64, walk)
    start = np.asarray(model._baseline_prediction, np.float64).reshape(1, 1, -1)
    classes = start.shape[2]

    def raw(table: Array) -> Array:
        blocks = []
        for first in range(0, len(table), _FEW):
            leaves = joined(table[first : first + _FEW])
            rows = leaves.shape[1]
            # A tree for each class in each iteration.
            steps = leaves.reshape(-1, classes, rows).swapaxes(1, 2)
            blocks.append(_sum(np.concatenate([start.repeat(rows, axis=1), steps])))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    inner = nodes[len(trees) - 1 :]
    inner = inner[inner["is_leaf"] == 0]
    values = _values(source, inner["feature_idx"], inner["num_threshold"])
    return raw, [[*column, float("nan")] for column in values]


@predictor("HistGradientBoostingClassifier")
def _histogram_classifier(model: Any, source: Source) -> Predictor:
    raw, values = _histogram(model, source)
    classes, loss = np.asarray(model.classes_), model._loss
    binary = len(classes) == 2

    def predict(table: Array) -> Array:
        scores = raw(table)
        return classes.take((scores.ravel() > 0).astype(np.intp) if binary else scores.argmax(axis=1))

    return Predictor("lean boosting", numbers, predict, lambda table: loss.predict_proba(raw(table)), values)


@predictor("HistGradientBoostingRegressor")
def _histogram_regressor(model: Any, source: Source) -> Predictor:
    raw, values = _histogram(model, source)
    inverse = model._loss.link.inverse
    return Predictor("lean boosting", numbers, lambda table: inverse(raw(table).ravel()), None, values)

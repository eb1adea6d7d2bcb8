"""Histogram gradient boosting.

Its trees are joined as those of `trees.py`, and walked by the compiled code that scikit-learn has for them. Categories
are numbered first, as the model's own preprocessor does it; for each split a set of bits says which of them go left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Predictor, Source, Transform, Values, predictor, some, transform_of
from .cells import Array, numbers
from .columns import Part, side_by_side
from .trees import FEW, Fields, Scores, joined, spread, summed, threshold_values

_FIELDS = Fields("feature_idx", "num_threshold", "left", "right")


def _boosted(model: Any, source: Source) -> tuple[Scores, Callable[[Array], Array], Callable[[], Values]]:
    """Return the raw predictions, a column for each class but in binary models, what prepares for them, and probes."""
    from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data

    trees = [tree for iteration in model._predictors for tree in iteration]
    parts = [tree.nodes for tree in trees]
    nodes = joined(parts, [part["is_leaf"] == 0 for part in parts], _FIELDS, source.width)
    left = np.concatenate([tree.raw_left_cat_bitsets for tree in trees])
    # Where each tree's sets have come to stand; nodes that choose among trees, and all of numbers, have none.
    moved = np.cumsum([0, *(len(tree.raw_left_cat_bitsets) for tree in trees)])[:-1]
    shifts = np.concatenate([np.zeros(len(parts) - 1, np.intp), moved.repeat([len(part) for part in parts])])
    by_category = nodes["is_categorical"] != 0
    nodes["bitset_idx"][by_category] += shifts[by_category].astype(np.uint32)
    known, places = model._bin_mapper.make_known_categories_bitsets()

    def walk(table: Array) -> Array:
        out = np.empty(len(table), np.float64)
        _predict_from_raw_data(nodes, table, left, known, places, 1, out)
        return out

    leaves_of = spread(len(trees), np.float64, walk)
    start = np.asarray(model._baseline_prediction, np.float64).reshape(1, 1, -1)
    classes = start.shape[2]

    def raw(table: Array) -> Array:
        blocks = []
        for first in range(0, len(table), FEW):
            leaves = leaves_of(table[first : first + FEW])
            rows = leaves.shape[1]
            # A tree for each class in each iteration.
            steps = leaves.reshape(-1, classes, rows).swapaxes(1, 2)
            blocks.append(summed(np.concatenate([start.repeat(rows, axis=1), steps])))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    # Before scikit-learn 1.4 categories had to be numbered already.
    preprocessor = getattr(model, "_preprocessor", None)
    numbered = None if preprocessor is None else _numbered(preprocessor, source)

    def values() -> Values:
        probed = np.concatenate([tree.nodes for tree in some(trees)])
        inner = probed[(probed["is_leaf"] == 0) & (probed["is_categorical"] == 0)]
        wanted = threshold_values(source, inner["feature_idx"], inner["num_threshold"])
        wanted = [[*column, math.nan] for column in wanted]
        return wanted if numbered is None else numbered.values(wanted)

    return raw, numbers if numbered is None else numbered.apply, values


def _numbered(preprocessor: Any, source: Source) -> Transform:
    """Return what puts the columns of categories first, numbered, and behind them those of numbers as they are."""
    parts = []
    for name, inner, _ in preprocessor.transformers_:
        positions = list(preprocessor._transformer_to_input_indices[name])
        if not positions:
            continue
        if name == "encoder":
            lean = transform_of(inner, Source(len(positions), source.frame))
        else:
            lean = Transform(numbers, len(positions), lambda wanted: wanted)
        parts.append(Part(positions, lean, None))
    return side_by_side(parts, source, sparse=False)


@predictor("HistGradientBoostingClassifier")
def _classifier(model: Any, source: Source) -> Predictor:
    raw, prepare, values = _boosted(model, source)
    classes, loss = np.asarray(model.classes_), model._loss
    binary = len(classes) == 2

    def predict(table: Array) -> Array:
        scores = raw(table)
        return classes.take((scores.ravel() > 0).astype(np.intp) if binary else scores.argmax(axis=1))

    return Predictor("lean boosting", prepare, predict, lambda table: loss.predict_proba(raw(table)), values)


@predictor("HistGradientBoostingRegressor")
def _regressor(model: Any, source: Source) -> Predictor:
    raw, prepare, values = _boosted(model, source)
    inverse = model._loss.link.inverse
    return Predictor("lean boosting", prepare, lambda table: inverse(raw(table).ravel()), None, values)

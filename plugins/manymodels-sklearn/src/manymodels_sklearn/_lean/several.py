"""Ensembles and meta-estimators whose parts have a part of the columns, of the outputs or of the say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from .base import ANY, NotLean, Predictor, Source, Values, merged, predictor, predictor_of, some
from .cells import Array, finite
from .vote import all_values, together


def _sum(parts: Array) -> Array:
    """Add up over the first axis in its order, as Python does; numpy's own sum of few would pair them."""
    total: Array = parts.cumsum(axis=0)[-1]
    return total


# -- Boosting --


def _boosted(model: Any, source: Source) -> tuple[list[Predictor], Callable[[Array], Any]]:
    inner = [predictor_of(one, source) for one in model.estimators_]
    prepare = together(inner)
    return inner, lambda table: prepare(finite(table))  # which refuses what its parts might take


def _answers(inner: Sequence[Predictor], prepared: Any) -> Array:
    return np.stack([one.predict(table) for one, table in zip(inner, prepared, strict=True)])


@predictor("AdaBoostClassifier")
def _ada_boost(model: Any, source: Source) -> Predictor:
    if getattr(model, "algorithm", "SAMME") == "SAMME.R":  # of scikit-learn before 1.6
        raise NotLean("algorithm='SAMME.R'")
    inner, prepare = _boosted(model, source)
    classes = np.asarray(model.classes_)
    others = len(classes) - 1
    if not others:
        raise NotLean("a single class")
    weights = np.asarray(model.estimator_weights_, np.float64)
    total = weights.sum()
    right = weights[: len(inner), np.newaxis, np.newaxis]
    wrong = -1 / others * right

    def scores(prepared: Any) -> Array:
        votes = _answers(inner, prepared)[:, :, np.newaxis] == classes
        shares = _sum(np.where(votes, right, wrong))
        shares /= total
        difference: Array = shares[:, 1] - shares[:, 0]
        return shares if others > 1 else difference

    def predict(prepared: Any) -> Array:
        found = scores(prepared)
        return classes.take(found > 0 if found.ndim == 1 else found.argmax(axis=1))

    def predict_proba(prepared: Any) -> Array:
        found = scores(prepared)
        found = np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found / others
        shares: Array = np.exp(found - found.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    return Predictor("lean boosting", prepare, predict, predict_proba, all_values(some(inner), source))


@predictor("AdaBoostRegressor")
def _ada_boost_regressor(model: Any, source: Source) -> Predictor:
    inner, prepare = _boosted(model, source)
    weights = np.asarray(model.estimator_weights_, np.float64)

    def predict(prepared: Any) -> Array:
        predictions = _answers(inner, prepared).T
        order = predictions.argsort(axis=1)
        reached = weights[order].cumsum(axis=1)
        rows = np.arange(len(predictions))
        median = (reached >= 0.5 * reached[:, -1:]).argmax(axis=1)
        middle: Array = predictions[rows, order[rows, median]]
        return middle

    return Predictor("lean boosting", prepare, predict, None, all_values(some(inner), source))


# -- Bagging --


class _Bag:
    """The parts of a bagged estimator, each with its columns."""

    def __init__(self, model: Any, source: Source) -> None:
        if source.frame:
            raise NotLean("bagging makes an array of a DataFrame")
        self.inner = [
            predictor_of(one, Source(len(columns)))
            for one, columns in zip(model.estimators_, model.estimators_features_, strict=True)
        ]
        everything = np.arange(source.width)
        self._cuts = [
            None if np.array_equal(columns, everything) else np.asarray(columns)
            for columns in model.estimators_features_
        ]
        self._whole = together(self.inner) if all(cut is None for cut in self._cuts) else None
        self._columns = model.estimators_features_
        self._width = source.width

    def values(self) -> Values:
        values: Values = [[] for _ in range(self._width)]
        for one, columns in zip(some(self.inner), some(self._columns), strict=True):
            for column, found in zip(columns, one.values(), strict=True):
                values[column].extend(found)
        return [merged([column]) for column in values]

    def prepare(self, table: Array) -> Any:
        if self._whole is not None:
            return self._whole(table)
        return [
            one.prepare(table if cut is None else table.take(cut, axis=1))
            for one, cut in zip(self.inner, self._cuts, strict=True)
        ]


@predictor("BaggingClassifier")
def _bagging(model: Any, source: Source) -> Predictor:
    bag = _Bag(model, source)
    classes = np.asarray(model.classes_)
    count = model.n_estimators
    if any(one.predict_proba is None for one in bag.inner):
        raise NotLean("BaggingClassifier holds a predictor without probabilities")
    # A part that saw no row of some class has no probability of it.
    places = [None if len(one.classes_) == len(classes) else one.classes_ for one in model.estimators_]

    def predict_proba(prepared: Any) -> Array:
        shares = np.zeros((len(prepared[0]), len(classes)))
        for one, table, place in zip(bag.inner, prepared, places, strict=True):
            assert one.predict_proba is not None
            if place is None:
                shares += one.predict_proba(table)
            else:
                shares[:, place] += one.predict_proba(table)
        shares /= count
        return shares

    def predict(prepared: Any) -> Array:
        winners: Array = classes.take(predict_proba(prepared).argmax(axis=1))
        return winners

    return Predictor("lean bagging", bag.prepare, predict, predict_proba, bag.values)


@predictor("BaggingRegressor")
def _bagging_regressor(model: Any, source: Source) -> Predictor:
    bag = _Bag(model, source)
    count = model.n_estimators
    return Predictor(
        "lean bagging", bag.prepare, lambda prepared: _sum(_answers(bag.inner, prepared)) / count, None, bag.values
    )


# -- Several outputs --


@predictor("MultiOutputClassifier", "MultiOutputRegressor", forms=ANY)
def _outputs(model: Any, source: Source) -> Predictor:
    inner = [predictor_of(one, source) for one in model.estimators_]

    def predict(prepared: Any) -> Array:
        predictions = np.asarray([one.predict(table) for one, table in zip(inner, prepared, strict=True)])
        by_row: Array = predictions.T
        return by_row

    def predict_proba(prepared: Any) -> Any:
        return [one.predict_proba(table) for one, table in zip(inner, prepared, strict=True) if one.predict_proba]

    return Predictor(
        "lean outputs",
        together(inner),
        predict,
        None if any(one.predict_proba is None for one in inner) else predict_proba,
        all_values(inner, source),
    )


# -- One class against all others, and calibration --


def _second(model: Any, source: Source) -> tuple[Predictor, Callable[[Array], Array]]:
    """Return the lean form of a classifier, and its scores as meta-estimators ask for them: of two classes one."""
    lean = predictor_of(model, source)
    if hasattr(model, "decision_function"):
        if lean.decision is None:
            raise NotLean(f"the scores of {type(model).__name__} have no lean form")
        return lean, lean.decision
    shares = lean.predict_proba
    if shares is None:
        raise NotLean(f"{type(model).__name__} has no scores")
    return lean, (lambda table: shares(table)[:, 1]) if len(model.classes_) == 2 else shares


@functools.cache
def _first_of_equals() -> bool:
    """Say whether the first of several classes with one score wins; in older versions of scikit-learn the last does."""
    from sklearn.dummy import DummyClassifier
    from sklearn.multiclass import OneVsRestClassifier

    equals = OneVsRestClassifier(DummyClassifier()).fit([[0], [0], [0]], [0, 1, 2])
    return int(equals.predict([[0]])[0]) == 0


@predictor("OneVsRestClassifier", forms=ANY)
def _one_against_rest(model: Any, source: Source) -> Predictor:
    if model.label_binarizer_.y_type_ != "multiclass":
        raise NotLean("one class against the rest, of two or of several labels")
    inner, scores = zip(*(_second(one, source) for one in model.estimators_), strict=True)
    # The first of equals is taken, so they come in the order in which they would be.
    order = slice(None) if _first_of_equals() else slice(None, None, -1)
    classes = np.asarray(model.classes_)[order]

    def predict(prepared: Any) -> Array:
        found = np.stack([score(table).ravel() for score, table in zip(scores, prepared, strict=True)])
        winners: Array = classes[found[order].argmax(axis=0)]
        return winners

    def predict_proba(prepared: Any) -> Array:
        shares: Array = np.array([one.predict_proba(table)[:, 1] for one, table in zip(inner, prepared, strict=True)]).T
        sums = np.sum(shares, axis=1)[:, np.newaxis]
        np.divide(shares, sums, out=shares, where=sums != 0)
        return shares

    return Predictor(
        "lean, one against the rest",
        together(inner),
        predict,
        None if any(one.predict_proba is None for one in inner) else predict_proba,
        all_values(inner, source),
    )


def _curves(part: Any) -> Callable[[Array], Array]:
    """Return what makes shares, each by itself, of a part's scores, for each class or for the second of two."""
    if part.method == "sigmoid":
        slope = np.array([one.a_ for one in part.calibrators])
        offset = np.array([one.b_ for one in part.calibrators])
        return lambda found: np.asarray(expit(-(slope * found + offset)))
    if part.method != "isotonic":
        raise NotLean(f"calibrated by {part.method!r}")
    steps = part.calibrators
    if any(step.out_of_bounds != "clip" or step.X_thresholds_.dtype != np.float64 for step in steps):
        raise NotLean("calibrated by scores of another dtype than float64")

    def curve(found: Array) -> Array:
        columns = found[:, np.newaxis] if found.ndim == 1 else found
        shares = np.empty(columns.shape)
        for place, (step, column) in enumerate(zip(steps, columns.T, strict=True)):
            shares[:, place] = step.f_(np.clip(column, step.X_min_, step.X_max_))
        return shares[:, 0] if found.ndim == 1 else shares

    return curve


@predictor("CalibratedClassifierCV", forms=ANY)
def _calibrated(model: Any, source: Source) -> Predictor:
    classes = np.asarray(model.classes_)
    parts = model.calibrated_classifiers_
    if any(not np.array_equal(part.estimator.classes_, classes) for part in parts):
        raise NotLean("calibrated of classes that a part lacks")
    inner, scores = zip(*(_second(part.estimator, source) for part in parts), strict=True)
    curves = [_curves(part) for part in parts]

    def shares_of(shares: Array) -> Array:
        if shares.ndim == 1:
            return np.stack([1.0 - shares, shares], axis=1)
        sums = np.sum(shares, axis=1)[:, np.newaxis]
        even = np.full_like(shares, 1 / len(classes))
        made: Array = np.divide(shares, sums, out=even, where=sums != 0)
        return made

    def predict_proba(prepared: Any) -> Array:
        mean = np.zeros((1, len(classes)))
        for score, table, curve in zip(scores, prepared, curves, strict=True):
            shares = shares_of(curve(score(table)))
            shares[(shares > 1.0) & (shares <= 1.0 + 1e-5)] = 1.0
            mean = mean + shares
        mean /= len(parts)
        return mean

    def predict(prepared: Any) -> Array:
        winners: Array = classes[predict_proba(prepared).argmax(axis=1)]
        return winners

    return Predictor("lean, calibrated", together(inner), predict, predict_proba, all_values(inner, source))

"""Predictors made of several, each given the same table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .base import NotLean, Predictor, Source, Values, merged, predictor, predictor_of
from .cells import Array


def all_values(predictors: Sequence[Predictor], source: Source) -> Callable[[], Values]:
    """Return what returns the values worth trying of several predictors; of sparse rows none are."""

    def values() -> Values:
        if source.form == "sparse":
            return []
        found = [inner.values() for inner in predictors]
        return [merged(columns) for columns in zip(*found, strict=True)]

    return values


def together(predictors: Sequence[Predictor]) -> Callable[[Array], Any]:
    """Return a `Predictor.prepare` that gives each predictor's own prepared table, in a list."""
    functions = [inner.prepare for inner in predictors]
    distinct = list(dict.fromkeys(functions))

    def prepare(table: Array) -> list[Array]:
        made = {function: function(table) for function in distinct}
        return [made[function] for function in functions]

    return prepare


@predictor("VotingRegressor", forms=("table", "texts"))
def _voting_regressor(vote: Any, source: Source) -> Predictor:
    inner = [predictor_of(model, source) for model in vote.estimators_]
    weights = vote._weights_not_none

    def predict(prepared: Any) -> Array:
        predictions = np.asarray([one.predict(table) for one, table in zip(inner, prepared, strict=True)]).T
        average: Array = np.average(predictions, axis=1, weights=weights)
        return average

    return Predictor("lean vote", together(inner), predict, None, all_values(inner, source))


@predictor("VotingClassifier", forms=("table", "texts"))
def _voting_classifier(vote: Any, source: Source) -> Predictor:
    inner = [predictor_of(model, source) for model in vote.estimators_]
    weights = vote._weights_not_none
    classes = np.asarray(vote.le_.classes_)
    if vote.voting == "soft" and any(one.predict_proba is None for one in inner):
        raise NotLean("VotingClassifier holds a predictor without probabilities")

    def predict_proba(prepared: Any) -> Array:
        shares = [one.predict_proba(table) for one, table in zip(inner, prepared, strict=True) if one.predict_proba]
        average: Array = np.average(np.asarray(shares), axis=0, weights=weights)
        return average

    def soft(prepared: Any) -> Array:
        winners: Array = classes.take(predict_proba(prepared).argmax(axis=1))
        return winners

    def hard(prepared: Any) -> Array:
        ballots = np.asarray([one.predict(table) for one, table in zip(inner, prepared, strict=True)]).T
        return classes.take([np.bincount(row, weights=weights).argmax() for row in ballots])

    is_soft = vote.voting == "soft"
    return Predictor(
        "lean vote",
        together(inner),
        soft if is_soft else hard,
        predict_proba if is_soft else None,
        all_values(inner, source),
    )


@predictor("StackingClassifier", "StackingRegressor", forms=("table", "texts"))
def _stacking(stack: Any, source: Source) -> Predictor:
    encoder = getattr(stack, "_label_encoder", None)
    if stack.passthrough or isinstance(encoder, list):
        raise NotLean(f"{type(stack).__name__} passes its input on, or has several outputs")
    classes = None if encoder is None else np.asarray(encoder.classes_)
    inner = [predictor_of(model, source) for model in stack.estimators_]
    parts = [
        _columns(one, method, 0 if classes is None else len(classes))
        for one, method in zip(inner, stack.stack_method_, strict=True)
    ]
    final = predictor_of(stack.final_estimator_, Source(sum(width for _, width in parts)))

    def prepare(table: Array) -> Array:
        made = [columns(one.prepare(table)) for one, (columns, _) in zip(inner, parts, strict=True)]
        return final.prepare(np.concatenate(made, axis=1))

    def predict(prepared: Array) -> Array:
        predicted = final.predict(prepared)
        return predicted if classes is None else classes.take(predicted)

    return Predictor("lean stack", prepare, predict, final.predict_proba, all_values(inner, source))


def _columns(inner: Predictor, method: str, classes: int) -> tuple[Callable[[Array], Array], int]:
    """Return what makes a predictor's columns in the table of a stack's last one, and how many they are."""
    if method == "predict":
        return (lambda table: inner.predict(table).reshape(-1, 1)), 1
    decision = inner.decision
    columns = 1 if classes == 2 else classes
    if method == "decision_function" and decision is not None:
        return (lambda table: decision(table).reshape(-1, columns)), columns
    shares = inner.predict_proba
    if method != "predict_proba" or shares is None:
        raise NotLean(f"a stack's predictor is asked for {method}")
    # Of two shares one says it all, and the original leaves out the first.
    return (lambda table: shares(table)[:, 1:], 1) if classes == 2 else (shares, classes)

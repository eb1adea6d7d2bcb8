"""Predictors made of several, each given the same table."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import NotLean, Predictor, Source, Values, merged, predictor, predictor_of
from .cells import Array


def _all_values(predictors: list[Predictor], source: Source) -> Values:
    return [merged([inner.values[column] for inner in predictors]) for column in range(source.width)]


def _checked(predictors: list[Predictor]) -> Any:
    """Return a `prepare` that gives each predictor's own prepared table, in a list."""
    return lambda table: [inner.prepare(table) for inner in predictors]


@predictor("VotingRegressor")
def _voting_regressor(vote: Any, source: Source) -> Predictor:
    inner = [predictor_of(model, source) for model in vote.estimators_]
    weights = vote._weights_not_none

    def predict(prepared: Any) -> Array:
        predictions = np.asarray([one.predict(table) for one, table in zip(inner, prepared, strict=True)]).T
        average: Array = np.average(predictions, axis=1, weights=weights)
        return average

    return Predictor("lean vote", _checked(inner), predict, None, _all_values(inner, source))


@predictor("VotingClassifier")
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
        _checked(inner),
        soft if is_soft else hard,
        predict_proba if is_soft else None,
        _all_values(inner, source),
    )

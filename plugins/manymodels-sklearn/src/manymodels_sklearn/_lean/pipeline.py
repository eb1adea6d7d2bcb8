"""Pipelines, and what wraps a single predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manymodels import LeftToOriginal

from .base import ANY, NotLean, Predictor, Source, Transform, Values, predictor, predictor_of, transform_of, transformer
from .cells import Array


@transformer("Pipeline", forms=ANY)
def _transformers(pipeline: Any, source: Source) -> Transform:
    return _chain([step for _, step in pipeline.steps], source)


@predictor("Pipeline", forms=ANY)
def _pipeline(pipeline: Any, source: Source) -> Predictor:
    first = _chain([step for _, step in pipeline.steps[:-1]], source)
    last = predictor_of(pipeline.steps[-1][1], first.made if len(pipeline.steps) > 1 else source)
    transform, prepare = first.apply, last.prepare

    def prepared(table: Array) -> Array:
        return prepare(transform(table))

    def values() -> Values:
        return first.values(last.values())

    name = last.name if last.name.startswith("lean pipeline") else f"lean pipeline, {last.name.removeprefix('lean ')}"
    return Predictor(name, prepared, last.predict, last.predict_proba, values, last.decision)


def _chain(steps: Sequence[Any], source: Source) -> Transform:
    """Do one transformer after the other; only the first sees the request's DataFrame."""
    transforms: list[Transform] = []
    for step in steps:
        if step is None or isinstance(step, str):
            continue
        transforms.append(transform_of(step, source))
        source = transforms[-1].made
    functions = [transform.apply for transform in transforms]

    def apply(table: Array) -> Array:
        for function in functions:
            table = function(table)
        return table

    def values(wanted: Values) -> Values:
        for transform in reversed(transforms):
            wanted = transform.values(wanted)
        return wanted

    return Transform(apply, source.width, values, source.form == "sparse")


@predictor("GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV", forms=ANY)
def _search(search: Any, source: Source) -> Predictor:
    return predictor_of(search.best_estimator_, source)


@predictor("TransformedTargetRegressor")
def _transformed_target(regressor: Any, source: Source) -> Predictor:
    inner = predictor_of(regressor.regressor_, source)
    back = regressor.transformer_.inverse_transform  # of a column: whatever it is, it is done as ever
    if regressor._training_dim != 1:
        raise NotLean("TransformedTargetRegressor of several outputs has no lean form")

    def predict(prepared: Array) -> Array:
        try:
            predicted: Array = back(inner.predict(prepared).reshape(-1, 1))
        except ValueError as error:
            raise LeftToOriginal(str(error)) from error
        return predicted.squeeze(axis=1) if predicted.ndim == 2 else predicted

    return Predictor(inner.name, inner.prepare, predict, None, inner.values)

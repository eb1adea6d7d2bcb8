"""BentoML services with a dictionary of models in each worker."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import bentoml
import joblib
import numpy as np
import pandas as pd


@cache
def get_model(name: str) -> Any:
    """Load a model, or return it if it is held."""
    return joblib.load(os.path.join(os.environ["STORE"], name, "model.joblib"))


def answer(name: str, rows: list[Any]) -> list[Any]:
    """Return a model's predictions."""
    data = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)
    prediction: list[Any] = get_model(name).predict(data).tolist()
    return prediction


@bentoml.service(workers=2)
class Single:
    """One request at a time."""

    @bentoml.api
    async def predict(self, model: str, rows: list[Any]) -> list[Any]:
        """Predict in the event loop: what a thread costs is more than most of these models do."""
        return answer(model, rows)


@bentoml.service(workers=2)
class Batching:
    """The requests that BentoML joins, by model."""

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    async def predict(self, inputs: list[dict[str, Any]]) -> list[list[Any]]:
        """Predict the rows of each model together."""
        answers: list[list[Any]] = [[] for _ in inputs]
        for name in {request["model"] for request in inputs}:
            mine = [place for place, request in enumerate(inputs) if request["model"] == name]
            predictions = iter(answer(name, [row for place in mine for row in inputs[place]["rows"]]))
            for place in mine:
                answers[place] = [next(predictions) for _ in inputs[place]["rows"]]
        return answers

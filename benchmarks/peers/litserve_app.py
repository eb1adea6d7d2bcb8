"""LitServe with a dictionary of models in each worker, as it serves one model per API by itself."""

# No `from __future__ import annotations`: LitServe reads the annotation of `request`.
import os
from functools import cache
from typing import Any

import joblib
import litserve as ls
import numpy as np
import pandas as pd
from fastapi import Request


@cache
def get_model(name: str) -> Any:
    """Load a model, or return it if it is held."""
    return joblib.load(os.path.join(os.environ["STORE"], name, "model.joblib"))


def predict(name: str, rows: list[Any]) -> list[Any]:
    """Return a model's predictions."""
    data = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)
    prediction: list[Any] = get_model(name).predict(data).tolist()
    return prediction


class Api(ls.LitAPI):
    """One request at a time."""

    def setup(self, device: str) -> None:
        """Load nothing: models are loaded when they are asked for."""

    def decode_request(self, request: Request) -> Any:
        """Take the model's name and its rows."""
        body: Any = request
        return body["model"], body["rows"]

    def predict(self, request: Any) -> Any:
        """Predict."""
        return predict(*request)

    def encode_response(self, output: Any) -> Any:
        """Answer with a list."""
        return {"predictions": output}


class BatchingApi(Api):
    """The requests that LitServe joins, by model."""

    def batch(self, inputs: list[Any]) -> Any:
        """Keep requests apart until their models are known."""
        return inputs

    def predict(self, request: Any) -> Any:
        """Predict the rows of each model together."""
        answers: list[Any] = [None] * len(request)
        for name in {name for name, _ in request}:
            mine = [place for place, (other, _) in enumerate(request) if other == name]
            rows = [row for place in mine for row in request[place][1]]
            predictions = iter(predict(name, rows))
            for place in mine:
                answers[place] = [next(predictions) for _ in request[place][1]]
        return answers

    def unbatch(self, output: Any) -> Any:
        """Return the answers one by one."""
        return output


if __name__ == "__main__":
    api = BatchingApi(max_batch_size=64, batch_timeout=0.005) if os.environ["BATCHING"] == "1" else Api()
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")

"""Ray Serve with ``@serve.multiplexed``, two replicas, and its own batching on or off."""

from __future__ import annotations

import os
import signal
from typing import Any

import joblib
import numpy as np
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

MOST = int(os.environ["MAX_MODELS"])


class Single:
    """One request at a time."""

    def __init__(self) -> None:
        self.fresh = 0

    @serve.multiplexed(max_num_models_per_replica=MOST)
    async def get_model(self, name: str) -> Any:
        """Load a model, or return it if it is held."""
        self.fresh += 1
        return joblib.load(os.path.join(os.environ["STORE"], name, "model.joblib"))

    async def predict(self, name: str, rows: list[Any]) -> list[Any]:
        """Return a model's predictions."""
        model = await self.get_model(name)
        data = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)
        prediction: list[Any] = model.predict(data).tolist()
        return prediction

    def reply(self, answer: list[Any]) -> Any:
        """Return an answer that says if a model was loaded."""
        if not self.fresh:
            return JSONResponse(answer)
        self.fresh -= 1
        return JSONResponse(answer, headers={"x-loaded": "1"})

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        return self.reply(await self.predict(serve.get_multiplexed_model_id(), await request.json()))


class Batching(Single):
    """The requests that Ray Serve joins, by model."""

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def joined(self, requests: list[tuple[str, list[Any]]]) -> list[list[Any]]:
        """Predict the rows of each model together."""
        answers: list[list[Any]] = [[] for _ in requests]
        for name in {name for name, _ in requests}:
            mine = [place for place, (other, _) in enumerate(requests) if other == name]
            predictions = iter(await self.predict(name, [row for place in mine for row in requests[place][1]]))
            for place in mine:
                answers[place] = [next(predictions) for _ in requests[place][1]]
        return answers

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        return self.reply(await self.joined((serve.get_multiplexed_model_id(), await request.json())))


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    chosen = Batching if os.environ["BATCHING"] == "1" else Single
    deployment = serve.deployment(num_replicas=2, max_ongoing_requests=2000, ray_actor_options={"num_cpus": 1})(chosen)
    serve.run(deployment.bind(), name="models", route_prefix="/invocations")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()

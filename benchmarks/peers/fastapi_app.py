"""A server by hand: FastAPI, and in each process a dictionary of the models asked for last."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI, Header, Request, Response

app = FastAPI()
fresh: list[str] = []


@lru_cache(maxsize=int(os.environ["MAX_MODELS"]))
def get_model(name: str) -> Any:
    """Load a model, or return it if it is held."""
    fresh.append(name)
    return joblib.load(os.path.join(os.environ["STORE"], name, "model.joblib"))


@app.get("/ping")
def ping() -> str:
    """Say that it is up."""
    return "ok"


@app.post("/invocations")
async def invoke(request: Request, response: Response, x_amzn_sagemaker_target_model: str = Header()) -> list[Any]:
    """Predict in the event loop: what a thread costs is more than most of these models do."""
    rows = await request.json()
    model = get_model(x_amzn_sagemaker_target_model)
    if fresh:
        fresh.clear()
        response.headers["x-loaded"] = "1"
    data = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)
    prediction: list[Any] = model.predict(data).tolist()
    return prediction

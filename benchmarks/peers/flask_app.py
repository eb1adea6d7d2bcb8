"""The server that guides to bringing a model of your own show: Flask, and one model per server."""

from __future__ import annotations

import json
import os
from typing import Any

import flask
import joblib
import numpy as np
import pandas as pd

app = flask.Flask(__name__)
model = joblib.load(os.path.join(os.environ["MODEL"], "model.joblib"))


def reply(content: Any, status: int = 200) -> flask.Response:
    """Return JSON."""
    return flask.Response(json.dumps(content), status, mimetype="application/json")


@app.route("/ping")
def ping() -> flask.Response:
    """Say that the model is loaded."""
    return reply("ok")


@app.route("/invocations", methods=["POST"])
def invoke() -> flask.Response:
    """Predict labels and probabilities for JSON or CSV."""
    try:
        if flask.request.content_type == "application/json":
            rows = flask.request.get_json()["features"]
            features = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)
        elif flask.request.content_type == "text/csv":
            lines = flask.request.data.decode().strip().splitlines()
            features = np.array([[float(value) for value in line.split(",")] for line in lines])
        else:
            return reply({"error": f"content type {flask.request.content_type} is not supported"}, 415)
        result = {"predictions": model.predict(features).tolist()}
        if hasattr(model, "predict_proba"):
            result["probabilities"] = model.predict_proba(features).tolist()
        return reply(result)
    except Exception as error:
        return reply({"error": str(error)}, 500)

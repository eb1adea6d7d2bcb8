"""Predictions to replies."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from mlflow.pyfunc.scoring_server import predictions_to_json

from manymodels import codecs
from manymodels.errors import PredictionFailed

JSON = "application/json"
_OFFERED = (
    JSON,
    "text/csv",
    "application/jsonlines",
    "application/x-ndjson",
    "application/x-npy",
    "application/x-recordio-protobuf",
)


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Encode a prediction: as MLflow's server does for JSON (NaN is null), as the platform does for other types."""
    kind = codecs.choose(accept, _OFFERED)
    if kind != JSON:
        return codecs.encode(prediction, kind)
    if isinstance(prediction, np.ndarray) and prediction.dtype.kind in "biuf":
        return codecs.encode({"predictions": prediction.tolist()}, JSON)
    written = io.StringIO()
    try:
        predictions_to_json(prediction, written)
    except (TypeError, ValueError) as error:
        raise PredictionFailed(f"the prediction cannot be written as JSON: {error}") from error
    # There and back, since MLflow writes NaN, which JSON has not.
    return codecs.encode(json.loads(written.getvalue()), JSON)

"""A model's script for sagemaker-inference: the least that its default handler needs."""

from __future__ import annotations

import json
import os
from typing import Any

import joblib
import numpy as np
import pandas as pd


def model_fn(model_dir: str) -> Any:
    """Load the model."""
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(body: str | bytes, content_type: str) -> Any:
    """Read JSON rows or records."""
    if content_type != "application/json":
        raise ValueError(f"content type {content_type} is not supported")
    rows = json.loads(body)
    return pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)


def predict_fn(data: Any, model: Any) -> Any:
    """Predict."""
    return model.predict(data)

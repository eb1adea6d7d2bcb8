"""A sample artifact, for whoever checks the plugin."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import infer_signature

from manymodels import Golden

#: A model from code, MLflow's form without a pickle.
_CODE = """\
import mlflow


class Weighted(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return (2 * model_input["price"] + model_input["pieces"] + params["offset"]).to_numpy()


mlflow.models.set_model(Weighted())
"""
CSV = "text/csv"


def write(path: Path) -> Sequence[Golden]:
    """Write a Python model of two columns and a parameter, and return requests in MLflow's forms."""
    table = pd.DataFrame({"price": [1.5, 2.0], "pieces": [3.0, 4.0]})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises type hints, and pandas MLflow
        code = Path(folder, "weighted.py")
        code.write_text(_CODE)
        mlflow.pyfunc.save_model(
            path,
            python_model=code,
            signature=infer_signature(table, table["price"].to_numpy(), {"offset": 0.5}),
            input_example=(table, {"offset": 10.0}),
            pip_requirements=[],
        )
    plain = b'{"predictions": [6.5, 8.5]}'
    offset = b'{"predictions": [16.0, 18.0]}'
    rows = [{"pieces": 3.0, "price": 1.5}, {"pieces": 4.0, "price": 2.0}]
    columns = {"price": [1.5, 2.0], "pieces": [3.0, 4.0]}
    csv = b"pieces,price\n3,1.5\n4,2\n"
    return (
        Golden(body=(path / "serving_input_example.json").read_bytes(), answer=offset),
        Golden(body=json.dumps({"dataframe_records": rows}).encode(), answer=plain),
        Golden(body=json.dumps({"instances": rows, "params": {"offset": 10}}).encode(), answer=offset),
        Golden(body=json.dumps({"inputs": columns}).encode(), answer=plain),
        Golden(body=csv, content_type=CSV, answer=plain),
        Golden(body=csv, content_type=CSV, accept=CSV, answer=b"6.5\n8.5\n", answer_content_type=CSV),
    )

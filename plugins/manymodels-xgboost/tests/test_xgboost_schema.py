"""What XGBoost models know of their features and answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import manymodels_xgboost
import numpy as np
import pytest
import xgboost

from manymodels import Artifact, Field, ModelSettings, Plugins, Schema
from manymodels.model import Model
from manymodels.schema import decode

RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 3)).astype(np.float32)
BINARY = (X[:, 0] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
NUMBERS = (Field(type="number", shape=(-1, 3)),)


def train(objective: str, labels: Any = BINARY, matrix: Mapping[str, Any] = {}, **params: Any) -> xgboost.Booster:
    data = xgboost.DMatrix(np.abs(X.round()), labels, **matrix)
    return xgboost.train({"objective": objective, "nthread": 1, **params}, data, 2)


NAMES = {"feature_names": ["size", "rooms", "garden"], "feature_types": ["float", "int", "i"]}


@pytest.mark.parametrize(
    ("content", "options", "schema"),
    [
        (train("reg:squarederror"), {}, Schema(inputs=NUMBERS, outputs=(Field(type="number"),))),
        (
            train("binary:logistic", matrix=NAMES),
            {},
            Schema(
                inputs=(
                    Field(name="size", type="number"),
                    Field(name="rooms", type="integer"),
                    Field(name="garden", type="integer"),
                ),
                outputs=(Field(type="number"),),
            ),
        ),
        (
            train("multi:softprob", THREE, num_class=3),
            {},
            Schema(inputs=NUMBERS, outputs=(Field(type="number", shape=(-1, 3)),)),
        ),
        (
            train("multi:softmax", THREE, num_class=3),
            {},
            Schema(inputs=NUMBERS, outputs=(Field(type="integer", values=(0, 1, 2)),)),
        ),
        (
            xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, BINARY),
            {},
            Schema(inputs=NUMBERS, outputs=(Field(type="integer", values=(0, 1)),)),
        ),
        (xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(X, X[:, :2]), {}, Schema(inputs=NUMBERS)),
        (
            train("binary:logistic"),
            {"output": "predicted_label,probabilities"},
            Schema(
                inputs=NUMBERS,
                outputs=(Field(name="predicted_label", type="integer"), Field(name="probabilities")),
            ),
        ),
    ],
)
def test_what_a_model_tells(content: Any, options: dict[str, Any], schema: Schema, tmp_path: Path) -> None:
    joblib.dump(content, tmp_path / "model.joblib")
    (tmp_path / "manymodels.json").write_text(json.dumps({"settings": options}))
    plugins, artifact = Plugins([("xgboost", manymodels_xgboost)]), Artifact(tmp_path, "m")
    model = Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())
    assert decode(model.schema) == schema
    assert not model.notes

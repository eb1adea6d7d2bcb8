"""Which of three irises a flower is, by four lengths in cm."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ARTIFACT = "iris.tar.gz"


def train(folder: Path) -> None:
    """Train on all flowers."""
    features, classes = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, classes)
    joblib.dump(model, folder / "model.joblib")
    metadata = {
        "n_features": features.shape[1],
        "n_classes": len(model.classes_),
        "train_accuracy": round(model.score(features, classes), 4),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "sample.json").write_text('{"features": [[5.1, 3.5, 1.4, 0.2]]}')

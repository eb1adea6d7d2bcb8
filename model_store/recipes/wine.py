"""Which of three growers a wine is from, by thirteen measurements with names."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ARTIFACT = "wine"


def train(folder: Path) -> None:
    """Train on a DataFrame, so that requests may name their columns."""
    wines, growers = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=50, random_state=0))
    joblib.dump(model.fit(wines, growers), folder / "model.joblib")
    (folder / "sample.json").write_text(json.dumps(wines.head(2).to_dict("records")))

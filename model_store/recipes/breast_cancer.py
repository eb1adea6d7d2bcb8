"""Whether a tumour is benign, by thirty measurements: an XGBoost model, saved in its own format."""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier

ARTIFACT = "breast_cancer.ubj"


def train(folder: Path) -> None:
    """Train on all tumours; the answer is the probability that one is benign."""
    features, benign = load_breast_cancer(return_X_y=True)
    model = XGBClassifier(n_estimators=50, max_depth=3, random_state=0).fit(features, benign)
    model.save_model(folder / ARTIFACT)

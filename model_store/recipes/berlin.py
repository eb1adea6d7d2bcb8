"""How many customers a shop has on a day: one of many models of one kind, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import PoissonRegressor

ARTIFACT = "shops/berlin.tar.gz"


def train(folder: Path) -> None:
    """Train on made-up days: weekday from 0, temperature in degrees Celsius, whether a holiday."""
    random = np.random.default_rng(0)
    days = np.column_stack([random.integers(0, 6, 700), random.normal(12, 8, 700), random.random(700) < 0.1])
    customers = random.poisson(np.exp(4 + days @ [0.05, 0.01, -0.8]))
    joblib.dump(PoissonRegressor(alpha=1e-6, max_iter=1000).fit(days, customers), folder / "model.joblib")
    (folder / "sample.json").write_text("[[5, 21.5, 0]]")

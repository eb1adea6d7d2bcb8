"""What a house costs: a model with a script of its own, which speaks of houses instead of rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression

ARTIFACT = "house"
SCRIPT = Path(__file__).parent / "scripts" / "house.py"


def train(folder: Path) -> None:
    """Train on made-up houses: square metres, rooms, age in years."""
    random = np.random.default_rng(0)
    houses = np.column_stack([random.uniform(30, 250, 500), random.integers(1, 9, 500), random.uniform(0, 100, 500)])
    prices = 20_000 + houses @ [3_000, 8_000, -900] + random.normal(0, 5_000, 500)
    joblib.dump(LinearRegression().fit(houses, prices), folder / "model.joblib")
    (folder / "code").mkdir()
    shutil.copyfile(SCRIPT, folder / "code" / "inference.py")
    (folder / "sample.json").write_text('{"square_metres": 120, "rooms": 4, "age": 15}')

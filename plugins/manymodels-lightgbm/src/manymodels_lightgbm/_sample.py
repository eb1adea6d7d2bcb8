"""A small model of LightGBM's, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np

from manymodels import Golden, codecs

_ACCEPTED = ("application/json", "application/jsonlines", "text/csv", "application/x-npy")


def write(path: Path) -> list[Golden]:
    """Train a classifier on two columns of numbers and one of categories, and save it as ``model.txt``."""
    chance = np.random.default_rng(0)
    columns, cities = ["age", "income", "city"], ["Berlin", "Paris", "Rome"]
    table = np.column_stack([chance.integers(18, 90, 200), chance.normal(3000, 900, 200), chance.integers(0, 3, 200)])
    labels = (table[:, 0] > 50) ^ (table[:, 2] == 2)
    data = lightgbm.Dataset(table, labels, feature_name=columns, categorical_feature=["city"])
    booster = lightgbm.train({"objective": "binary", "num_threads": 1, "verbosity": -1, "seed": 0}, data, 10)
    booster.pandas_categorical = [cities]  # as training on a DataFrame leaves it
    booster.save_model(path / "model.txt")

    asked = table[:3].copy()
    asked[1, 1] = np.nan
    answer = np.asarray(booster.predict(asked, num_threads=1))
    rows = [[age, None if income != income else income, cities[int(city)]] for age, income, city in asked.tolist()]
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    csv = "".join(",".join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows)
    bodies = [
        (json.dumps(rows), "application/json"),
        (json.dumps({"instances": rows}), "application/json"),
        (json.dumps(records), "application/json"),
        (json.dumps({"columns": columns, "data": rows}), "application/json"),
        ("\n".join(map(json.dumps, records)), "application/jsonlines"),
        (",".join(columns) + "\n" + csv, "text/csv"),
        (csv, "text/csv"),
    ]
    goldens = [
        Golden(body=body.encode(), content_type=kind, answer=codecs.encode(answer, "application/json")[0])
        for body, kind in bodies
    ]
    for accept in _ACCEPTED[1:]:
        body, kind = codecs.encode(answer, accept)
        goldens.append(Golden(body=bodies[0][0].encode(), accept=accept, answer=body, answer_content_type=kind))
    return goldens

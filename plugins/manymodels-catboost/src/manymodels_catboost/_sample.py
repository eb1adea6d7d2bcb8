"""A small model of CatBoost's, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import catboost
import numpy as np

from manymodels import Golden, codecs


def write(path: Path) -> list[Golden]:
    """Train a classifier on two columns of numbers and one of categories, and save it as ``model.cbm``."""
    chance = np.random.default_rng(0)
    columns = ["age", "income", "city"]
    cities = chance.choice(["Berlin", "Paris", "Rome"], 100)
    table = np.empty((100, 3), object)
    table[:, 0], table[:, 1], table[:, 2] = chance.integers(18, 90, 100), chance.normal(3000, 900, 100), cities
    labels = np.array([(age > 50) ^ (city == "Rome") for age, _, city in table])
    model = catboost.CatBoostClassifier(
        iterations=10, thread_count=1, random_seed=0, verbose=False, allow_writing_files=False
    )
    model.fit(catboost.Pool(table, labels.astype(int), cat_features=[2], feature_names=columns))
    model.save_model(str(path / "model.cbm"))

    asked = table[:3].copy()
    asked[1, 1] = np.nan
    answer = model.predict_proba(asked, thread_count=1)
    rows = [[age, None if income != income else income, city] for age, income, city in asked.tolist()]
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
    wanted = codecs.encode(answer, "application/json")[0]
    goldens = [Golden(body=body.encode(), content_type=kind, answer=wanted) for body, kind in bodies]
    for accept in ("application/jsonlines", "text/csv", "application/x-npy"):
        body, kind = codecs.encode(answer, accept)
        goldens.append(Golden(body=bodies[0][0].encode(), accept=accept, answer=body, answer_content_type=kind))
    return goldens

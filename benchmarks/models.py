"""The models that every server is given: small, all different, from fixed seeds, kept in the cache folder."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBRegressor

#: Of this recipe; models of another one are trained anew.
VERSION = 2
FEATURES = 10
#: Different rows that each model is asked; several, so that an answer to another request is noticed.
ROWS = 8
COLORS = ("red", "green", "blue", "white")
#: What is trained; further models are these with other coefficients or leaves, since training takes long.
TRAINED = 24


@dataclass(frozen=True)
class Model:
    """An artifact, rows to ask it for, and what it predicts for each."""

    name: str
    kind: str
    path: Path
    rows: list[Any]
    expected: list[float]


def _data(seed: int) -> Any:
    return make_classification(n_samples=2000, n_features=FEATURES, random_state=seed)


def _logistic(number: int) -> Any:
    random = np.random.default_rng(number)
    model = _trained("logistic", number % TRAINED, lambda _: LogisticRegression())
    model.coef_ = random.normal(size=model.coef_.shape)
    model.intercept_ = random.normal(size=model.intercept_.shape)
    return model


def _boosting(number: int) -> Any:
    model = _trained("boosting", number % TRAINED, lambda seed: GradientBoostingClassifier(random_state=seed))
    random = np.random.default_rng(number)
    for tree in model.estimators_.ravel():
        tree.tree_.value[:] *= random.uniform(-0.2, 1)
    return model


def _forest(number: int) -> Any:
    return RandomForestClassifier(random_state=number).fit(*_data(number))


def _xgboost(number: int) -> Any:
    features, labels = _data(number)
    return XGBRegressor(n_estimators=100, n_jobs=1, random_state=number).fit(features, labels)


def _pipeline(number: int) -> Any:
    random = np.random.default_rng(number)
    features, labels = _data(number)
    table = pd.DataFrame(features, columns=[f"n{column}" for column in range(FEATURES)])
    table["color"] = random.choice(COLORS, len(table))
    table["size"] = random.choice(["S", "M", "L"], len(table))
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), list(table.columns[:FEATURES])),
        (OneHotEncoder(handle_unknown="ignore"), ["color", "size"]),
    )
    return make_pipeline(columns, LogisticRegression()).fit(table, labels)


_bases: dict[tuple[str, int], bytes] = {}


def _trained(kind: str, seed: int, make: Callable[[int], Any]) -> Any:
    """Return a copy of a model that is trained once."""
    if (kind, seed) not in _bases:
        _bases[kind, seed] = pickle.dumps(make(seed).fit(*_data(seed)))
    return pickle.loads(_bases[kind, seed])


KINDS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "lr": ("LogisticRegression", _logistic),
    "gb": ("GradientBoosting(100)", _boosting),
    "rf": ("RandomForest(100)", _forest),
    "xgb": ("XGBoost(100)", _xgboost),
    "pipeline": ("pipeline on a DataFrame", _pipeline),
}


class Store:
    """A folder of models, ``NAME/model.joblib`` each, which grows by what is asked for."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / f"models-{VERSION}-sklearn-{sklearn.__version__}"
        self._models: dict[str, list[Model]] = {}

    def get(self, kind: str, count: int, first: int = 0) -> list[Model]:
        """Return models of a kind by number, from `first` on; train those that are missing."""
        models = self._models.setdefault(kind, self._read(kind))
        if len(models) < first + count:
            _, make = KINDS[kind]
            with self._list(kind).open("a") as lines:
                for number in range(len(models), first + count):
                    models.append(self._write(kind, number, make(number)))
                    lines.write(f"{json.dumps(asdict(models[-1]), default=str)}\n")
                    if number % 200 == 199:
                        print(f"trained {number + 1} models: {KINDS[kind][0]}", file=sys.stderr, flush=True)
        return models[first : first + count]

    def _list(self, kind: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder.with_name(f"{self.folder.name}-{kind}.jsonl")

    def _read(self, kind: str) -> list[Model]:
        if not self._list(kind).exists():
            return []
        lines = self._list(kind).read_text().splitlines()
        return [Model(**{**fields, "path": Path(fields["path"])}) for fields in map(json.loads, lines)]

    def _write(self, kind: str, number: int, model: Any) -> Model:
        name = f"{kind}-{number:05}"
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        with (path / "model.joblib").open("wb") as file:
            joblib.dump(model, file)
            file.flush()
            os.fsync(file.fileno())  # the page cache lets go of written pages only
        random = np.random.default_rng(1000 + number)
        rows: list[Any] = random.normal(size=(ROWS, FEATURES)).round(3).tolist()
        if kind == "pipeline":
            rows = [
                {f"n{column}": value for column, value in enumerate(row)}
                | {"color": str(random.choice(COLORS)), "size": str(random.choice(["S", "M", "L"]))}
                for row in rows
            ]
        expected = model.predict(table(rows)).tolist()
        return Model(name, kind, path, rows, expected)


def table(rows: list[Any]) -> Any:
    """Return rows as what a model predicts on."""
    return pd.DataFrame(rows) if isinstance(rows[0], dict) else np.array(rows)


def forget_pages(model: Model) -> None:
    """Drop a model's file from the page cache."""
    with (model.path / "model.joblib").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

"""What estimators know of their columns and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from manymodels import Artifact, Field, ModelSettings, Plugins, Schema
from manymodels.model import Model
from manymodels.schema import decode

RNG = np.random.default_rng(7)
X = RNG.random((40, 2))
Y = (X[:, 0] > 0.5).astype(int)
NAMED = pd.DataFrame(X, columns=["size", "age"])
SHOPS = NAMED.assign(city=np.where(Y, "Berlin", "Bonn"))
TWO = (Field(type="number", shape=(-1, 2)),)


@pytest.mark.parametrize(
    ("estimator", "schema"),
    [
        (LogisticRegression().fit(X, Y), Schema(inputs=TWO, outputs=(Field(type="integer", values=(0, 1)),))),
        (
            LogisticRegression().fit(NAMED, np.where(Y, "yes", "no")),
            Schema(
                inputs=(Field(name="size", type="number"), Field(name="age", type="number")),
                outputs=(Field(type="string", values=("no", "yes")),),
            ),
        ),
        (
            GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2).fit(X, Y == 1),
            Schema(inputs=TWO, outputs=(Field(type="boolean", values=(False, True)),)),
        ),
        (
            make_pipeline(
                make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), LinearRegression()
            ).fit(SHOPS, Y),
            Schema(inputs=(Field(name="size"), Field(name="age"), Field(name="city")), outputs=(Field(type="number"),)),
        ),
        (
            make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"], ["+", "-"]),
            Schema(inputs=(Field(type="string", shape=(-1,)),), outputs=(Field(type="string", values=("+", "-")),)),
        ),
        (
            KNeighborsClassifier(1).fit(np.arange(606).reshape(303, 2), np.arange(303) // 3),
            Schema(inputs=TWO, outputs=(Field(type="integer"),)),
        ),
        (DecisionTreeRegressor().fit(X, X), Schema(inputs=TWO)),
        (MultiOutputClassifier(LogisticRegression()).fit(X, np.column_stack([Y, 1 - Y])), Schema(inputs=TWO)),
        (KMeans(2, n_init=1, random_state=0).fit(X), Schema(inputs=TWO)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_estimator_tells(estimator: Any, schema: Schema, tmp_path: Path) -> None:
    joblib.dump(estimator, tmp_path / "model.joblib")
    plugins, artifact = Plugins([("sklearn", manymodels_sklearn)]), Artifact(tmp_path, "m")
    model = Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())
    assert decode(model.schema) == schema
    assert not model.notes

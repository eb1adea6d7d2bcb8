"""XGBoost called directly answers as it does by its Python functions, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import manymodels_xgboost
import numpy as np
import pytest
import scipy.sparse
import xgboost

from manymodels import Accelerated, Artifact, Context, LeftToOriginal

RNG = np.random.default_rng(3)
X = RNG.normal(size=(150, 5)).astype(np.float32)
X[RNG.random(X.shape) < 0.1] = np.nan
BINARY = (np.nan_to_num(X[:, 0] + X[:, 1]) > 0).astype(int)
THREE = np.digitize(np.nan_to_num(X[:, 0]), [-0.5, 0.5])
VALUES = np.nan_to_num(X[:, 2] ** 2) + 0.5


def trained(objective: str, labels: Any, **params: Any) -> Any:
    rounds = params.pop("rounds", 7)
    return xgboost.train({"objective": objective, "nthread": 1, **params}, xgboost.DMatrix(X, labels), rounds)


MODELS: dict[str, Any] = {
    "logistic": lambda: trained("binary:logistic", BINARY),
    "deep": lambda: trained("binary:logistic", BINARY, max_depth=12, min_child_weight=0, rounds=60),
    "margin": lambda: trained("binary:logitraw", BINARY),
    "softprob": lambda: trained("multi:softprob", THREE, num_class=3),
    "softmax": lambda: trained("multi:softmax", THREE, num_class=3),
    "squared": lambda: trained("reg:squarederror", VALUES, base_score=3.0),
    "poisson": lambda: trained("count:poisson", VALUES),
    "gamma": lambda: trained("reg:gamma", VALUES, tree_method="exact"),
    "dart": lambda: trained("reg:squarederror", VALUES, booster="dart", rate_drop=0.5),
    "forest": lambda: trained("binary:logistic", BINARY, num_parallel_tree=5, subsample=0.5),
    "two targets": lambda: trained("reg:squarederror", np.column_stack([VALUES, VALUES * 2])),
    "classifier": lambda: xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(X, BINARY),
    "classifier of three": lambda: xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(X, THREE),
    "zeros are missing": lambda: xgboost.XGBRegressor(n_estimators=4, n_jobs=1, missing=0.0).fit(X, VALUES),
}


def loaded(booster: Any, folder: Path) -> Any:
    if isinstance(booster, xgboost.XGBModel):
        import joblib

        joblib.dump(booster, folder / "model.joblib")
    else:
        booster.save_model(folder / "model.ubj")
    return manymodels_xgboost.load(Artifact(folder, "shop"), Context("shop", str(folder)))


def offer(model: Any) -> Accelerated:
    offered = manymodels_xgboost.accelerate(model)
    assert offered is not None
    return offered


@pytest.mark.parametrize("name", MODELS)
def test_the_same_answers(name: str, tmp_path: Path) -> None:
    model = loaded(MODELS[name](), tmp_path)
    direct = offer(model)
    huge = np.array([[0.0, -0.0, 1e-45, 3.4e38, -3.4e38], [np.inf, -np.inf, np.nan, 1e-38, 16777217.0]], np.float32)
    for rows in (*direct.probes, X, X[:1], huge, np.asfortranarray(X[:9]), X[::-2], X[3:4]):
        original, answer = manymodels_xgboost.predict_fn(rows, model), direct.predict(rows)
        assert (answer.dtype, answer.shape) == (original.dtype, original.shape)
        np.testing.assert_array_equal(answer, original)


def test_answers_stay_when_others_follow(tmp_path: Path) -> None:
    direct = offer(loaded(MODELS["logistic"](), tmp_path))
    first = direct.predict(X[:20])
    kept = first.copy()
    direct.predict(X[20:40])
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


def test_after_early_stopping_only_the_best_rounds_predict(tmp_path: Path) -> None:
    data = xgboost.DMatrix(X, BINARY)
    other = xgboost.DMatrix(X, RNG.permutation(BINARY))
    booster = xgboost.train(
        {"objective": "binary:logistic"},
        data,
        30,
        evals=[(other, "other")],
        early_stopping_rounds=2,
        verbose_eval=False,
    )
    model = loaded(booster, tmp_path)
    assert model.rounds[1] < 30
    np.testing.assert_array_equal(offer(model).predict(X), manymodels_xgboost.predict_fn(X, model))


def test_what_is_not_dense_is_left_to_the_original(tmp_path: Path) -> None:
    direct = offer(loaded(MODELS["logistic"](), tmp_path))
    for rows in (scipy.sparse.csr_matrix(np.nan_to_num(X)), X.astype(np.float64), X[:0]):
        with pytest.raises(LeftToOriginal):
            direct.predict(rows)


def test_linear_boosters_are_not_accelerated(tmp_path: Path) -> None:
    booster = trained("reg:squarederror", VALUES, booster="gblinear")
    assert manymodels_xgboost.accelerate(loaded(booster, tmp_path)) is None

"""Trees and ensembles in lean form answer as scikit-learn does, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from manymodels_sklearn._lean import NotLean, Source, predictor_of, rows
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from manymodels import LeftToOriginal

CLASSIFIERS: list[Any] = [
    lambda seed: DecisionTreeClassifier(random_state=seed),
    lambda seed: ExtraTreeClassifier(max_depth=3, random_state=seed),
    lambda seed: RandomForestClassifier(7, random_state=seed),
    lambda seed: RandomForestClassifier(1, random_state=seed),
    lambda seed: ExtraTreesClassifier(6, max_depth=5, random_state=seed),
    lambda seed: GradientBoostingClassifier(n_estimators=6, random_state=seed),
    lambda seed: GradientBoostingClassifier(n_estimators=3, init="zero", subsample=0.7, random_state=seed),
    lambda seed: HistGradientBoostingClassifier(max_iter=5, random_state=seed),
]
REGRESSORS: list[Any] = [
    lambda seed: DecisionTreeRegressor(random_state=seed),
    lambda seed: ExtraTreeRegressor(max_depth=1, random_state=seed),
    lambda seed: RandomForestRegressor(7, random_state=seed),
    lambda seed: ExtraTreesRegressor(5, criterion="absolute_error", max_depth=4, random_state=seed),
    lambda seed: GradientBoostingRegressor(n_estimators=6, loss="huber", random_state=seed),
    lambda seed: GradientBoostingRegressor(n_estimators=6, loss="quantile", random_state=seed),
    lambda seed: HistGradientBoostingRegressor(max_iter=5, random_state=seed),
    lambda seed: HistGradientBoostingRegressor(max_iter=5, loss="poisson", random_state=seed),
]


def table(seed: int, width: int, *, missing: bool = False) -> Any:
    """Return rows of which many have equal values, so that thresholds lie between close ones."""
    chance = np.random.default_rng(seed)
    drawn = chance.normal(size=(120, width)) * 10.0 ** chance.integers(-3, 4, size=width)
    drawn[:, 0] = np.round(drawn[:, 0], 1)
    if missing:
        drawn[chance.random(drawn.shape) < 0.1] = np.nan
    return drawn


def assert_same(model: Any, width: int, *tables: Any) -> None:
    lean = predictor_of(model, Source(width))
    probes = rows(lean.values(), lean.prepare)
    assert probes is not None
    for given in (*probes, *tables):
        before = given.copy()
        for part in (given[:1], np.asfortranarray(given[:64]), given[:65]):
            prepared = lean.prepare(part)
            pairs: list[tuple[Any, Any]] = [(model.predict(part), lean.predict(prepared))]
            if hasattr(model, "predict_proba"):
                assert lean.predict_proba is not None
                pairs.append((model.predict_proba(part), lean.predict_proba(prepared)))
            for wanted, made in pairs:
                outputs = [(wanted, made)]
                if isinstance(wanted, list):  # probabilities of each of several outputs
                    assert isinstance(made, list)
                    outputs = list(zip(wanted, made, strict=True))
                for original, answer in outputs:
                    assert (answer.dtype, answer.shape) == (original.dtype, original.shape)
                    np.testing.assert_array_equal(answer, original)
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("make", CLASSIFIERS)
@pytest.mark.parametrize(("seed", "width", "classes"), [(0, 1, 2), (1, 7, 5)])
def test_classifiers(make: Any, seed: int, width: int, classes: int) -> None:
    drawn = table(seed, width)
    labels = np.array(["red", "green", "blue", "black", "white"])[np.argsort(np.argsort(drawn[:, -1])) * classes // 120]
    labels[np.random.default_rng(seed).permutation(120)[:30]] = "red"
    assert_same(make(seed).fit(drawn, labels), width, drawn)


@pytest.mark.parametrize("make", REGRESSORS)
@pytest.mark.parametrize(("seed", "width"), [(0, 1), (1, 7)])
def test_regressors(make: Any, seed: int, width: int) -> None:
    drawn = table(seed, width)
    assert_same(make(seed).fit(drawn, np.abs(drawn.sum(axis=1)) + drawn[:, 0] ** 2), width, drawn)


@pytest.mark.parametrize("seed", range(4))
def test_isolation(seed: int) -> None:
    drawn = table(seed, 4)
    model = IsolationForest(n_estimators=15, contamination=0.2, max_samples=20 + 20 * seed, random_state=seed)
    assert_same(model.fit(drawn), 4, drawn, drawn * 3)


def test_integer_and_boolean_labels() -> None:
    drawn = table(3, 4)
    for labels in ((drawn[:, 0] > 0), (drawn[:, 0] > 0).astype(np.int32) * 7 - 3):
        for make in CLASSIFIERS[2:8:5]:
            assert_same(make(3).fit(drawn, labels), 4, drawn)


@pytest.mark.parametrize("make", [*CLASSIFIERS[:5], *REGRESSORS[:4]])
def test_several_outputs(make: Any) -> None:
    drawn = table(6, 3)
    model = make(6)
    if hasattr(model, "predict_proba"):
        bins = np.digitize(drawn, np.quantile(drawn, [0.2, 0.5, 0.8]))
        wanted = np.array(["no", "yes", "perhaps", "never"])[bins + np.array([0, -1, -2]).clip(-bins)]
    else:
        wanted = np.column_stack([drawn[:, 0] * drawn[:, 1], drawn[:, 2] ** 2])
    assert_same(model.fit(drawn, wanted), 3, drawn, drawn * 1.5)


def test_several_outputs_of_one_class_and_of_whole_numbers() -> None:
    drawn = table(6, 3)
    wanted = np.column_stack([np.full(120, 7), drawn[:, 0] > 0, np.argsort(drawn[:, 1]) % 5])
    assert_same(RandomForestClassifier(4, random_state=0).fit(drawn, wanted), 3, drawn)


def test_missing_values_where_trees_take_them() -> None:
    drawn = table(4, 4, missing=True)
    model = HistGradientBoostingClassifier(max_iter=6).fit(drawn, np.nan_to_num(drawn[:, 1]) > 0)
    missing = np.full((3, 4), np.nan)
    assert_same(model, 4, drawn, missing)


def categories(seed: int) -> Any:
    """Return rows of two columns of numbers between two of categories, one of which is missing at times."""
    drawn = np.tile(table(seed, 4, missing=True), (8, 1))
    chance = np.random.default_rng(seed)
    drawn[:, 1] = chance.choice([0.0, 1, 2, 3, 5, 8, 13, 21], len(drawn))
    drawn[:, 3] = np.where(np.isnan(drawn[:, 3]), np.nan, chance.integers(0, 40, len(drawn)))
    return drawn


@pytest.mark.parametrize(
    "make",
    [
        lambda: HistGradientBoostingClassifier(max_iter=6, min_samples_leaf=3, categorical_features=[1, 3]),
        lambda: HistGradientBoostingRegressor(
            max_iter=6, min_samples_leaf=3, categorical_features=[False] * 3 + [True]
        ),
        lambda: HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=1, categorical_features=[1]),
    ],
    ids=["classes", "number", "one tree"],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_categories(make: Any, classes: int) -> None:
    drawn = categories(classes)
    wanted = ((drawn[:, 1] % 2 + np.nan_to_num(drawn[:, 3]) % 3) % classes).astype(int)
    strange = [np.nan, -1.0, -0.0, 5e-324, 0.5, 4.0, 29.5, 255.0, 256.0, 300.0]
    edges = np.ones((4, len(strange), 4))
    for column in range(4):
        edges[column, :, column] = strange
    edges = np.concatenate([*edges, [[1e300, 2.0, -1e300, 3.0]]])
    model = make().fit(drawn, wanted)
    assert any(tree.nodes["is_categorical"].any() for trees in model._predictors for tree in trees)
    assert_same(model, 4, drawn, edges)


def test_nothing_but_categories() -> None:
    drawn = categories(5)[:, [1, 3]]
    model = HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=2, categorical_features=[0, 1])
    assert_same(model.fit(drawn, drawn[:, 0] % 2), 2, drawn, drawn[::-1] + 1)


def test_rows_on_every_threshold() -> None:
    drawn = table(5, 3)
    model = RandomForestClassifier(20, random_state=5).fit(drawn, drawn[:, 0] * drawn[:, 1] > drawn[:, 2])
    edges: list[Any] = []
    for estimator in model.estimators_:
        inner = estimator.tree_.feature >= 0
        for feature, threshold in zip(estimator.tree_.feature[inner], estimator.tree_.threshold[inner], strict=True):
            for value in (threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)):
                row = drawn[len(edges) % 120].copy()
                row[feature] = value
                edges.append(row)
    extreme = np.array([[0.0, -0.0, 5e-324], [1e-45, 1e38, -1e38], [3.4e38, 2.0**24 + 1, 1.0000000001]])
    assert_same(model, 3, np.array(edges), extreme)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, "text"])
def test_what_trees_refuse_is_left_to_the_original(bad: Any) -> None:
    drawn = table(6, 3)
    lean = predictor_of(RandomForestRegressor(3).fit(drawn, drawn[:, 0]), Source(3))
    row = np.array([[1.0, bad, 2.0]], object if isinstance(bad, str) else np.float64)
    with pytest.raises(LeftToOriginal):
        lean.prepare(row)


def test_what_has_no_lean_form() -> None:
    class Mine(RandomForestClassifier):  # type: ignore[misc]
        pass

    drawn = table(7, 3)
    labels = drawn[:, 0] > 0
    strata = GradientBoostingClassifier(n_estimators=2, init=DummyClassifier(strategy="stratified"))
    learned = GradientBoostingClassifier(n_estimators=2, init=LogisticRegression())
    for model in (
        Mine(2).fit(drawn, labels),
        strata.fit(drawn, labels),
        learned.fit(drawn, labels),
        IsolationForest(n_estimators=3, max_features=2).fit(drawn),
        IsolationForest(n_estimators=3, max_samples=1).fit(drawn),
    ):
        with pytest.raises(NotLean):
            predictor_of(model, Source(3))


def test_a_forest_too_large_to_copy_is_asked_tree_by_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    from manymodels_sklearn._lean import trees

    monkeypatch.setattr(trees, "_MOST_BYTES", 1000)
    drawn = table(8, 3)
    assert_same(RandomForestClassifier(5).fit(drawn, drawn[:, 0] > 0), 3, drawn)
    assert_same(RandomForestClassifier(5).fit(drawn, drawn[:, :2] > 0), 3, drawn)

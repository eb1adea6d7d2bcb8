"""Lean transformers give the numbers of the originals, or leave the table to them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from manymodels_sklearn._lean import NotLean, Source
from manymodels_sklearn._lean.base import Transform, transform_of
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from manymodels import LeftToOriginal

RNG = np.random.default_rng(3)
NUMBERS = RNG.normal(size=(120, 4)) * [1, 10, 100, 0.1] + [0, 5, 1000, 3]
GAPS = np.where(RNG.random(NUMBERS.shape) < 0.1, np.nan, NUMBERS)
POSITIVE = np.abs(NUMBERS) + 0.1
CODES = RNG.integers(0, 5, (120, 4)).astype(float)
TEXTS = np.array(["a", "b", "cc", "", "e"], object)[CODES.astype(int)]
TEXT_GAPS = np.where(RNG.random(TEXTS.shape) < 0.1, np.array(np.nan, object), TEXTS)
TWO, THREE = RNG.integers(0, 2, 120), RNG.integers(0, 3, 120)
#: What a cell of a request may hold besides the usual.
ODD = [np.nan, np.inf, -np.inf, 1e308, -1e200, 0.0, -0.0, 5e-324, 2.0**60, "x", "1", 3, None, True, 2**53 + 1]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    BINS = {"quantile_method": "linear"} if "quantile_method" in KBinsDiscretizer().get_params() else {}

CASES = [
    (StandardScaler(), NUMBERS),
    (StandardScaler(with_mean=False), GAPS),
    (StandardScaler(with_std=False), GAPS),
    (StandardScaler(with_mean=False, with_std=False), GAPS),
    (MinMaxScaler(), GAPS),
    (MinMaxScaler((-1, 2), clip=True), GAPS),
    (MaxAbsScaler(), GAPS),
    (RobustScaler(), GAPS),
    (RobustScaler(with_centering=False), GAPS),
    (Normalizer(), NUMBERS),
    (Normalizer("l1"), NUMBERS),
    (Normalizer("max"), NUMBERS),
    (Binarizer(threshold=1.0), NUMBERS),
    (PowerTransformer(), GAPS),
    (PowerTransformer(standardize=False), GAPS),
    (PowerTransformer("box-cox"), POSITIVE),
    (QuantileTransformer(n_quantiles=30), GAPS),
    (QuantileTransformer(n_quantiles=30, output_distribution="normal"), GAPS),
    (QuantileTransformer(n_quantiles=100), CODES),
    (FunctionTransformer(np.log1p), POSITIVE),
    (FunctionTransformer(np.sqrt, validate=True), POSITIVE),
    (FunctionTransformer(), TEXTS),
    (SimpleImputer(), GAPS),
    (SimpleImputer(strategy="median", add_indicator=True), GAPS),
    (SimpleImputer(strategy="most_frequent"), CODES),
    (SimpleImputer(missing_values=2, strategy="constant", fill_value=7.0), CODES),
    (SimpleImputer(strategy="constant", fill_value=0), GAPS),
    (SimpleImputer(), np.column_stack([NUMBERS[:, :3], np.full(120, np.nan)])),
    (SimpleImputer(keep_empty_features=True), np.column_stack([NUMBERS[:, :3], np.full(120, np.nan)])),
    (SimpleImputer(strategy="most_frequent"), TEXT_GAPS),
    (SimpleImputer(strategy="constant", fill_value="none"), TEXT_GAPS),
    (MissingIndicator(), GAPS),
    (MissingIndicator(features="all"), NUMBERS),
    (OneHotEncoder(), CODES),
    (OneHotEncoder(), TEXTS),
    (OneHotEncoder(handle_unknown="ignore"), TEXT_GAPS),
    (OneHotEncoder(drop="first"), TEXTS),
    (OneHotEncoder(drop="if_binary", sparse_output=False, handle_unknown="ignore"), CODES % 2),
    (OneHotEncoder(min_frequency=25, handle_unknown="infrequent_if_exist"), TEXTS),
    (OneHotEncoder(max_categories=3, handle_unknown="ignore"), TEXT_GAPS),
    (OneHotEncoder(max_categories=3, drop="first", handle_unknown="infrequent_if_exist"), TEXTS),
    (OrdinalEncoder(), TEXTS),
    (OrdinalEncoder(), CODES),
    (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), TEXT_GAPS),
    (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-5), TEXT_GAPS),
    (OrdinalEncoder(min_frequency=25, handle_unknown="use_encoded_value", unknown_value=-1), TEXTS),
    (TargetEncoder(), TEXTS),
    (TargetEncoder(), CODES),
    (KBinsDiscretizer(**BINS), NUMBERS),
    (KBinsDiscretizer(**BINS), CODES),
    (KBinsDiscretizer(encode="ordinal", strategy="uniform"), NUMBERS),
    (KBinsDiscretizer(encode="onehot-dense", strategy="uniform", n_bins=2), NUMBERS),
    (SelectKBest(k=2), NUMBERS),
    (VarianceThreshold(), GAPS),
    (PCA(2), NUMBERS),
    (PCA(3, whiten=True), NUMBERS),
    (IncrementalPCA(2), NUMBERS),
    (TruncatedSVD(2), NUMBERS),
    (PolynomialFeatures(), NUMBERS),
    (PolynomialFeatures(3, include_bias=False), NUMBERS),
    (PolynomialFeatures(3, interaction_only=True), NUMBERS),
    (PolynomialFeatures((2, 3)), NUMBERS),
    (PolynomialFeatures((0, 1)), NUMBERS),
    (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), TEXT_GAPS),
    (make_pipeline("passthrough", StandardScaler(), PolynomialFeatures()), NUMBERS),
    (FeatureUnion([("s", StandardScaler()), ("b", Binarizer()), ("no", "drop"), ("p", "passthrough")]), NUMBERS),
    (FeatureUnion([("i", SimpleImputer()), ("m", MissingIndicator())], transformer_weights={"i": 0.5}), GAPS),
    (ColumnTransformer([("s", StandardScaler(), [2, 0]), ("o", OneHotEncoder(), slice(3, 4))]), CODES),
    (
        ColumnTransformer(
            [("s", StandardScaler(), [False, True, False, False]), ("no", "drop", [0])], remainder="passthrough"
        ),
        NUMBERS,
    ),
    (
        ColumnTransformer(
            [("s", MinMaxScaler(), [1]), ("none", StandardScaler(), [])], remainder=RobustScaler()
        ).set_params(transformer_weights={"s": 3}),
        NUMBERS,
    ),
]


def fitted(estimator: Any, table: Any, y: Any) -> tuple[Any, Transform]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without a value
        estimator.fit(table, y)
    return estimator, transform_of(estimator, Source(table.shape[1]))


def dense(estimator: Any, table: Any) -> Any:
    """Return what the original makes of a table, None if it refuses it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            made = estimator.transform(table.copy())
        except (TypeError, ValueError):
            return None
    return made.toarray() if hasattr(made, "toarray") else made


def lean(transform: Transform, table: Any) -> Any:
    """Return the same of the lean form, None if it leaves the table to the original; the table stays as it is."""
    before = table.tolist()
    with np.errstate(all="ignore"):
        try:
            return transform.apply(table)
        except LeftToOriginal:
            return None
        finally:
            assert repr(table.tolist()) == repr(before)


def same(made: Any, wanted: Any) -> bool:
    if wanted is None or made.shape != wanted.shape or made.dtype != wanted.dtype:
        return False
    return all(
        one == other
        or (one != one and other != other)
        # Versions of scipy differ in what they make of denormal numbers.
        or (type(one) is float and abs(one - other) < max(1e-12 * abs(other), 1e-300))
        for one, other in zip(made.ravel().tolist(), wanted.ravel().tolist(), strict=True)
    )


@pytest.mark.parametrize(("estimator", "table"), CASES, ids=lambda value: str(value)[:60].replace("\n", ""))
def test_a_lean_transformer_agrees_with_its_original(estimator: Any, table: Any) -> None:
    estimator, transform = fitted(estimator, table, TWO)
    chance = np.random.default_rng(0)
    for rows in (table[:1], table[:64]):
        assert same(lean(transform, rows), dense(estimator, rows))
    values = transform.values([[] for _ in range(transform.width)])
    for _ in range(60):
        cells = [column[chance.integers(len(column))] if column else 0.0 for column in values]
        check(estimator, transform, cells, table.dtype)
    for _ in range(60):
        cells = table[chance.integers(len(table))].tolist()
        cells[chance.integers(4)] = ODD[chance.integers(len(ODD))]
        numeric = all(isinstance(cell, float) for cell in cells)
        check(estimator, transform, cells, np.dtype(np.float64 if numeric else object))


def check(estimator: Any, transform: Transform, cells: list[Any], dtype: np.dtype[Any]) -> None:
    row = np.empty((1, len(cells)), dtype)
    row[0] = cells
    made = lean(transform, row)
    assert made is None or same(made, dense(estimator, row)), cells


def test_a_target_encoder_gives_a_number_for_each_of_three_classes() -> None:
    estimator, transform = fitted(TargetEncoder(), TEXTS, THREE)
    assert transform.width == 12
    assert same(lean(transform, TEXTS[:20]), dense(estimator, TEXTS[:20]))


def test_a_one_hot_table_that_would_be_huge_is_left_to_the_original() -> None:
    words = np.array([[f"word {number}"] for number in range(3000)], object)
    _, transform = fitted(OneHotEncoder(), words, None)
    assert lean(transform, words[:1]).shape == (1, 3000)
    assert lean(transform, words) is None


class Shifted(StandardScaler):  # type: ignore[misc]
    """A scaler that is none."""

    def transform(self, X: Any) -> Any:
        return super().transform(X) + 1


@pytest.mark.parametrize(
    "estimator",
    [
        Shifted().fit(NUMBERS),
        StandardScaler().set_output(transform="pandas").fit(NUMBERS),
        OneHotEncoder(dtype=np.float32).fit(CODES),
        FunctionTransformer(lambda table: table + 1).fit(NUMBERS),
        FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1}).fit(NUMBERS),
        SimpleImputer(missing_values="", strategy="constant").fit(TEXTS),
        StandardScaler(),
    ],
    ids=lambda estimator: str(estimator)[:40],
)
def test_what_is_not_known_exactly_has_no_lean_form(estimator: Any) -> None:
    with pytest.raises(NotLean):
        transform_of(estimator, Source(4))

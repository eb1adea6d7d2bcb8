"""What acceleration makes of one prediction: `python -m benchmarks.acceleration [NAME ...]`.

Loads each model as the plugin does, and times the plugin's own predict and the accelerated one in turn, for one
row and for 64; the fastest of all calls counts, since what else the machine does makes single ones slow, never fast.
Prints a table; KiB are what glibc handed out for the lean form. Run it with OMP_NUM_THREADS=1, as workers are.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn
import manymodels_xgboost
import numpy as np
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from manymodels import Artifact, Context, LeftToOriginal, ModelSettings

ROWS = 64
#: Seconds for each figure.
SECONDS = 0.3

_random = np.random.default_rng(0)
_table = _random.normal(size=(2000, 10))
_labels = (_table[:, 0] + _table[:, 1] ** 2 > 1).astype(int)
_frame = pd.DataFrame(_table, columns=[f"n{number}" for number in range(10)]).assign(
    color=_random.choice(["red", "green", "blue", "white"], 2000), size=_random.choice(["S", "M", "L"], 2000)
)
_bins = np.digitize(_table[:, 0], [-1.0, -0.3, 0.3, 1.0])
_texts = ["color", "size"]
_words = np.array(["".join(_random.choice(list("aeioulmnrst"), length)) for length in _random.integers(3, 9, 5000)])
_documents = np.array([" ".join(_words[_random.zipf(1.3, 60) % 5000]) for _ in range(2000)], object)


def _mixed(encoder: Any, last: Any) -> Any:
    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numeric, list(_frame.columns[:10])), (encoder, _texts))
    return make_pipeline(columns, last).fit(_frame, _labels)


def _one_hot() -> Any:
    return make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))


def _codes() -> Any:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


MODELS: dict[str, Callable[[], Any]] = {
    "LinearRegression": lambda: LinearRegression().fit(_table, _labels),
    "LogisticRegression": lambda: LogisticRegression().fit(_table, _labels),
    "GaussianNB": lambda: GaussianNB().fit(_table, _labels),
    "RandomForest(100)": lambda: RandomForestClassifier(random_state=0).fit(_table, _labels),
    "GradientBoosting(100)": lambda: GradientBoostingClassifier(random_state=0).fit(_table, _labels),
    "HistGradientBoosting(100)": lambda: HistGradientBoostingClassifier(random_state=0).fit(_table, _labels),
    "HistGradientBoosting(100), categories": lambda: HistGradientBoostingClassifier(
        random_state=0, categorical_features="from_dtype"
    ).fit(_frame.astype(dict.fromkeys(_texts, "category")), _labels),
    "RandomForest(100), 3 outputs": lambda: RandomForestRegressor(random_state=0).fit(_table, _table[:, :3] ** 2),
    "IsolationForest(100)": lambda: IsolationForest(random_state=0).fit(_table),
    "XGBoost(100)": lambda: xgboost.XGBClassifier(n_jobs=1).fit(_table, _labels),
    "scaler, logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(_table, _labels),
    "imputer, polynomial, ridge": lambda: make_pipeline(SimpleImputer(), PolynomialFeatures(2), Ridge()).fit(
        _table, _labels
    ),
    "columns (scaled, one-hot), logistic": lambda: _mixed(_one_hot(), LogisticRegression()),
    "columns (scaled, ordinal), random forest": lambda: _mixed(_codes(), RandomForestClassifier(random_state=0)),
    "columns (scaled, ordinal), gradient boosting": lambda: _mixed(_codes(), GradientBoostingClassifier()),
    "AdaBoost(50)": lambda: AdaBoostClassifier(random_state=0).fit(_table, _labels),
    "Bagging(10)": lambda: BaggingClassifier(random_state=0).fit(_table, _labels),
    "5 outputs, ridge": lambda: MultiOutputRegressor(Ridge()).fit(_table, _table[:, :5] ** 2),
    "5 neighbours": lambda: KNeighborsClassifier().fit(_table, _labels),
    "scaler, SVC": lambda: make_pipeline(StandardScaler(), SVC()).fit(_table[:500], _labels[:500]),
    "calibrated by steps, logistic": lambda: CalibratedClassifierCV(LogisticRegression(), method="isotonic").fit(
        _table, _labels
    ),
    "calibrated, linear SVC": lambda: CalibratedClassifierCV(LinearSVC()).fit(_table, _labels),
    "one against the rest, logistic": lambda: OneVsRestClassifier(LogisticRegression()).fit(_table, _bins),
    "tf-idf, logistic": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(_documents, _labels),
    "tf-idf of letters, linear SVC": lambda: make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LinearSVC()
    ).fit(_documents, _labels),
    "hashes, SGD": lambda: make_pipeline(HashingVectorizer(), SGDClassifier()).fit(_documents, _labels),
}


class _Mallinfo(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def handed_out() -> int:
    """Return the bytes that glibc's allocator has handed out, those of arrays included."""
    gc.collect()
    call = ctypes.CDLL(None).mallinfo2
    call.restype = _Mallinfo
    info = call()
    return int(info.uordblks + info.hblkhd)


def row(name: str, estimator: Any) -> str:
    """Return a model's line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(estimator, Path(folder) / "model.joblib")
        plugin: Any = manymodels_xgboost if isinstance(estimator, xgboost.XGBModel) else manymodels_sklearn
        context = Context("m", folder, settings=ModelSettings(), options={})
        model = plugin.load(Artifact(Path(folder)), context)
        source = _frame.to_numpy(dtype=object) if getattr(model, "needs_frame", False) else _table
        source = _documents if getattr(model, "takes_documents", False) else source
        if isinstance(estimator, xgboost.XGBModel):
            source = source.astype(np.float32)
    before, start = handed_out(), time.perf_counter()
    offer = plugin.accelerate(model)
    made = time.perf_counter() - start
    if offer is None:
        return f"| {name} | no lean form |"
    offer = replace(offer, probes=())
    memory = handed_out() - before
    cells = []
    for table in (source[:1], source[:ROWS]):
        try:
            offer.predict(table)
        except LeftToOriginal as error:
            return f"| {name} | left to the original: {error} |"
        original, accelerated = times(lambda: plugin.predict_fn(table, model), lambda: offer.predict(table))  # noqa: B023
        cells += [f"{original:,.0f}", f"{accelerated:,.0f}", f"{original / accelerated:,.0f}"]
    return f"| {name} | {offer.name} | {' | '.join(cells)} | {made * 1e3:,.0f} | {memory / 1024:,.0f} |"


def times(*functions: Callable[[], Any]) -> list[float]:
    """Return the fewest microseconds that each function took, called in turn."""
    taken: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + SECONDS * len(functions)
    while time.perf_counter() < end or len(taken[0]) < 5:
        for function, measured in zip(functions, taken, strict=True):
            start = time.perf_counter()
            function()
            measured.append(time.perf_counter() - start)
    return [min(measured) * 1e6 for measured in taken]


def main() -> None:
    """Print the table."""
    print("| model | by | 1 row, us | accelerated | times | 64 rows, us | accelerated | times | made in, ms | KiB |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in sys.argv[1:] or MODELS:
        print(row(name, MODELS[name]()), flush=True)


if __name__ == "__main__":
    main()

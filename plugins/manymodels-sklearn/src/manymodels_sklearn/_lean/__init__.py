"""Fitted estimators in lean form: the arithmetic alone, the same numbers, a small part of the time.

`base.py` has the forms; the other modules fill its registries, one kind of estimator each.
"""

from __future__ import annotations

from . import (
    bayes,
    clusters,
    columns,
    encode,
    features,
    histograms,
    impute,
    kernels,
    linear,
    neighbors,
    pipeline,
    scale,
    several,
    sparse,
    texts,
    trees,
    vote,
)
from .base import NotLean, Predictor, Source, predictor_of
from .probes import rows

__all__ = [
    "NotLean",
    "Predictor",
    "Source",
    "bayes",
    "clusters",
    "columns",
    "encode",
    "features",
    "histograms",
    "impute",
    "kernels",
    "linear",
    "neighbors",
    "pipeline",
    "predictor_of",
    "rows",
    "scale",
    "several",
    "sparse",
    "texts",
    "trees",
    "vote",
]

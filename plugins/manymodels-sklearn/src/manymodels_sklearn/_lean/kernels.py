"""Support vector machines with kernels: the compiled code of scikit-learn itself, without the checks around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import NotLean, Predictor, Source, predictor
from .cells import Array, packed
from .linear import around


def _checked(model: Any) -> None:
    if model._sparse or callable(model.kernel) or model.kernel == "precomputed":
        raise NotLean("a kernel of one's own, or trained on sparse rows")
    if int(model.n_support_.sum()) != len(model.support_vectors_):  # the compiled code would read beyond them
        raise NotLean("another number of support vectors than it says")


@predictor("NuSVR", "SVR")
def _regressor(model: Any, source: Source) -> Predictor:
    _checked(model)
    return Predictor("lean kernel", packed, model._dense_predict, None, around(model.support_vectors_, source))


@predictor("NuSVC", "SVC")
def _classifier(model: Any, source: Source) -> Predictor:
    from sklearn.utils.multiclass import _ovr_decision_function

    _checked(model)
    classes = np.asarray(model.classes_)
    if model.break_ties and len(classes) > 2:
        raise NotLean("break_ties")

    def predict(table: Array) -> Array:
        labels: Array = classes.take(model._dense_predict(table).astype(np.intp))
        return labels

    def decision(table: Array) -> Array:
        scores: Array = model._dense_decision_function(table)
        if len(classes) == 2:
            return -scores.ravel()
        if model.decision_function_shape == "ovr":
            by_class: Array = _ovr_decision_function(scores < 0, -scores, len(classes))
            return by_class
        return scores

    shares = model._dense_predict_proba if hasattr(model, "predict_proba") else None
    return Predictor("lean kernel", packed, predict, shares, around(model.support_vectors_, source), decision)

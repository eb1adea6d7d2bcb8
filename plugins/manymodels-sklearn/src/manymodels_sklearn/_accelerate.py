"""The lean form of an estimator as the platform takes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from manymodels import Accelerated, LeftToOriginal

from ._input import Detailed
from ._lean import NotLean, Source, predictor_of, rows
from ._predict import DetailedPrediction, by_row

if TYPE_CHECKING:
    from ._model import SklearnModel

logger = logging.getLogger(__name__)

#: Rows of a probe: as many as joined requests have, and few enough that a request which comes meanwhile waits no longer
#: than for those.
_JOINED = 64


def accelerate(model: SklearnModel) -> Accelerated | None:
    """Return the lean form of the model's estimator, None if it has none."""
    texts = model.takes_documents
    if model.width is None and not texts:
        return None
    width = 1 if model.width is None else model.width
    try:
        source = Source(width, form="texts") if texts else Source(width, model.needs_frame)
        lean = predictor_of(model.estimator, source)
    except NotLean as error:
        logger.debug("not accelerated: %s", error)
        return None
    # The original has probabilities which this form has not.
    lacking = lean.predict_proba is None and hasattr(model.estimator, "predict_proba")

    def predict(data: Any) -> Any:
        detailed = isinstance(data, Detailed)
        table = data.table if detailed else data
        if texts and type(table) is np.ndarray:
            table = table[:, np.newaxis]
        if type(table) is not np.ndarray or table.ndim != 2 or table.shape[1] != width or (detailed and lacking):
            raise LeftToOriginal("no table of the model's width")
        prepared = lean.prepare(table)
        predictions = lean.predict(prepared)
        if not detailed:
            return predictions
        answer = DetailedPrediction(predictions=predictions)
        if lean.predict_proba is not None:
            answer["probabilities"] = by_row(lean.predict_proba(prepared))
        answer["model_metadata"] = model.metadata
        return answer

    if texts:
        documents = np.array(lean.values()[0], object)
        return Accelerated(lean.name, predict, [documents[:1], Detailed(documents), documents[:_JOINED]])
    tables = rows(lean.values(), lean.prepare)
    if tables is None:
        logger.debug("not accelerated: no rows to compare by")
        return None
    each, mixed = tables
    pieces = [Detailed(table[at : at + _JOINED]) for table in tables for at in range(0, len(table), _JOINED)]
    return Accelerated(lean.name, predict, [each[:1], *pieces, mixed[:_JOINED]])

"""Predictions, and the two forms they are answered in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manymodels import RowBatch, codecs
from manymodels.errors import BadInput

from ._frame import as_trained
from ._input import Detailed

if TYPE_CHECKING:
    from ._model import SklearnModel

#: Longest text of an estimator's error that a client is shown.
_LONGEST = 300
_HEADER = "; if the first row is a header, say so: Content-Type: text/csv; header=present"


class DetailedPrediction(dict[str, Any]):
    """``predictions``, ``probabilities`` where the model has them, and ``model_metadata``."""


def predict(data: Any, model: SklearnModel) -> Any:
    """Predict the rows.

    :raises BadInput: if the estimator refuses them.
    """
    estimator = model.estimator
    try:
        table = as_trained(data.table if isinstance(data, Detailed) else data, model)
        predictions = estimator.predict(table)
        if not isinstance(data, Detailed):
            return predictions
        answer = DetailedPrediction(predictions=predictions)
        if hasattr(estimator, "predict_proba"):
            answer["probabilities"] = by_row(estimator.predict_proba(table))
    except (TypeError, ValueError) as error:
        from sklearn.exceptions import NotFittedError

        if isinstance(error, NotFittedError):  # a ValueError, but no fault of the data
            raise
        text = str(error).strip() or type(error).__name__
        hint = _HEADER if _headed(data.table if isinstance(data, Detailed) else data) else ""
        raise BadInput(f"the model refuses the data: {text.splitlines()[0][:_LONGEST]}{hint}") from error
    answer["model_metadata"] = model.metadata
    return answer


def _headed(table: Any) -> bool:
    """Say whether rows look like those of a CSV file whose header was taken for one of them."""
    if not isinstance(table, np.ndarray) or table.dtype != np.object_ or table.ndim != 2 or len(table) < 2:
        return False
    return not any(map(_is_number, table[0])) and all(map(_is_number, table[1]))


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def by_row(probabilities: Any) -> Any:
    """Turn the arrays of a model of many outputs, one for each output, into a list for each row."""
    if not isinstance(probabilities, list):
        return probabilities
    return [list(row) for row in zip(*(np.asarray(output).tolist() for output in probabilities), strict=True)]


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Encode the prediction; formats other than JSON carry the predictions alone."""
    if not isinstance(prediction, DetailedPrediction):
        return codecs.encode(prediction, accept)
    body, content_type = codecs.encode(prediction["predictions"], accept)
    return codecs.encode(prediction, accept) if content_type == "application/json" else (body, content_type)


class FormBatch(RowBatch):
    """Joins the rows of requests that are answered in the same form."""

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        """Stack the rows; None if the requests differ in form, kind, width or dtype."""
        detailed = isinstance(data[0], Detailed)
        if any(isinstance(item, Detailed) is not detailed for item in data):
            return None
        tables = [item.table if detailed else item for item in data]
        if all(isinstance(table, np.ndarray) and table.ndim == 1 for table in tables):  # texts
            return self._form(np.concatenate(tables), [len(table) for table in tables], detailed)
        joined = super().join(tables)
        return joined and self._form(*joined, detailed)

    def _form(self, table: Any, counts: list[int], detailed: bool) -> tuple[Any, list[int]]:
        return (Detailed(table) if detailed else table), counts

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        """Cut the prediction by rows, each share in the form of the whole."""
        if not isinstance(prediction, DetailedPrediction):
            return super().split(prediction, counts)
        by_row = {key: value for key, value in prediction.items() if key != "model_metadata"}
        shares = {key: super(FormBatch, self).split(value, counts) for key, value in by_row.items()}
        return [
            DetailedPrediction(
                {key: share[index] for key, share in shares.items()}, model_metadata=prediction["model_metadata"]
            )
            for index in range(len(counts))
        ]

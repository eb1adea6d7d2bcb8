"""Predictions to replies, in the forms of SageMaker's XGBoost container (algorithm mode)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manymodels import codecs

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
RECORDS = "application/x-recordio-protobuf"

_CLASS = ("predicted_label", "labels")
_PROBABILITY = ("probability", "probabilities")
_RAW = ("raw_score", "raw_scores")
# The raw output of multi:softmax is the label itself, so it has no scores.
_SELECTABLE = {
    "binary:logistic": (*_CLASS, *_PROBABILITY, *_RAW),
    "binary:logitraw": (*_CLASS, *_RAW),
    "binary:hinge": (*_CLASS, *_RAW),
    "multi:softmax": _CLASS,
    "multi:softprob": (*_CLASS, *_PROBABILITY, *_RAW),
}


def selectable(objective: str) -> tuple[str, ...]:
    """Return the keys of selectable output that models of this objective can answer with."""
    return _SELECTABLE.get(objective, ("predicted_score",))


def select(raw: npt.NDArray[Any], keys: Sequence[str], objective: str, num_class: int) -> list[dict[str, Any]]:
    """Return one dict per row of raw predictions, with the keys in their order."""
    columns = [_values(key, raw, objective, num_class) for key in keys]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(key: str, raw: npt.NDArray[Any], objective: str, num_class: int) -> list[Any]:
    multi = raw.ndim == 2
    values = raw
    if key == "labels":
        return [list(range(max(num_class, 2)))] * len(raw)
    if key == "predicted_label":
        if objective == "multi:softprob":
            values = raw.argmax(axis=1)
        elif objective in ("binary:logistic", "binary:logitraw"):
            values = (raw > (0.5 if objective == "binary:logistic" else 0)).astype(int)
    elif key in ("probability", "raw_score") and multi:
        values = raw.max(axis=1)
    elif key in ("probabilities", "raw_scores") and not multi:
        one = raw.astype(np.float64)
        values = np.column_stack([1 - one, one])
    rows: list[Any] = values.tolist()
    return rows


def encode(
    prediction: npt.NDArray[Any] | list[dict[str, Any]], accept: str, *, multi_model: bool, batch: bool
) -> tuple[bytes, str]:
    """Encode a prediction by the Accept header.

    :param prediction: one value or vector per row, or one dict per row from `select`.
    :param multi_model: whether JSON without selected output is a bare list, as the container's is then.
    :param batch: whether answers are put one behind the other into a file: then each row of CSV is a line.
    :raises UnsupportedAccept: if none of the accepted types is offered.
    """
    body, kind = _encoded(prediction, accept, multi_model=multi_model, batch=batch)
    if batch and kind == CSV and not body.endswith(b"\n"):
        body += b"\n"
    return body, kind


def _encoded(
    prediction: npt.NDArray[Any] | list[dict[str, Any]], accept: str, *, multi_model: bool, batch: bool
) -> tuple[bytes, str]:
    if isinstance(prediction, list):
        kind = codecs.choose(accept, (JSON, JSON_LINES, CSV, RECORDS))
        if kind == CSV:
            return _csv_records(prediction), CSV
        if kind == RECORDS:  # labels, too, are float32 there
            return codecs.encode([{key: np.float32(value) for key, value in row.items()} for row in prediction], kind)
        return _records(prediction, kind)
    kind = codecs.choose(accept, (JSON, JSON_LINES, CSV, NPY, RECORDS))
    if kind in (NPY, RECORDS):
        return codecs.encode(prediction, kind)
    # As the container does: float32 widened, so that replies are the same to the last digit.
    scores = prediction.tolist()
    if kind == CSV and prediction.ndim == 1 and not batch:
        # One line for all rows: what the container's clients split.
        return ",".join(map(str, scores)).encode(), CSV
    if kind == JSON_LINES or (kind == JSON and not multi_model):
        return _records([{"score": score} for score in scores], kind)
    return codecs.encode(scores, kind)


def _records(records: list[dict[str, Any]], kind: str) -> tuple[bytes, str]:
    return codecs.encode({"predictions": records} if kind == JSON else records, kind)


def _csv_records(records: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(record.values() for record in records)
    return out.getvalue().removesuffix("\n").encode()

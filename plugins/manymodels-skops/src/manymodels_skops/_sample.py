"""A sample artifact, for whoever checks the plugin."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from manymodels import Golden

_METADATA = {"owner": "sample"}


def write(path: Path) -> Sequence[Golden]:
    """Write a scaled logistic regression with metadata, and return requests with scikit-learn's own answers."""
    random = np.random.default_rng(0)
    table = random.normal(size=(200, 3))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, (table.sum(axis=1) > 0).astype(int))
    skops.io.dump(model, path / "model.skops")
    (path / "metadata.json").write_text(json.dumps(_METADATA))

    rows = table[:4].round(3)
    labels = model.predict(rows)
    json_rows, json_labels = json.dumps(rows.tolist()).encode(), json.dumps(labels.tolist()).encode()
    lines = "".join(f"{row.tolist()}\n" for row in rows).encode()
    csv = "".join(",".join(map(str, row.tolist())) + "\n" for row in rows).encode()
    detailed = {
        "predictions": labels.tolist(),
        "probabilities": model.predict_proba(rows).tolist(),
        "model_metadata": _METADATA,
    }
    column = "".join(f"{label}\n" for label in labels.tolist()).encode()
    return (
        Golden(body=json_rows, answer=json_labels),
        Golden(body=b'{"instances": %s}' % json_rows, answer=json_labels),
        Golden(body=b'{"features": %s}' % json_rows, answer=json.dumps(detailed).encode()),
        Golden(body=csv, content_type="text/csv", accept="text/csv", answer=column, answer_content_type="text/csv"),
        Golden(
            body=lines,
            content_type="application/jsonlines",
            accept="application/jsonlines",
            answer=column,
            answer_content_type="application/jsonlines",
        ),
        Golden(
            body=_npy(rows),
            content_type="application/x-npy",
            accept="application/x-npy",
            answer=_npy(labels),
            answer_content_type="application/x-npy",
        ),
    )


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()

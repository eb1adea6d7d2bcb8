"""The sample that the plugin is checked with: a classifier of flowers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from manymodels import Golden

_METADATA = {"owner": "botany"}


def write(path: Path) -> list[Golden]:
    """Write ``model.joblib`` and ``metadata.json``; return requests in every form the plugin reads and writes."""
    import joblib
    from scipy.sparse import csr_matrix, save_npz
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    flowers, kinds = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(flowers, kinds)
    joblib.dump(model, path / "model.joblib")
    (path / "metadata.json").write_text(json.dumps(_METADATA))

    rows = flowers[[0, 70, 140]]
    listed, labels = rows.tolist(), model.predict(rows).tolist()
    plain = _json(labels)
    detailed = {"predictions": labels, "probabilities": model.predict_proba(rows).tolist(), "model_metadata": _METADATA}
    dense, sparse = io.BytesIO(), io.BytesIO()
    np.save(dense, rows)
    save_npz(sparse, csr_matrix(rows))
    table = "".join(",".join(map(str, row)) + "\n" for row in listed).encode()
    lines = "".join(json.dumps(row) + "\n" for row in listed).encode()
    indexed = "".join(f"0 {' '.join(f'{n}:{value}' for n, value in enumerate(row))}\n" for row in listed).encode()
    return [
        Golden(body=_json(listed[:1]), answer=_json(labels[:1])),
        Golden(body=_json(listed), answer=plain),
        Golden(body=_json({"features": listed}), answer=_json(detailed)),
        Golden(body=lines, content_type="application/jsonlines", answer=plain),
        Golden(body=table, content_type="text/csv", answer=plain),
        Golden(body=dense.getvalue(), content_type="application/x-npy", answer=plain),
        Golden(body=sparse.getvalue(), content_type="application/x-npz", answer=plain),
        Golden(body=indexed, content_type="text/libsvm", answer=plain),
        Golden(
            body=_json(listed),
            accept="text/csv",
            answer="".join(f"{label}\n" for label in labels).encode(),
            answer_content_type="text/csv",
        ),
    ]


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()

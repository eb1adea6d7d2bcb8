"""The sample that the plugin is checked with: a regression of a sum."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from scipy.sparse import csr_matrix, save_npz

from manymodels import Golden


def write(path: Path) -> list[Golden]:
    """Write ``model.ubj``; return requests in every form the plugin reads and writes."""
    rows = np.random.default_rng(0).uniform(1.0, 2.0, (200, 3)).astype(np.float32)
    parameters = {"objective": "reg:squarederror", "max_depth": 3, "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, rows.sum(axis=1)), 20)
    booster.save_model(path / "model.ubj")

    asked = rows[:3]
    scores = booster.predict(xgboost.DMatrix(asked, nthread=1)).tolist()
    listed, plain = asked.tolist(), _json(scores)
    dense, sparse = io.BytesIO(), io.BytesIO()
    np.save(dense, asked)
    save_npz(sparse, csr_matrix(asked))
    table = "".join(",".join(map(str, row)) + "\n" for row in listed).encode()
    lines = "".join(json.dumps(row) + "\n" for row in listed).encode()
    indexed = "".join(f"0 {' '.join(f'{n}:{value}' for n, value in enumerate(row))}\n" for row in listed).encode()
    return [
        Golden(body=_json(listed[:1]), answer=_json(scores[:1])),
        Golden(body=_json({"features": listed}), answer=plain),
        Golden(body=lines, content_type="application/jsonlines", answer=plain),
        Golden(body=table, content_type="text/csv", answer=plain),
        Golden(body=dense.getvalue(), content_type="application/x-npy", answer=plain),
        Golden(body=sparse.getvalue(), content_type="application/x-npz", answer=plain),
        Golden(body=indexed, content_type="text/libsvm", answer=plain),
        Golden(
            body=_json(listed),
            accept="text/csv",
            answer=",".join(map(str, scores)).encode(),
            answer_content_type="text/csv",
        ),
    ]


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()

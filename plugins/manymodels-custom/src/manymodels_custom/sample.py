"""The sample that the plugin is checked with: a script that adds up numbers and their weights."""

from __future__ import annotations

from pathlib import Path

from manymodels import Golden

_SCRIPT = '''"""A linear model in JSON, with no framework."""

import json
from pathlib import Path

from manymodels.errors import BadInput, UnsupportedContentType


def model_fn(model_dir):
    return json.loads(Path(model_dir, "weights.json").read_text())


def input_fn(input_data, content_type):
    try:
        if content_type == "text/csv":
            rows = [[float(cell) for cell in line.split(",")] for line in input_data.splitlines()]
        elif content_type == "application/json":
            rows = [[float(cell) for cell in row] for row in json.loads(input_data)]
        else:
            raise UnsupportedContentType(f"send application/json or text/csv, not {content_type}")
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise BadInput(f"send rows of numbers: {error}") from error
    return rows


def predict_fn(data, model):
    if any(len(row) != len(model) for row in data):
        raise BadInput(f"the model takes rows of {len(model)} numbers")
    return [sum(number * weight for number, weight in zip(row, model)) for row in data]


def output_fn(prediction, accept):
    if accept == "text/event-stream":
        return (f"data: {number}\\n\\n" for number in prediction), accept
    return prediction, accept
'''


def write(path: Path) -> list[Golden]:
    """Write ``code/inference.py`` and what it reads; return requests in the forms that it reads."""
    (path / "code").mkdir()
    (path / "code" / "inference.py").write_text(_SCRIPT)
    (path / "weights.json").write_text("[10, 2.5]")
    return [
        Golden(body=b"[[1, 2]]", answer=b"[15.0]"),
        Golden(body=b"[[1, 2], [0, 4]]", answer=b"[15.0, 10.0]"),
        Golden(body=b"1,2\n0,4\n", content_type="text/csv", answer=b"[15.0, 10.0]"),
        Golden(body=b"[[1, 2]]", accept="text/csv", answer=b"15.0\n", answer_content_type="text/csv"),
        Golden(
            body=b"[[1, 2], [0, 4]]",
            accept="text/event-stream",
            answer=b"data: 15.0\n\ndata: 10.0\n\n",
            answer_content_type="text/event-stream",
        ),
    ]

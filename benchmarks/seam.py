"""What the platform costs a worker per invocation: ``python -m benchmarks.seam``.

A one-row JSON request to a LogisticRegression, in this process: the bare calls, and the same through the
hooks of a loaded `Model`, by the original predictor and by the faster one.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import orjson
from sklearn.linear_model import LogisticRegression

from manymodels import Artifact, ModelSettings, Plugins
from manymodels.invocation import Invocation
from manymodels.model import Model

BODY = b"[[0.1, 0.2, 0.3, 0.4]]"
ROUNDS = 9
CALLS = 500


def main() -> None:
    """Print a line for each way to answer."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    estimator = LogisticRegression().fit(rows, rows[:, 0] > 0)
    plugins, settings = Plugins.installed(), ModelSettings()
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(estimator, Path(folder, "model.joblib"))
        artifact = Artifact(Path(folder), "seam")
        binding = plugins.bind(artifact, settings)
        original, faster = (Model(artifact, binding, plugins, settings) for _ in range(2))
    for _ in faster.accelerate():
        pass
    invocations = [Invocation(BODY, "application/json")]
    coefficients, intercept, classes = estimator.coef_.T.copy(), estimator.intercept_, estimator.classes_

    def bare() -> bytes:
        return orjson.dumps(estimator.predict(np.array(orjson.loads(BODY))), option=orjson.OPT_SERIALIZE_NUMPY)

    def lean() -> bytes:
        scores = np.array(orjson.loads(BODY)) @ coefficients + intercept
        return orjson.dumps(classes[(scores[:, 0] > 0).astype(int)], option=orjson.OPT_SERIALIZE_NUMPY)

    ways: dict[str, Callable[[], object]] = {
        "decode, predict, encode": bare,
        "the same through a Model": lambda: original.invoke(invocations),
        "decode, X @ coef, encode": lean,
        f"through a Model ({faster.predictor and faster.predictor.name})": lambda: faster.invoke(invocations),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, call in ways.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - start) / CALLS * 1e6)
    for name, values in times.items():
        print(f"{name:40} {statistics.median(values):7.1f} us  (best {min(values):.1f})")


if __name__ == "__main__":
    main()

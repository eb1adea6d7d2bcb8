"""What the platform costs a worker per invocation: ``python -m benchmarks.seam``.

A one-row JSON request to a LogisticRegression, in this process: the bare calls, and the same through the
hooks of a loaded `Model`, by the original predictor and by the faster one. The seam is what the last takes
beyond the bare arithmetic. The best of many short rounds counts: whatever else the machine does makes some
slower, and none faster.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
from sklearn.linear_model import LogisticRegression

from manymodels import Artifact, ModelSettings, Plugins, hookimpl
from manymodels.invocation import Invocation
from manymodels.model import Model

BODY = b"[[0.1, 0.2, 0.3, 0.4]]"
ROUNDS = 200
CALLS = 100


class Observer:
    """Watches predictions, as plugins for logging do."""

    @hookimpl(wrapper=True)
    def predict_fn(self) -> Generator[None, Any, Any]:
        """Look at nothing."""
        return (yield)


def main() -> None:
    """Print a line for each way to answer."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    estimator = LogisticRegression().fit(rows, rows[:, 0] > 0)
    plugins, settings = Plugins.installed(), ModelSettings()
    watched = Plugins.installed()
    watched.register(Observer(), "observer")
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(estimator, Path(folder, "model.joblib"))
        artifact = Artifact(Path(folder), "seam")
        binding = plugins.bind(artifact, settings)
        original, faster = (Model(artifact, binding, plugins, settings) for _ in range(2))
        wrapped = Model(artifact, binding, watched, settings)
    for model in (faster, wrapped):
        for _ in model.accelerate():
            pass
    invocations = [Invocation(BODY, "application/json")]
    coefficients, intercept, classes = estimator.coef_.T.copy(), estimator.intercept_, estimator.classes_

    def bare() -> bytes:
        return orjson.dumps(estimator.predict(np.array(orjson.loads(BODY))), option=orjson.OPT_SERIALIZE_NUMPY)

    def lean() -> bytes:
        scores = np.array(orjson.loads(BODY)) @ coefficients + intercept
        return orjson.dumps(classes[(scores[:, 0] > 0).astype(int)], option=orjson.OPT_SERIALIZE_NUMPY)

    name = faster.predictor and faster.predictor.name
    ways: dict[str, Callable[[], object]] = {
        "decode, predict, encode": bare,
        "the same through a Model": lambda: original.invoke(invocations),
        "decode, X @ coef, encode": lean,
        f"through a Model ({name})": lambda: faster.invoke(invocations),
        "the same with a wrapper of predict_fn": lambda: wrapped.invoke(invocations),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, call in ways.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[way].append((time.perf_counter() - start) / CALLS * 1e6)
    for way, values in times.items():
        print(f"{way:40} {min(values):7.1f} us")
    _, _, least, through, _ = (min(values) for values in times.values())
    print(f"{'the seam':40} {through - least:7.1f} us")


if __name__ == "__main__":
    main()

"""First calls of many models through one server, beside ``joblib.load`` alone.

Trains small scikit-learn models, all different, starts ``manymodels serve`` on them, invokes each
once, checks every answer against the model itself, and prints the memory of the server's process
tree with all models resident.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import joblib
import numpy as np
import psutil
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

ROW = [[0.5, -1.0, 0.25, 2.0, -0.5]]


def train(folder: Path, count: int) -> dict[str, list[int]]:
    """Write `count` different models; return what each predicts for `ROW`."""
    expected = {}
    kinds = [
        lambda seed: LogisticRegression(C=1 + seed),
        lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=1 + seed)),
        lambda seed: DecisionTreeClassifier(max_depth=4, random_state=seed),
        lambda seed: GradientBoostingClassifier(n_estimators=10, max_depth=2, random_state=seed),
    ]
    for number in range(count):
        features, labels = make_classification(n_samples=200, n_features=5, random_state=number)
        model = kinds[number % len(kinds)](number).fit(features, labels)
        path = folder / f"model-{number:05}"
        path.mkdir()
        joblib.dump(model, path / "model.joblib")
        expected[path.name] = model.predict(ROW).tolist()
        if number % 100 == 99:
            print(f"trained {number + 1} of {count}", file=sys.stderr)
    return expected


def load_alone(folder: Path) -> list[float]:
    """Return the seconds that ``joblib.load`` takes for each model, all imports done before."""
    seconds = []
    for path in sorted(folder.iterdir()):
        start = time.perf_counter()
        joblib.load(path / "model.joblib")
        seconds.append(time.perf_counter() - start)
    return seconds


@contextlib.contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run ``manymodels serve`` on a free port; yield its address and process."""
    command = [str(Path(sys.executable).with_name("manymodels")), "serve", *arguments, "--port", "0"]
    environment = {**os.environ, "MANYMODELS_LOG_LEVEL": "warning", **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://[\d.]+:\d+", line):
                    yield found[0], psutil.Process(process.pid)
                    break
            else:
                raise SystemExit("the server ended before it was ready")
        finally:
            process.terminate()


def memory(process: psutil.Process) -> int:
    """Return the proportional set size of a process and its descendants, in bytes."""
    return sum(member.memory_full_info().pss for member in (process, *process.children(recursive=True)))


def machine() -> str:
    """Return what this runs on."""
    return f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors"


def percentile(seconds: list[float], share: float) -> str:
    """Return a percentile, in milliseconds."""
    return f"{np.quantile(seconds, share) * 1e3:.2f}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="how many models (1000)")
    count = parser.parse_args().models
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        expected = train(folder, count)
        alone = load_alone(folder)
        with served(str(folder)) as (url, process), httpx.Client(base_url=url) as client:
            client.get("/ping").raise_for_status()
            before = memory(process)
            first = []
            for name, prediction in expected.items():
                start = time.perf_counter()
                answer = client.post("/invocations", json=ROW, headers={"X-Amzn-SageMaker-Target-Model": name})
                first.append(time.perf_counter() - start)
                if answer.json() != prediction:
                    raise SystemExit(f"{name} answered {answer.text}, not {prediction}")
            again = []
            for name in expected:
                start = time.perf_counter()
                client.post("/invocations", json=ROW, headers={"X-Amzn-SageMaker-Target-Model": name})
                again.append(time.perf_counter() - start)
            resident = sum(1 for _ in models(client))
            after = memory(process)
    print(f"{machine()}\n")
    print(f"| {count} scikit-learn models, one server | |\n|---|--:|")
    print(f"| resident | {resident} |")
    print(f"| memory before the first call, MiB (PSS of the process tree) | {before / 2**20:.0f} |")
    print(f"| memory with all resident, MiB | {after / 2**20:.0f} |")
    print(f"| per model, KiB | {(after - before) / count / 2**10:.0f} |")
    print(f"| `joblib.load` alone, p50 / p99, ms | {percentile(alone, 0.5)} / {percentile(alone, 0.99)} |")
    print(f"| first call, p50 / p99, ms | {percentile(first, 0.5)} / {percentile(first, 0.99)} |")
    print(f"| second call, p50 / p99, ms | {percentile(again, 0.5)} / {percentile(again, 0.99)} |")
    more = statistics.median(first) - statistics.median(alone)
    print(f"| first call beyond `joblib.load`, p50, ms | {more * 1e3:.2f} |")


def models(client: httpx.Client) -> Iterator[str]:
    """Yield the names of the loaded models."""
    token = ""
    while True:
        page = client.get("/models", params={"next_page_token": token}).json()
        yield from (model["modelName"] for model in page["models"])
        if not (token := page.get("nextPageToken", "")):
            return


if __name__ == "__main__":
    main()

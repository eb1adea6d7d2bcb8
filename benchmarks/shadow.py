"""What a shadow costs the clients of the model that serves: p50 and p99 of a name with a shadow, and of one without.

One server, two workers, two models; each name is asked in turn, by clients that wait between their requests and by
clients that do not. The least of all rounds is shown: what else the machine does only adds.

Run it as ``python -m benchmarks.shadow``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from benchmarks.load import Load, Outcome, Plan, Question

BODY = b"[[5.1, 3.5, 1.4, 0.2]]"
NAMES = {"alone": "a", "shadowed": {"serve": "a", "shadow": {"model": "b"}}}
#: Seconds that a client waits after an answer, and clients.
LOADS = {"8 clients, 50 a second each": (0.02, 8), "1 client": (0.0, 1), "8 clients": (0.0, 8)}
#: Seconds for a start on a busy machine.
PATIENCE = 120.0


def request(name: str) -> bytes:
    """Return a request of a name."""
    head = f"X-Amzn-SageMaker-Target-Model: {name}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
    return f"POST /invocations HTTP/1.1\r\nHost: here\r\n{head}\r\n".encode() + BODY


def measure(port: int, name: str, pause: float, clients: int, seconds: float) -> Outcome:
    """Ask a name for some seconds."""
    plan = Plan(port, [Question(request(name), 0.0)], clients, seconds=seconds, pause=pause, where=[0])
    outcome = Load(plan).outcome()
    if outcome.failed or outcome.wrong or outcome.refused:
        raise SystemExit(outcome.first_problem)
    return outcome


def shadowed(url: str) -> tuple[int, int]:
    """Return how many requests the shadow has answered, and how many it was not shown."""
    names = {rule["name"]: rule for rule in httpx.get(f"{url}/names").json()["names"]}
    counts = names["shadowed"]["shadow"]
    if counts["differed"] or counts["failed"]:
        raise SystemExit(counts["last"])
    return counts["agreed"], counts["dropped"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in ("a", "b"):
            Path(folder, "store", model).mkdir(parents=True)
            iris = LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))
            joblib.dump(iris, Path(folder, "store", model, "model.joblib"))
        names = Path(folder, "names.json")
        names.write_text(json.dumps({"names": NAMES}))
        command = ["serve", f"{folder}/store", "--names", str(names), "--workers", "2", "--port", "0"]
        process = subprocess.Popen([sys.executable, "-m", "manymodels", *command], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stdout if line.startswith("listening on"))
            report(url, options.rounds, options.seconds)
        finally:
            process.terminate()
            process.wait()


def report(url: str, rounds: int, seconds: float) -> None:
    """Measure a running server."""
    port = int(url.rpartition(":")[2])
    end = time.monotonic() + PATIENCE
    headers = {"X-Amzn-SageMaker-Target-Model": "shadowed", "Content-Type": "application/json"}
    while httpx.post(f"{url}/invocations", content=BODY, headers=headers).status_code != 200 or not shadowed(url)[0]:
        assert time.monotonic() < end, "the server does not answer"
    print("| load | name | p50 ms | p99 ms | answers/s | of them shown to the shadow |\n|---|---|--:|--:|--:|--:|")
    for load, (pause, clients) in LOADS.items():
        found: dict[str, list[tuple[Outcome, float]]] = {name: [] for name in NAMES}
        for _ in range(rounds):
            for name, outcomes in found.items():
                agreed, dropped = shadowed(url)
                outcome = measure(port, name, pause, clients, seconds)
                shown, kept = (now - before for now, before in zip(shadowed(url), (agreed, dropped), strict=True))
                outcomes.append((outcome, shown / max(1, shown + kept)))
        for name, outcomes in found.items():
            p50, p99 = (min(getattr(outcome, of) for outcome, _ in outcomes) for of in ("p50", "p99"))
            rate, share = max(outcome.rate for outcome, _ in outcomes), min(share for _, share in outcomes)
            print(f"| {load} | {name} | {p50:.2f} | {p99:.2f} | {rate:.0f} | {share:.0%} |")


if __name__ == "__main__":
    main()

"""multi-model-server as our backend, beside stock multi-model-server with sagemaker-inference's handler.

Both have the same artifacts, requests, Java and options of Java, and take turns. Models are loaded by
``POST /models``, invoked once, and stay loaded until the memory of the process tree is read. Then one
server of ours holds `--resident` models at once, all of which have to answer.

Run it as ``python -m benchmarks.mms``: as a script it would hide multi-model-server's package.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import httpx
import joblib
import psutil
from manymodels_mms.java import find_java
from manymodels_mms.settings import load
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.first_call import ROW, machine, memory, models, served, train

KINDS = {
    "LogisticRegression": LogisticRegression(),
    "GradientBoosting(100)": GradientBoostingClassifier(n_estimators=100, random_state=0),
    "RandomForest(100)": RandomForestClassifier(n_estimators=100, random_state=0),
}
#: What sagemaker-inference cannot do without, and finds beside the model only: multi-model-server has that
#: folder on the path, its ``code`` not.
SCRIPT = """
import os
import joblib

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

def predict_fn(data, model):
    return model.predict(data)
"""
#: multi-model-server refuses higher ports.
HIGHEST_PORT = 32766
#: Seconds for a start, or for a load on a busy machine.
PATIENCE = 120.0
CONTAINER = {"SAGEMAKER_MULTI_MODEL": "true", "MANYMODELS_BACKEND": "mms"}


@dataclass
class Side:
    """A model server that is measured."""

    client: httpx.Client
    process: psutil.Process
    seconds: list[float] = field(default_factory=list)

    def load(self, name: str, path: Path) -> None:
        """Load a model from a folder, and note how long it took."""
        start = time.perf_counter()
        reply = self.client.post("/models", json={"model_name": name, "url": str(path)})
        self.seconds.append(time.perf_counter() - start)
        reply.raise_for_status()

    def invoke(self, name: str, expected: list[int]) -> None:
        """Check a prediction."""
        reply = self.client.post(f"/models/{name}/invoke", json=ROW)
        if reply.status_code != 200 or reply.json() != expected:
            raise SystemExit(f"{name} answered {reply.text}, not {expected}")


@contextlib.contextmanager
def ours() -> Iterator[Side]:
    """Run our multi-model container."""
    with served(**CONTAINER) as (url, process), httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield Side(client, process)


@contextlib.contextmanager
def stock(folder: Path) -> Iterator[Side]:
    """Run stock multi-model-server as sagemaker-inference configures it for multi-model endpoints."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    toolkit = resources.files("sagemaker_inference") / "etc"
    properties = folder / "mms.properties"
    properties.write_text(
        f"{(toolkit / 'mme-mms.properties').read_text()}\n"
        f"inference_address={address}\nmanagement_address={address}\nvmargs={load().vmargs}\n"
    )
    command = [str(Path(sys.executable).with_name("multi-model-server")), "--start", "--foreground"]
    command += ["--model-store", "/", "--mms-config", str(properties), "--log-config", str(toolkit / "log4j2.xml")]
    environment = {
        **os.environ,
        "JAVA_HOME": str(find_java().resolve().parents[1]),
        "SAGEMAKER_HANDLER": "sagemaker_inference.default_handler_service",
        "TMPDIR": str(folder),  # where it notes its process id: another may run
    }
    quiet = subprocess.DEVNULL
    with (
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
        subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder, env=environment) as launcher,
    ):
        process = psutil.Process(launcher.pid)
        try:
            wait_for(client)
            yield Side(client, process)
        finally:
            # It would leave its model processes behind.
            for member in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()


def free_port() -> int:
    """Return a port that multi-model-server takes."""
    for port in range(HIGHEST_PORT, 1024, -1):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no port is free")


def wait_for(client: httpx.Client) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            client.get("/ping").raise_for_status()
            return
        time.sleep(0.1)
    raise SystemExit("multi-model-server did not start")


def write(folder: Path) -> dict[str, tuple[Path, list[int]]]:
    """Write an artifact of each kind; return its folder and what it predicts for `ROW`."""
    features, labels = make_classification(n_samples=500, n_features=len(ROW[0]), random_state=0)
    written = {}
    for kind, model in KINDS.items():
        path = folder / kind
        path.mkdir(parents=True)
        (path / "inference.py").write_text(SCRIPT)
        joblib.dump(model.fit(features, labels), path / "model.joblib")
        written[kind] = (path, model.predict(ROW).tolist())
    return written


def compare(folder: Path, count: int) -> None:
    """Print the times of loads and the memory of models, of both sides."""
    written = write(folder / "models")
    print(f"| {count} loads of each | stock | ours | stock / ours |\n|---|--:|--:|--:|")
    with stock(folder) as theirs, ours() as mine:
        sides = (theirs, mine)
        for kind, (path, expected) in written.items():
            before = [memory(side.process) for side in sides]
            for number in range(count):
                for side in sides:
                    side.load(f"{path.name[0]}{number}", path)
                    side.invoke(f"{path.name[0]}{number}", expected)
            sizes = [(memory(side.process) - then) / count / 2**20 for side, then in zip(sides, before, strict=True)]
            times = [statistics.median(side.seconds) * 1e3 for side in sides]
            print(f"| `POST /models`, {kind}, median, ms | {row(times, 0)} |")
            print(f"| memory of one, {kind}, MiB (PSS) | {row(sizes, 1)} |", flush=True)
            for side in sides:
                side.seconds.clear()
                for number in range(count):
                    side.client.delete(f"/models/{path.name[0]}{number}").raise_for_status()


def row(values: list[float], digits: int) -> str:
    """Return two values and their ratio as cells."""
    first, second = values
    return f"{first:.{digits}f} | {second:.{digits}f} | {first / second:.1f}"


def reside(folder: Path, count: int) -> None:
    """Print what it takes to hold many models, each in a process of its own."""
    folder.mkdir()
    expected = train(folder, count)
    with ours() as side:
        before = memory(side.process)
        for name in expected:
            side.load(name, folder / name)
        for name, prediction in expected.items():
            side.invoke(name, prediction)
        resident = sum(1 for _ in models(side.client))
        after = memory(side.process)
    print(f"\n| {count} models in one server of ours | |\n|---|--:|")
    print(f"| resident, all answering | {resident} |")
    print(f"| `POST /models`, median, ms | {statistics.median(side.seconds) * 1e3:.0f} |")
    print(f"| memory with none, MiB (PSS of the process tree) | {before / 2**20:.0f} |")
    print(f"| memory with all, MiB | {after / 2**20:.0f} |")
    print(f"| per model, MiB | {(after - before) / count / 2**20:.1f} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mms", description=__doc__)
    parser.add_argument("--loads", type=int, default=10, help="loads of each kind of model on each side (10)")
    parser.add_argument("--resident", type=int, default=500, help="models held at once (500)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        print(f"{machine()}\n")
        compare(Path(temp), options.loads)
        reside(Path(temp) / "resident", options.resident)


if __name__ == "__main__":
    main()

"""The first answer of a model in S3, beside what it takes to download and load it alone.

Starts an S3 (moto's server) in a process of its own and a server with it as its store. In turn, a model is fetched with
boto3 and loaded with joblib in this process, which has done so before, and another is asked for for the first time.
Models are MLPs of 1 MiB whose bytes hardly compress, each another, as an archive and as a plain file.

    python -m benchmarks.cold_s3
"""

from __future__ import annotations

import argparse
import copy
import http.client
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

BUCKET = "models"
FEATURES = 64
BODY = str([[0.5] * FEATURES]).encode()
ENV = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
MOTO = """
import logging, sys, time
from moto.server import DomainDispatcherApplication, ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.WARNING)
answer = DomainDispatcherApplication.__call__
def late(*arguments):
    time.sleep(float(sys.argv[1]) / 1e3)
    return answer(*arguments)
DomainDispatcherApplication.__call__ = late
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print("listening on http://%s:%d" % server.get_host_and_port(), flush=True)
time.sleep(1e6)
"""


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[int]:
    """Run a process until it is over, and give the port that it prints."""
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            yield next(int(match[1]) for line in process.stdout if (match := re.search(r"listening on .*:(\d+)", line)))
        finally:
            process.terminate()


def models(count: int) -> Iterator[bytes]:
    """Yield as many different models, as joblib writes them."""
    random = np.random.default_rng(0)
    warnings.simplefilter("ignore", ConvergenceWarning)  # it is to be of a size, not good
    first = MLPRegressor(hidden_layer_sizes=(512, 192), max_iter=1).fit(
        random.normal(size=(20, FEATURES)), random.normal(size=20)
    )
    for _ in range(count):
        model = copy.copy(first)
        model.coefs_ = [random.normal(size=coefficients.shape) for coefficients in first.coefs_]
        for copies in ("_optimizer", "_best_coefs"):  # of the weights, which would make it larger
            model.__dict__.pop(copies, None)
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        yield buffer.getvalue()


def packed(content: bytes) -> bytes:
    """Return an archive of one model."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("model.joblib")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def alone(client: Any, name: str) -> tuple[float, float]:
    """Download a model into a file and load it; return the seconds of both."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        content = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        path = Path(folder, "model.joblib")
        if name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:  # `extractall` has had its `filter` since 3.11.4 only
                    tar.extract(member, folder, set_attrs=False)
        else:
            path.write_bytes(content)
        fetched = time.perf_counter()
        joblib.load(path)
        return fetched - start, time.perf_counter() - fetched


def first_answer(connection: http.client.HTTPConnection, name: str) -> dict[str, float]:
    """Ask for a model, and return the seconds that took, in all and of which stage."""
    start = time.perf_counter()
    headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Target-Model": name}
    connection.request("POST", "/invocations", BODY, headers)
    reply = connection.getresponse()
    body = reply.read()
    took = time.perf_counter() - start
    if reply.status != 200:
        raise RuntimeError(f"{reply.status}: {body[:500]!r}")
    stages = re.findall(r"(\w+);dur=([0-9.]+)", reply.headers["Server-Timing"])
    return {"first answer": took, **{stage: float(milliseconds) / 1e3 for stage, milliseconds in stages}}


def main() -> None:
    """Measure, and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--latency", type=float, default=0, help="milliseconds before S3 begins an answer (0)")
    given = parser.parse_args()
    rounds = given.rounds
    moto = [sys.executable, "-c", MOTO, str(given.latency)]
    with tempfile.TemporaryDirectory() as folder, running(moto, {}) as port:
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=BUCKET)
        made = models(rounds + 2)
        client.put_object(Bucket=BUCKET, Key="first.joblib", Body=next(made))
        serve = [sys.executable, "-m", "manymodels", "serve", f"s3://{BUCKET}", "--port", "0", "--workers", "1"]
        serve += ["--cache-dir", folder, "--log-level", "warning"]
        with running(serve, {**ENV, "AWS_ENDPOINT_URL_S3": endpoint}) as port:
            # Only now: a server that starts looks at some of the artifacts that there are, and keeps them.
            for number, content in enumerate(made):
                client.put_object(Bucket=BUCKET, Key=f"{number}.joblib", Body=content)
                client.put_object(Bucket=BUCKET, Key=f"{number}.tar.gz", Body=packed(content))
            connection = http.client.HTTPConnection("127.0.0.1", port)
            for ending in ("joblib", "tar.gz"):
                alones, firsts = [], []
                for number in range(rounds + 1):
                    alones.append(alone(client, f"{rounds - number}.{ending}"))
                    firsts.append(first_answer(connection, f"{number}.{ending}"))
                del alones[0], firsts[0]  # nothing is warm yet
                stages = {"alone": [download + load for download, load in alones]}
                stages["download alone"], stages["load alone"] = ([*column] for column in zip(*alones, strict=True))
                stages |= {stage: [first[stage] for first in firsts] for stage in firsts[0]}
                for stage, seconds in stages.items():
                    print(f".{ending} {stage:16}{median(seconds) * 1e3:6.1f} ms, at least {min(seconds) * 1e3:.1f}")
                ratio = median(stages["first answer"]) / median(stages["alone"])
                print(f".{ending} first answer / alone: {ratio:.2f}")


if __name__ == "__main__":
    main()

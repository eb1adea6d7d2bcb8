"""An artifact is replaced again and again while many clients ask for it.

Starts a server with a store of one archive, replaces that under load, and prints how many answers there were, how many
failed, and how many were not those of the version that their header names, of each of two rows.

    python -m benchmarks.replacement
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import joblib
from sklearn.dummy import DummyRegressor

from manymodels.store import pack

NAME = "model.tar.gz"
VERSION = "X-Manymodels-Artifact-Version"
BODY = b"[[1, 2], [3, 4]]"


def put(root: Path, value: int) -> str:
    """Replace the artifact by one that answers `value`, and return its version."""
    made = root / "made"
    made.mkdir(exist_ok=True)
    joblib.dump(DummyRegressor(strategy="constant", constant=value).fit([[1, 2]], [value]), made / "model.joblib")
    pack(made, root / "store" / f".{NAME}")
    (root / "store" / f".{NAME}").replace(root / "store" / NAME)
    status = (root / "store" / NAME).stat()
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


class Client(threading.Thread):
    """Asks, one request after the other."""

    def __init__(self, port: int, done: threading.Event) -> None:
        super().__init__()
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.done = done
        #: Status, version, body and seconds of each answer.
        self.answers: list[tuple[int, str, bytes, float]] = []

    def run(self) -> None:
        """Ask until it is over."""
        headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Target-Model": NAME}
        while not self.done.is_set():
            start = time.perf_counter()
            self.connection.request("POST", "/invocations", BODY, headers)
            reply = self.connection.getresponse()
            body = reply.read()
            self.answers.append((reply.status, reply.headers.get(VERSION, ""), body, time.perf_counter() - start))


def main() -> None:
    """Replace, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replacements", type=int, default=100)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between replacements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "store").mkdir()
        versions = {put(root, 0): 0}
        command = [sys.executable, "-m", "manymodels", "serve", str(root / "store"), "--port", "0"]
        command += ["--store-refresh", "0.1", "--log-level", "warning"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = next(int(match[1]) for line in server.stdout if (match := re.search(r"listening on .*:(\d+)", line)))
            done = threading.Event()
            clients = [Client(port, done) for _ in range(options.clients)]
            for client in clients:
                client.start()
            for value in range(1, options.replacements + 1):
                time.sleep(options.interval)
                versions[put(root, value)] = value
            time.sleep(2 * options.interval)
            done.set()
            for client in clients:
                client.join()
            server.terminate()
    answers = [answer for client in clients for answer in client.answers]
    failed = [answer for answer in answers if answer[0] != 200]
    wrong = [
        answer for answer in answers if answer[0] == 200 and json.loads(answer[2]) != [versions.get(answer[1])] * 2
    ]
    served = {version for _, version, _, _ in answers}
    seconds = sorted(answer[3] for answer in answers)
    print(f"{len(answers)} answers to {options.clients} clients, of {len(served)} of {len(versions)} versions")
    print(f"{len(failed)} failed, {len(wrong)} not of the version that their header names")
    p50, p99, longest = (1e3 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99, 1))
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms")
    for answer in [*failed, *wrong][:3]:
        print(answer)
    sys.exit(bool(failed or wrong))


if __name__ == "__main__":
    main()

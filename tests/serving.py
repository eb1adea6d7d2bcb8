"""Servers in processes of their own and artifacts for them; what end-to-end tests share."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import parse_headers
from pathlib import Path
from typing import IO, Any

import boto3
import httpx
import joblib
import psutil
import xgboost
from botocore.config import Config
from installed import MORE
from sklearn.datasets import load_iris
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression

from manymodels.store import pack

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
IRIS = "iris.tar.gz"
#: An image to test, whose tag `make test-image` sets.
IMAGE = os.environ.get("MANYMODELS_IMAGE", "")
#: On what the contract is tested: the sources with each model server, or the image as it comes.
BACKENDS = ("image",) if IMAGE else ("workers", "mms")
DOCKER = (
    bool(IMAGE and shutil.which("docker")) and not subprocess.run(["docker", "version"], capture_output=True).returncode
)
#: Runs images where there is no Docker.
BUILDAH = Path(__file__).resolve().parent.parent / "docker" / "image"
#: How the command line of the image's first process begins.
ENTRY_POINT = ["/opt/manymodels/bin/python", "/opt/manymodels/bin/manymodels"]
FLOWER = [5.1, 3.5, 1.4, 0.2]
#: Seconds after which a test gives up; nothing is asserted on time.
PATIENCE = 60.0
#: Process ids of the servers that `serve` has started and not stopped yet.
RUNNING: set[int] = set()


@dataclass
class Reply:
    """A reply read from a raw connection."""

    status: int
    headers: Message
    body: bytes


@dataclass
class Server:
    """`manymodels serve`, running."""

    process: subprocess.Popen[str]
    url: str
    log_file: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def invoke(self, target_model: str | None, body: bytes | str | list[Any] = b"", **headers: str) -> httpx.Response:
        """POST to ``/invocations``; a list is sent as JSON, underscores in header names are dashes."""
        sent: dict[bytes, bytes] = {}
        if isinstance(body, list):
            sent[b"content-type"] = b"application/json"
        sent |= {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        if target_model is not None:
            sent[TARGET_MODEL.encode()] = target_model.encode()
        content = as_json(body) if isinstance(body, list) else body
        return self.client.post("/invocations", content=content, headers=list(sent.items()))

    def predict(self, target_model: str, body: list[Any] | None = None) -> Any:
        """Return the JSON of a prediction that has to succeed."""
        reply = self.invoke(target_model, [FLOWER] if body is None else body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def loaded(self) -> list[str]:
        """Return the names of the loaded models."""
        reply = self.client.get("/models")
        assert reply.status_code == 200, reply.text
        return [model["modelName"] for model in reply.json()["models"]]

    def workers(self, name: str) -> list[int]:
        """Return the process ids of the workers that hold a model."""
        reply = self.client.get(f"/models/{name}")
        assert reply.status_code == 200, reply.text
        pids: list[int] = reply.json()["workers"]
        return pids

    def log(self) -> str:
        """Return what it logged so far."""
        return self.log_file.read_text(errors="replace")

    def connect(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def exchange(self, data: bytes, replies: int = 1) -> list[Reply]:
        """Send bytes as they are and read a number of replies."""
        with self.connect() as sock, sock.makefile("rb") as file:
            sock.sendall(data)
            return [read_reply(file) for _ in range(replies)]

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the server."""
        front = psutil.Process(self.process.pid)
        return [front, *front.children(recursive=True)]

    def stop(self) -> tuple[int, list[psutil.Process]]:
        """Send SIGTERM; return the exit code and the processes that are left, which are then ended."""
        self.client.close()
        tree = self.processes() if self.process.poll() is None else []
        # Docker's client passes the signal on, buildah does not.
        first = next((one for one in tree if IMAGE and one.cmdline()[:2] == ENTRY_POINT), self.process)
        first.terminate()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        _, left = psutil.wait_procs(tree, timeout=10)
        for process in left:
            process.kill()
        return code, left


def in_image(image: str, *arguments: str, mounts: Mapping[Path, str] = {}, env: Mapping[str, str] = {}) -> list[str]:
    """Return what runs an image on the host's network, without arguments by its own command."""
    options = [text for name, value in env.items() for text in ("-e", f"{name}={value}")]
    options += [text for path, inside in mounts.items() for text in ("-v", f"{path}:{inside}")]
    if DOCKER:
        return ["docker", "run", "--rm", "--network", "host", *options, image, *arguments]
    return [str(BUILDAH), "run", image, *options, *(("--", *arguments) if arguments else ())]


@contextmanager
def serve(
    folder: Path,
    *arguments: str | Path,
    env: Mapping[str, str] = {},
    backend: str = "workers",
    mounts: Mapping[Path, str] | None = None,
) -> Iterator[Server]:
    """Serve until the block is left; the exit code is 0 and no process is left.

    It has the plugins of `make install`, unless the environment says which to leave out.

    :param folder: for the server's log.
    :param arguments: of ``manymodels serve``; the port is free unless `env` has one.
    :param backend: ``image`` runs the image, with the model server and the log format that it has.
    :param mounts: what the image has of the host; by default all temporary folders of the tests.
    """
    options = [*map(str, arguments), *([] if "SAGEMAKER_BIND_TO_PORT" in env else ["--port", "0"])]
    # The soft limit of open files that people's machines have; the servers of CI may have more.
    command = ["sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "sh"]
    if backend == "image":
        seen = {folder.parent: str(folder.parent)} if mounts is None else mounts
        command += in_image(IMAGE, *(["serve", *options] if options else []), mounts=seen, env=env)
        environment = dict(os.environ)
    else:
        command += [sys.executable, "-m", "manymodels", "serve", *options]
        environment = {"MANYMODELS_BLOCK_PLUGINS": MORE, **os.environ, "MANYMODELS_BACKEND": backend, **env}
    log_file = folder / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    RUNNING.add(process.pid)
    assert process.stdout is not None
    with process.stdout as output:
        server: Server | None = None
        try:
            url = next((line.split()[-1] for line in output if line.startswith("listening on ")), None)
            assert url is not None, f"the server did not start:\n{log_file.read_text()}"
            server = Server(process, url.replace("0.0.0.0", "127.0.0.1"), log_file)
            yield server
        finally:
            if server is None:
                process.kill()
                process.wait()
            else:
                code, left = server.stop()
            RUNNING.discard(process.pid)
    assert not left, f"processes are left: {left}"
    assert code == 0, f"exit code {code}:\n{log_file.read_text()[-2000:]}"


def runtime_client(url: str, **config: Any) -> Any:
    """Return a client of `sagemaker-runtime` that tries once; its credentials are nobody's."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}, **config),
    )


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def as_json(content: Any) -> bytes:
    """Return JSON; NaN and infinities as Python's json writes them."""
    return json.dumps(content).encode()


def read_reply(file: IO[bytes]) -> Reply:
    """Read one reply from a raw connection."""
    line = file.readline()
    assert line.startswith(b"HTTP/1.1 "), f"no reply but {line!r}"
    status = int(line.split()[1])
    headers = parse_headers(file)
    return Reply(status, headers, file.read(int(headers.get("content-length", "0"))))


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds and return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"gave up waiting until {what}"
        time.sleep(0.01)
    return value


# -- Artifacts --


def iris() -> LogisticRegression:
    """Return a small classifier."""
    return LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))


def constant(path: Path, value: float) -> Path:
    """Write a model that predicts `value` for any flower to a file that appears at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = DummyRegressor(strategy="constant", constant=value).fit([FLOWER], [value])
    partial = path.with_name(f".{path.name}")
    joblib.dump(model, partial)
    partial.replace(path)
    return path


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a ``.tar.gz`` of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.files")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    pack(folder, path)
    return path


def script(store: Path, name: str, source: str) -> str:
    """Write an artifact with a script of its own, and return its TargetModel."""
    code = store / name / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(source)
    return name


def waits(gate: Path, function: str = "predict_fn", numbers: int = 1) -> str:
    """Return a script that waits in one of its functions until a file is there.

    Whoever waits writes its process id into the file of that name and ``.waiting``. The model is
    an array of `numbers` numbers; it answers ``[1]``.
    """
    call = {name: "wait()" if name == function else "pass" for name in ("model_fn", "predict_fn")}
    return f"""
import os, time
import numpy as np

def wait():
    with open({str(gate)!r} + ".waiting", "a") as file:
        file.write(str(os.getpid()) + chr(10))
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)

def model_fn(model_dir):
    {call["model_fn"]}
    return np.ones({numbers})

def predict_fn(data, model):
    {call["predict_fn"]}
    return [int(model[0])]
"""


def booster(path: Path) -> None:
    """Write an XGBoost model of the iris data."""
    features, classes = load_iris(return_X_y=True)
    xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(features, classes), 5).save_model(path)


def uploads(server: Server) -> int:
    """Return how many large bodies the server keeps."""
    links = [link for process in server.processes() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    return sum("memfd:body" in os.readlink(link) for link in links if link.is_symlink())

"""Fixtures of the whole suite: a store of small real models, and a server of it; toy models; a watch on leftovers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import clouds
import joblib
import psutil
import pytest
from pools import TOY, Toys, ended
from serving import IRIS, RUNNING, Server, booster, constant, iris, runtime_client, script, serve

from manymodels.store import pack

ECHO = """
import json

def model_fn(model_dir):
    return "no model"

def input_fn(body, content_type, context):
    return json.loads(body)

def predict_fn(data, model, context):
    attributes = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    if attributes is not None:
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", attributes)
    for name, value in data.get("headers", {}).items():
        context.set_response_header(0, name, value)
    context.set_response_status(data.get("status", 200))
    if "told" in data:
        data["told"] = context.get_all_request_header(0)
    return data

def output_fn(prediction, accept):
    return json.dumps(prediction), prediction.get("type", "application/json")
"""


#: Yields its answer.
WORDS = """
def model_fn(model_dir):
    return None

def transform_fn(model, data, content_type, accept):
    for word in data.strip('"').split():
        yield word + "|"
"""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of tests, or modules of them, that hold for other backends than `workers`."""
    config.addinivalue_line("markers", "backends(name, ...): the model servers that a test runs on, one after another")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs a server on each backend of its nearest mark."""
    if "backend" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("backends")
        metafunc.parametrize("backend", mark.args if mark is not None else ("workers",), scope="module")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with archives, a broken one, folders, a bare file, an XGBoost model and a script."""
    root = tmp_path_factory.mktemp("store")
    folder = tmp_path_factory.mktemp("iris")
    joblib.dump(iris(), folder / "model.joblib")
    (folder / "metadata.json").write_text('{"owner": "botany"}')
    for name in (IRIS, "modèle.tar.gz", "with space.tar.gz", "team/deep/iris.tar.gz", "%2e%2e.tar.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pack(folder, root / name)
    (root / "broken.tar.gz").write_bytes(b"nonsense")
    constant(root / "timed" / "model.joblib", 1.0)
    constant(root / "folder" / "model.joblib", 7.0)
    constant(root / "model.joblib", 8.0)
    booster(root / "booster.ubj")
    script(root, "echo", ECHO)
    script(root, "words", WORDS)
    return root


@pytest.fixture(scope="session")
def served(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The address of that store, or of its copy in the cloud that is tested, and what a server needs to reach it."""
    if not clouds.KIND:
        yield str(store), {}
        return
    with clouds.running(clouds.KIND, tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud.copy(store), cloud.env


@pytest.fixture(scope="module")
def server(
    backend: str, served: tuple[str, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of that store with the default settings and two workers; tests of processes want none beside theirs."""
    address, env = served
    with serve(tmp_path_factory.mktemp("server"), address, "--workers", "2", env=env, backend=backend) as running:
        yield running


@pytest.fixture(scope="module")
def runtime(server: Server) -> Iterator[Any]:
    """A client of sagemaker-runtime of that server."""
    client = runtime_client(server.url)
    yield client
    client.close()


# -- Worker pools, in the tests' own process --


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    """A maker of toy models, whose plugin is on the path of this process and of workers."""
    monkeypatch.syspath_prepend(TOY)
    monkeypatch.setenv("PYTHONPATH", str(TOY), prepend=os.pathsep)
    return Toys(tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutine tests, which are marked ``anyio``, on asyncio."""
    return "asyncio"


# -- What no test may leave behind --


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Fail a test that changes the environment or the folder, or leaves processes of ours running."""
    environment, folder, processes = _environment(), Path.cwd(), _processes()
    yield
    assert _environment() == environment, "the test left the environment changed"
    assert Path.cwd() == folder, "the test left the current folder changed"
    _, left = psutil.wait_procs(_processes() - processes, timeout=5)
    left = [process for process in left if not ended(process.pid)]
    for process in left:
        process.kill()
    assert not left, f"the test left processes running: {left}"


def _environment() -> dict[str, str]:
    # The second is set by the plugin for ONNX, when a test first imports it.
    passing = ("PYTEST_CURRENT_TEST", "ORT_DISABLE_TELEMETRY")
    return {name: value for name, value in os.environ.items() if name not in passing}


def _processes() -> set[psutil.Process]:
    """Return the servers, zygotes and workers below this process; helpers of libraries stay as long as it does.

    Those of servers that several tests share are looked at when these are stopped.
    """
    found = set()
    children = [child for child in psutil.Process().children() if child.pid not in RUNNING]
    for process in [*children, *(process for child in children for process in _below(child))]:
        try:
            if any("manymodels" in argument for argument in process.cmdline()):
                found.add(process)
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return found


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:  # it ended meanwhile
        return []

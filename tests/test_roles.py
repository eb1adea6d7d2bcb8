"""`manymodels serve` without a store: a SageMaker container, with one model or told what to load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from serving import BACKENDS, FLOWER, IMAGE, Server, as_json, constant, script, serve, until, waits

pytestmark = pytest.mark.backends(*BACKENDS)


@pytest.fixture(scope="module")
def single(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A container with one model."""
    base = tmp_path_factory.mktemp("ml")
    constant(base / "model" / "model.joblib", 5.0)
    env = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    with serve(tmp_path_factory.mktemp("single"), "--workers", "2", env=env, backend=backend) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        yield server


def test_a_single_model_needs_no_name(single: Server) -> None:
    reply = single.invoke(None, [FLOWER])
    assert (reply.status_code, reply.content) == (200, b"5.0\n")
    assert reply.headers["content-type"].partition(";")[0] == "text/csv"
    assert "predict;dur=" in reply.headers["server-timing"]


def test_a_single_model_takes_no_name(single: Server) -> None:
    reply = single.invoke("model.tar.gz", [FLOWER])
    assert reply.status_code == 400
    assert "does not support the TargetModel header" in reply.json()["message"]


def test_a_single_model_is_there_for_boto3(single: Server) -> None:
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=single.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}),
    )
    reply = client.invoke_endpoint(EndpointName="e", Body=as_json([FLOWER]), Accept="application/json")
    with reply["Body"] as stream:
        assert json.loads(stream.read()) == [5.0]
    client.close()


def test_a_single_model_is_listed(single: Server) -> None:
    [model] = single.client.get("/models").json()["models"]
    assert model["modelName"] == "model"


@pytest.mark.skipif(bool(IMAGE), reason="the container's processes are not this server's children")
def test_a_single_model_has_the_frameworks_it_needs_and_no_others(single: Server) -> None:
    mapped = {part.path for process in single.processes() for part in process.memory_maps()}
    assert any("/sklearn/" in path for path in mapped)
    assert not any("xgboost" in path for path in mapped)


def test_a_single_model_is_pinged_until_it_is_loaded(backend: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script(tmp_path, "model", waits(gate, "model_fn"))
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path)}, backend=backend) as server:
        assert server.client.get("/ping").status_code == 503
        reply = server.invoke(None, [FLOWER])
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert server.client.get("/models").json() == {"models": []}
        gate.touch()
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        assert server.invoke(None, [FLOWER]).json() == [1]


@pytest.mark.parametrize(("source", "said"), [(None, "there is no model in"), ("raise OSError('disk')", "disk")])
def test_a_single_model_that_cannot_be_loaded(backend: str, tmp_path: Path, source: str | None, said: str) -> None:
    if source is not None:
        script(tmp_path, "model", source)
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path)}, backend=backend) as server:
        until(lambda: "the model cannot be loaded" in server.log(), "it failed")
        assert server.client.get("/ping").status_code == 503
        reply = server.invoke(None, [FLOWER])
        assert reply.status_code == 424
        assert said in reply.json()["message"]


def test_one_script_for_all_models(backend: str, tmp_path: Path) -> None:
    """SageMaker's own containers take one script for all models from the environment."""
    code = tmp_path / "shared"
    code.mkdir()
    (code / "entry.py").write_text("def predict_fn(data, model):\n    return [model.predict(data)[0] + 100]\n")
    constant(tmp_path / "store" / "one" / "model.joblib", 1.0)
    constant(tmp_path / "store" / "two" / "model.joblib", 2.0)
    env = {"SAGEMAKER_SUBMIT_DIRECTORY": str(code), "SAGEMAKER_PROGRAM": "entry.py"}
    with serve(tmp_path, tmp_path / "store", "--workers", "1", env=env, backend=backend) as server:
        assert server.predict("one") == [101.0]
        assert server.predict("two") == [102.0]

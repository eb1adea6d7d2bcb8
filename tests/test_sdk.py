"""The SageMaker Python SDK, version 2, as it comes.

It needs older libraries than the tests do, so it has an interpreter of its own, which `make test-sdk` makes and names
in MANYMODELS_SDK. Its RecordIO bodies, which nothing else writes, are in `test_records.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import joblib
import pytest
from serving import PATIENCE, iris, script, serve

SDK = os.environ.get("MANYMODELS_SDK", "")
pytestmark = pytest.mark.skipif(not SDK, reason="make test-sdk runs it")

ECHO = """
def model_fn(model_dir): pass
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return prediction, "application/octet-stream"
"""
#: Both flowers' classes, as each deserializer reads them.
READ = {
    "JSON": [0, 2],
    "JSON lines": [0, 2],
    "CSV": [["0"], ["2"]],
    "npy": ["int64", [0, 2]],
    "npy as JSON": [0, 2],
    "npy as CSV": [0.0, 2.0],
    "bytes": "[0,2]",
    "string": "[0,2]",
    "pandas": [[0], [2]],
    # It takes the first row for a header.
    "pandas as CSV": ["0"],
    "RecordIO": [[0], [2]],
}


@pytest.fixture(scope="module", params=["workers", "mms"])
def found(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the SDK got."""
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "store").mkdir()
    joblib.dump(iris(), folder / "store" / "iris.joblib")
    script(folder / "store", "echo", ECHO)
    with serve(folder, folder / "store", backend=request.param) as server:
        credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        done = subprocess.run(
            [SDK, str(Path(__file__).with_name("sdk_client.py")), str(server.port)],
            env={**os.environ, **credentials, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": server.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("client", ["boto3", "local"])
def test_every_serializer(found: dict[str, Any], client: str) -> None:
    sent = {name: answer for name, answer in found[client].items() if name.startswith("sent as ")}
    assert len(sent) == 17
    assert sent == {name: [0, 2] for name in sent}


@pytest.mark.parametrize("client", ["boto3", "local"])
def test_every_deserializer(found: dict[str, Any], client: str) -> None:
    answers = found[client]
    for name, read in READ.items():
        if (name, client) != ("pandas", "local"):  # which closes its stream before pandas has read it
            assert answers[f"read as {name}"] == read, name
    # The local client says what was accepted, not what came.
    assert answers["read as stream"] == ["[0,2]", "application/json" if client == "boto3" else "*/*"]
    assert answers["untouched bytes"] == bytes(range(256)).hex()

"""`manymodels serve STORE --backend mms` over HTTP, and what multi-model-server by itself gets wrong."""

from __future__ import annotations

import io
import json
import pickle
import signal
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import psutil
import pytest
from botocore.config import Config
from serving import FLOWER, IRIS, Server, iris, script, serve, until
from sklearn.neighbors import KNeighborsRegressor

from manymodels.store import pack

BUDGET = 160 << 20

ECHO = """
import json, time
from sagemaker_inference.errors import GenericInferenceToolkitError, UnsupportedFormatError

def model_fn(model_dir):
    return "no model"

def input_fn(body, content_type, context):
    if content_type == "text/odd":
        raise UnsupportedFormatError(content_type)
    return json.loads(body)

def predict_fn(data, model, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes",
        context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes") or "none")
    if "code" in data:
        raise GenericInferenceToolkitError(data["code"], "as the script\\nwants it")
    if "error" in data:
        raise RuntimeError(data["error"])
    context.set_response_status(data.get("status", 200))
    time.sleep(data.get("sleep", 0))
    return data

def output_fn(prediction, accept):
    return json.dumps(prediction), prediction.get("type", "application/json")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an archive, a bare file, a script, and artifacts that cannot be loaded."""
    root = tmp_path_factory.mktemp("store")
    model = tmp_path_factory.mktemp("iris")
    joblib.dump(iris(), model / "model.joblib")
    pack(model, root / IRIS)
    joblib.dump(iris(), root / "plain.joblib")
    script(root, "echo", ECHO)
    script(root, "greedy", "def model_fn(model_dir):\n    return bytearray(1 << 40)\n")
    (root / "corrupt.joblib").write_bytes((root / "plain.joblib").read_bytes()[:200])
    (root / "empty").mkdir()
    (root / "empty" / "manymodels.json").write_text('{"framework": "sklearn"}')
    for number in range(6):
        rows = (24 << 20) // 8 // 16
        big = KNeighborsRegressor(1, algorithm="brute").fit(np.zeros((rows, 16)), np.full(rows, float(number)))
        joblib.dump(big, root / f"big{number}.joblib")
    return root


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for a few of the large models."""
    folder = tmp_path_factory.mktemp("served")
    with serve(folder, store, "--backend", "mms", "--memory", str(BUDGET), env={"TMPDIR": str(folder)}) as running:
        yield running
    assert [path.name for path in folder.iterdir()] == ["server.log"], "files are left"


def message(server: Server, target_model: str, body: Any, status: int, **headers: str) -> str:
    """Return the message of an answer that has to be an error, in the form of ours and without a traceback."""
    reply = server.invoke(target_model, body, **headers)
    assert reply.status_code == status, reply.text
    assert reply.reason_phrase == HTTPStatus(status).phrase
    assert "Traceback" not in reply.text
    content = reply.json()
    assert set(content) == {"code", "type", "message"}
    return str(content["message"])


def test_answers(server: Server) -> None:
    assert server.client.get("/ping").status_code == 200
    assert server.client.get("/models").json()["models"] == []
    reply = server.invoke(IRIS, [FLOWER])
    assert (reply.status_code, reply.json()) == (200, [0])
    stages = {part.partition(";")[0].strip() for part in reply.headers["server-timing"].split(",")}
    assert stages >= {"queue", "fetch", "load", "predict"}
    assert server.predict("plain.joblib") == [0]
    assert server.invoke(IRIS, "5.1,3.5,1.4,0.2", content_type="text/csv", accept="text/csv").text == "0\n"
    assert server.loaded() == [IRIS, "plain.joblib"]


def test_boto3(server: Server) -> None:
    options = Config(retries={"total_max_attempts": 1})
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=options,
    )
    ask = {"EndpointName": "e", "ContentType": "application/json"}
    reply = client.invoke_endpoint(TargetModel=IRIS, Body=json.dumps([FLOWER]), **ask)
    assert json.loads(reply["Body"].read()) == [0]
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint(TargetModel=IRIS, Body="[[1]]", **ask)
    assert caught.value.response["OriginalStatusCode"] == 400
    with pytest.raises(
        client.exceptions.ValidationError if hasattr(client.exceptions, "ValidationError") else Exception
    ):
        client.invoke_endpoint(TargetModel="missing", Body="[]", **ask)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("corrupt.joblib", "is corrupt or truncated"),
        ("empty", "empty"),
        ("greedy", "memory ran out while loading 'greedy'"),
    ],
)
def test_a_load_that_fails_is_said_to_have_failed(server: Server, name: str, part: str) -> None:
    """multi-model-server with sagemaker-inference's handler service answers 200, and fails later."""
    assert part in message(server, name, [FLOWER], 503 if name == "greedy" else 424)
    assert name not in server.loaded()


def test_errors_of_clients_are_errors_of_clients(server: Server) -> None:
    """multi-model-server answers 500 with a traceback, and the exception's text in the reason phrase."""
    assert message(server, IRIS, [[1.0]], 400) == "the model expects 4 features, got 1"
    assert message(server, IRIS, b"{not json", 400, content_type="application/json")
    assert message(server, IRIS, b"x", 415, content_type="application/what")
    assert message(server, IRIS, [FLOWER], 406, accept="image/png")
    assert message(server, "echo", b'{"error": "a\\r\\nb: c"}', 500, content_type="application/json").endswith(
        "RuntimeError: a\r\nb: c"
    )


def test_a_charset_is_understood(server: Server) -> None:
    """sagemaker-inference only knows ``application/json`` without parameters."""
    reply = server.invoke(IRIS, json.dumps([FLOWER]).encode("utf-16"), content_type="application/json; charset=utf-16")
    assert reply.json() == [0]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_are_not_taken_apart(server: Server, content_type: str) -> None:
    """multi-model-server takes a form apart, whatever the model would do with it."""
    assert server.invoke("echo", b'{"a=b": "c&d"}', content_type=content_type).json() == {"a=b": "c&d"}


def test_nothing_is_unpickled(server: Server, tmp_path: Path) -> None:
    """sagemaker-inference runs what a client puts into an npy body."""
    proof = tmp_path / "proof"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (proof,)

    stream = io.BytesIO()
    np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)
    assert pickle.dumps(Evil()) in stream.getvalue() or b"touch" in stream.getvalue()
    assert message(server, IRIS, stream.getvalue(), 400, content_type="application/x-npy")
    assert not proof.exists()


def test_a_script_sets_headers_status_and_type(server: Server) -> None:
    """Each of several that are answered together with its own; sagemaker-inference has those of the first for all."""
    replies: dict[int, Any] = {}

    def ask(number: int) -> None:
        body = json.dumps({"status": 200 + number, "type": f"text/x{number}", "sleep": 0.05}).encode()
        headers = {"X_Amzn_SageMaker_Custom_Attributes": f"a\u00e4{number}", "content_type": "application/json"}
        replies[number] = server.invoke("echo", body, **headers)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, reply in replies.items():
        assert reply.status_code == 200 + number
        assert reply.headers["content-type"] == f"text/x{number}"
        assert reply.headers["x-amzn-sagemaker-custom-attributes"].endswith(str(number))


def test_errors_of_sagemaker_inference(server: Server) -> None:
    reply = server.invoke("echo", json.dumps({"code": 422}), content_type="application/json")
    assert (reply.status_code, reply.text) == (422, "as the script\nwants it")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert "text/odd" in message(server, "echo", b"{}", 415, content_type="text/odd")


def test_models_make_room_for_others(server: Server) -> None:
    point = [[0.0] * 16]
    for _ in range(2):
        for number in range(6):
            assert server.predict(f"big{number}.joblib", point) == [float(number)]
    loaded = server.client.get("/models").json()["models"]
    assert 0 < sum(model["bytes"] for model in loaded) <= BUDGET + (40 << 20)
    assert sum(model["modelName"].startswith("big") for model in loaded) < 6


def test_ping_tells_of_the_state(server: Server) -> None:
    """multi-model-server answers 200 whatever its state."""
    (guard,) = (
        child for child in psutil.Process(server.process.pid).children() if "manymodels_mms.guard" in child.cmdline()
    )
    guard.children()[0].send_signal(signal.SIGKILL)
    until(lambda: server.client.get("/ping").status_code == 503, "it is unhealthy")
    until(lambda: server.client.get("/ping").status_code == 200, "it is healthy again")
    assert server.predict(IRIS) == [0]


def test_the_log_has_no_raw_lines(server: Server) -> None:
    server.invoke("echo", json.dumps({"error": "for the log"}), content_type="application/json")
    until(lambda: "RuntimeError: for the log" in server.log(), "it is logged")
    assert "\x1f" not in server.log()
    assert "\x1e" not in server.log()


def test_sigterm_lets_an_invocation_end(store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ended")
    replies: list[Any] = []
    with serve(folder, store, "--backend", "mms", env={"TMPDIR": str(folder)}) as server:
        assert server.invoke("echo", b"{}").status_code == 200
        body = json.dumps({"sleep": 1.5}).encode()
        call = threading.Thread(
            target=lambda: replies.append(server.invoke("echo", body, content_type="application/json"))
        )
        call.start()
        until(lambda: psutil.Process(server.workers("echo")[0]).num_ctx_switches(), "it runs")
        threading.Event().wait(0.5)
        server.process.terminate()
        server.process.wait(30)
        call.join()
    assert replies[0].json() == {"sleep": 1.5}
    assert [path.name for path in folder.iterdir()] == ["server.log"]

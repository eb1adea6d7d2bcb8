"""What a server does when it is asked too much, or too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import FLOWER, Server, constant, serve, until

TIMEOUT = "X-Envoy-Expected-Rq-Timeout-Ms"
#: Answers 7, once the file that the body lists is there.
SCRIPT = """
import json, os, time
def model_fn(model_dir): return 7
def input_fn(body, content_type): return json.loads(body)
def predict_fn(data, model):
    for gate in data:
        while not os.path.exists(gate):
            time.sleep(0.002)
    return model
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets two invocations wait."""
    folder = tmp_path_factory.mktemp("overload")
    constant(folder / "store" / "five.joblib", 5.0)
    code = folder / "store" / "patient" / "inference.py"
    code.parent.mkdir()
    code.write_text(SCRIPT)
    with serve(folder, folder / "store", "--workers", "1", "--max-waiting", "2") as running:
        yield running


def test_too_many_invocations_are_refused_at_once(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def ask() -> httpx.Response:
        # What asks below whether two are waiting is one more itself.
        while (reply := server.invoke("patient", [str(gate)])).status_code == 503:
            time.sleep(0.01)
        return reply

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(ask) for _ in range(2)]
        reply = until(lambda: (reply := server.invoke("nowhere", [])).status_code == 503 and reply, "two are waiting")
        assert reply.headers["retry-after"] == "1"
        assert "2 invocations are waiting already" in reply.text
        assert server.client.get("/ping").status_code == 200
        gate.touch()
        assert [call.result().json() for call in calls] == [7, 7]
    assert server.predict("five.joblib") == [5.0]


def test_a_clients_own_deadline_is_kept(server: Server, tmp_path: Path) -> None:
    assert server.predict("patient", []) == 7
    gate = tmp_path / "gate"
    reply = server.invoke("patient", [str(gate)], **{TIMEOUT: "100"})
    gate.touch()
    assert reply.status_code == 504
    assert "did not answer within 0.1 s" in reply.text
    assert server.invoke("patient", [], **{TIMEOUT: "60000"}).json() == 7


@pytest.mark.parametrize("timeout", ["soon", "-1", "1.5", "", "9" * 30])
def test_a_deadline_is_in_milliseconds(server: Server, timeout: str) -> None:
    reply = server.invoke("five.joblib", [FLOWER], **{TIMEOUT: timeout})
    assert reply.status_code == 400
    assert "whole milliseconds" in reply.text

"""`GET /metrics` of running servers: every metric, in each role, on each backend."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import BACKENDS, FLOWER, PATIENCE, Server, constant, script, serve, until

pytestmark = pytest.mark.backends(*BACKENDS)

FAILING = """
def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body

def predict_fn(data, model):
    if data == b"fail":
        raise ValueError("no")
    return "1"

def output_fn(prediction, accept):
    return prediction
"""


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """What a server's `GET /metrics` says."""

    def __init__(self, server: Server) -> None:
        reply = server.client.get("/metrics")
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(reply.text)
        super().__init__(
            ((sample.name, frozenset(sample.labels.items())), sample.value)
            for family in families
            for sample in family.samples
        )

    def get(self, name: str, /, **labels: str) -> float:  # type: ignore[override]
        """Return a value."""
        return self[f"manymodels_{name}", frozenset(labels.items())]


@pytest.fixture(scope="module")
def busy(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with one worker, which shows two models one by one."""
    root = tmp_path_factory.mktemp("busy")
    store = root / "store"
    constant(store / "one.joblib", 1.0)
    constant(store / "two.joblib", 2.0)
    script(store, "failing", FAILING)
    script(store, "broken", "raise OSError('broken')")
    names = root / "names.json"
    names.write_text('{"names": {"one@new": {"serve": "one.joblib", "shadow": {"model": "two.joblib"}}}}')
    flags = ("--workers", "1", "--metrics-models", "2", "--store-refresh", "0", "--names", names)
    with serve(root, store, *flags, backend=backend) as server:
        yield server, store


def test_a_life_in_numbers(busy: tuple[Server, Path]) -> None:
    server, _ = busy
    new = Samples(server)
    assert new.get("invocations_total", model="other", status="2xx") == 0
    assert new.get("resident_models") == 0
    assert new.get("memory_budget_bytes") > 0

    for _ in range(3):
        assert server.predict("one.joblib") == [1.0]
    assert server.predict("two.joblib") == [2.0]
    for body in (b"well", b"fail"):
        server.invoke("failing", body, content_type="text/plain")
    assert server.invoke("missing", [FLOWER]).status_code == 404
    assert server.invoke("broken", [FLOWER]).status_code == 424

    now = Samples(server)
    assert now.get("invocations_total", model="one.joblib", status="2xx") == 3
    assert now.get("invocations_total", model="two.joblib", status="2xx") == 1
    assert now.get("invocations_total", model="other", status="2xx") == 1
    assert now.get("invocations_total", model="other", status="4xx") == 2
    assert now.get("invocations_total", model="other", status="5xx") == 1
    assert now.get("invocation_seconds_count", model="one.joblib") == 3
    assert now.get("errors_total", error="PredictionFailed") == 1
    assert now.get("errors_total", error="ModelNotFound") == 1
    assert now.get("queue_seconds_count") == now.get("predict_seconds_count") == 5
    assert now.get("batch_size_sum") == 6
    assert now.get("cache_hits_total") == 3
    assert now.get("cache_misses_total") == now.get("load_wait_seconds_count") == 3
    assert now.get("load_seconds_count") == now.get("fetch_seconds_count") == 3
    assert 0 < now.get("load_seconds_sum") <= now.get("load_wait_seconds_sum") < 60
    assert sum(value for (name, _), value in now.items() if name == "manymodels_load_failures_total") == 1
    assert now.get("golden_failures_total") == 0
    # At its start the server looked at what it serves.
    assert now.get("disk_cache_misses_total") == now.get("disk_cache_hits_total") == 2
    assert now.get("disk_cache_evictions_total") == now.get("disk_cache_damaged_total") == 0
    assert now.get("disk_cache_bytes") == 2 * 2 * 4096
    assert now.get("disk_cache_budget_bytes") > 0
    assert now.get("resident_models") == 3
    assert 0 < now.get("resident_bytes") < now.get("memory_budget_bytes")
    assert now.get("workers") >= 1
    assert now.get("waiting_invocations") == 0
    assert now.get("async_queued") == now.get("async_running") == 0  # more in test_asynchronous.py
    assert now.get("async_invocations_total", outcome="done") == 0


def test_evictions(busy: tuple[Server, Path]) -> None:
    server, store = busy
    before = Samples(server)
    assert server.predict("one.joblib") == [1.0]
    constant(store / "one.joblib", 11.0)
    assert server.predict("one.joblib") == [11.0]
    assert Samples(server).get("outdated_models") == 0
    (store / "one.joblib").write_bytes(b"nonsense")
    assert server.predict("one.joblib") == [11.0]
    assert Samples(server).get("outdated_models") == 1
    assert server.client.delete("/models/one.joblib").status_code == 200
    assert server.predict("two.joblib") == [2.0]
    (store / "two.joblib").unlink()
    assert server.invoke("two.joblib", [FLOWER]).status_code == 404
    now = Samples(server)
    for reason in ("replaced", "request", "gone"):
        was = before.get("evictions_total", reason=reason)
        assert now.get("evictions_total", reason=reason) == was + 1
    assert now.get("unload_seconds_count") == before.get("unload_seconds_count") + 3


def test_restarts(busy: tuple[Server, Path]) -> None:
    server, _ = busy
    before = Samples(server)
    server.invoke("failing", b"well", content_type="text/plain")
    os.kill(server.workers("failing")[0], signal.SIGKILL)
    until(
        lambda: (
            Samples(server).get("worker_restarts_total", reason="died")
            == before.get("worker_restarts_total", reason="died") + 1
        ),
        "the restart is counted",
    )


def test_shadows(busy: tuple[Server, Path]) -> None:
    server, store = busy
    for name, value in (("one", 1.0), ("two", 2.0)):
        constant(store / f"{name}.joblib", value)

    def counted(result: str) -> float:
        return Samples(server).get("shadows_total", name="one@new", model="two.joblib", result=result)

    before = Samples(server).get("invocations_total", model="two.joblib", status="2xx")
    assert server.predict("one@new") == [1.0]
    until(lambda: counted("differed") == 1, "the shadow's answer is compared")
    assert counted("agreed") == counted("failed") == counted("dropped") == 0
    # Nobody was answered by it.
    assert Samples(server).get("invocations_total", model="two.joblib", status="2xx") == before


def test_several_fronts_count_together(backend: str, tmp_path: Path) -> None:
    constant(tmp_path / "store" / "five.joblib", 5.0)
    with serve(tmp_path, tmp_path / "store", "--workers", "1", "--fronts", "2", backend=backend) as server:
        for number in range(1, 9):
            server.client.close()
            server.client = httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False)
            assert server.predict("five.joblib") == [5.0]
            assert Samples(server).get("invocations_total", model="five.joblib", status="2xx") == number


def test_a_single_model(backend: str, tmp_path: Path) -> None:
    constant(tmp_path / "model" / "model.joblib", 5.0)
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path)}, backend=backend) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        assert server.invoke(None, [FLOWER]).status_code == 200
        assert server.invoke("x.tar.gz", [FLOWER]).status_code == 400
        now = Samples(server)
        assert now.get("invocations_total", model="model", status="2xx") == 1
        assert now.get("invocations_total", model="other", status="4xx") == 1
        assert now.get("load_seconds_count") == 1


def test_a_container(backend: str, tmp_path: Path) -> None:
    constant(tmp_path / "m" / "model.joblib", 5.0)
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_MULTI_MODEL": "true"}, backend=backend) as server:
        for name in ("hash", "hash"):
            server.client.post("/models", json={"model_name": name, "url": str(tmp_path / "m")})
        server.client.post("/models", json={"model_name": "bad", "url": str(tmp_path / "nothing")})
        reply = server.client.post("/models/hash/invoke", json=[FLOWER])
        assert reply.status_code == 200, reply.text
        assert server.client.delete("/models/hash").status_code == 200
        now = Samples(server)
        assert now.get("invocations_total", model="hash", status="2xx") == 1
        assert now.get("load_seconds_count") == 1
        assert now.get("load_failures_total", error="BadArtifact") == 1
        assert now.get("evictions_total", reason="request") == 1
        assert now.get("resident_models") == 0

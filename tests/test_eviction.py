"""More models than memory: the least recently used one that is not in use makes room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from serving import Server, iris, script, serve, until, waits
from sklearn.neighbors import KNeighborsRegressor

from manymodels.cli import cli

BUDGET = 160 << 20
SIZE = 24 << 20
#: What the allocators of two workers keep beside the models, in bytes: 2 to 4 MiB each.
SLACK = 8 << 20
MODELS = [f"big{number}.joblib" for number in range(8)]
POINT = [0.0] * 16


def write_big(path: Path, value: float, size: int = SIZE) -> None:
    """Write a model of `size` bytes that predicts `value`."""
    rows = size // 8 // len(POINT)
    model = KNeighborsRegressor(1, algorithm="brute").fit(np.zeros((rows, len(POINT))), np.full(rows, value))
    joblib.dump(model, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("big-store")
    for value, name in enumerate(MODELS):
        write_big(root / name, float(value))
    for number in range(8):  # enough for both workers to hold one
        write_big(root / f"tiny{number}.joblib", 0.0, 1 << 10)
    write_big(root / "huge.joblib", 99.0, 2 * BUDGET)
    joblib.dump(iris(), root / "iris.joblib")
    return root


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for a few of the models."""
    options = ("--workers", "2", "--memory", str(BUDGET), "--slow-after", "0.1", "--eviction", "lru")
    with serve(tmp_path_factory.mktemp("small"), root, *options) as server:
        yield server


@pytest.fixture
def small(running: Server) -> Server:
    """That server, with nothing loaded."""
    for name in running.loaded():
        assert running.client.delete(f"/models/{name}").status_code == 200
    return running


def private(server: Server) -> int:
    """Return the bytes of the server's processes that no other process shares."""
    return sum(process.memory_full_info().uss for process in server.processes())


def accounted(server: Server) -> int:
    return sum(model["bytes"] for model in server.client.get("/models").json()["models"])


def test_all_are_answered_and_memory_stays_under_the_budget(small: Server) -> None:
    for number in range(8):  # what the workers import for the first of them is no model's
        small.predict(f"tiny{number}.joblib", [POINT])
    described = [f"/models/tiny{number}.joblib" for number in range(8)]
    until(lambda: all("predictor" in small.client.get(path).json() for path in described), "their trials are over")
    before = private(small)
    seen = set()
    for _ in range(2):
        for value, name in enumerate(MODELS):
            assert small.predict(name, [POINT]) == [value]
            loaded = set(small.loaded())
            assert name in loaded
            seen.add(len(loaded & set(MODELS)))
            assert accounted(small) <= BUDGET
            assert private(small) - before <= BUDGET + SLACK
    assert max(seen) < len(MODELS)
    assert max(seen) >= 3
    assert "to make room" in small.log()


def test_the_least_recently_used_leaves(small: Server) -> None:
    used: list[str] = []
    for name in (*MODELS, *MODELS[1:4]):
        if used:
            assert small.predict(MODELS[0], [POINT]) == [0.0]
            used.remove(MODELS[0])
            used.append(MODELS[0])
        small.predict(name, [POINT])
        if name in used:
            used.remove(name)
        used.append(name)
        loaded = small.loaded()
        assert MODELS[0] in loaded
        used_and_loaded = used[-len(loaded) :]
        assert sorted(loaded) == sorted(used_and_loaded)
        used = used_and_loaded


def test_all_are_answered_when_all_are_asked_at_once(small: Server) -> None:
    def ask(number: int) -> tuple[int, object]:
        value = number % len(MODELS)

        def answered() -> httpx.Response | None:
            reply = small.invoke(MODELS[value], [POINT])
            return None if reply.status_code == 503 and "retry-after" in reply.headers else reply

        # On a busy machine all that are loaded may be in use for longer than a load waits for room.
        reply = until(answered, "there is room")
        return reply.status_code, reply.json() == [value] or reply.text

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(ask, range(10 * len(MODELS)))) == {(200, True)}
    # Nor are copies within the budget that are made where a worker is held up; they leave when they are of no use.
    until(lambda: accounted(small) <= BUDGET, "copies have left")


def test_what_will_never_fit_evicts_nobody(small: Server) -> None:
    small.predict("iris.joblib")
    for name in MODELS[:3]:
        small.predict(name, [POINT])
    loaded = small.loaded()
    assert len(loaded) == 4
    reply = small.invoke("huge.joblib", [POINT])
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["type"] == "OutOfMemory"
    assert "huge.joblib" in reply.json()["message"]
    assert "--memory" in reply.json()["message"]
    reply = small.client.post("/models", json={"model_name": "huge.joblib", "url": "huge.joblib"})
    assert reply.status_code == 507
    assert reply.json()["code"] == 507
    assert small.loaded() == loaded


def test_a_model_in_use_is_never_evicted(small: Server, root: Path, gate: Path) -> None:
    name = script(root, f"held-{gate.parent.name}", waits(gate, numbers=100 << 17))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(small.invoke, name, [POINT])
        until(gate.with_name("gate.waiting").exists, "it runs")
        for value, other in enumerate(MODELS[:5]):
            assert small.predict(other, [POINT]) == [value]
            assert name in small.loaded()
        [worker] = small.workers(name)
        assert psutil.Process(worker).is_running()
        gate.touch()
        assert held.result().json() == [1]


def test_when_all_are_in_use_there_is_no_room(small: Server, root: Path, gate: Path) -> None:
    name = script(root, f"fills-{gate.parent.name}", waits(gate, numbers=150 << 17))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(small.invoke, name, [POINT])
        until(gate.with_name("gate.waiting").exists, "it runs")
        reply = small.invoke(MODELS[0], [POINT])
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert small.loaded() == [name]
        gate.touch()
        assert held.result().json() == [1]
    assert small.predict(MODELS[0], [POINT]) == [0.0]
    assert name not in small.loaded()


def test_an_unloaded_scripts_memory_is_free(small: Server, root: Path) -> None:
    source = """
import numpy as np
BIG = np.ones(10 << 20)
def model_fn(model_dir):
    return BIG
def predict_fn(data, model):
    return [float(BIG[0])]
"""
    name = script(root, "globals", source)
    assert small.predict(name) == [1.0]
    loaded = private(small)
    assert small.client.delete(f"/models/{name}").status_code == 200
    assert loaded - private(small) >= 60 << 20


def test_the_journal_says_what_left(small: Server) -> None:
    for name in (*MODELS, *MODELS):
        small.predict(name, [POINT])
    pages: list[dict[str, Any]] = []
    token = ""
    while not pages or token:
        page = small.client.get("/evictions", params={"limit": 3, "next_page_token": token}).json()
        pages += page["evictions"]
        token = page.get("nextPageToken", "")
        assert len(page["evictions"]) == 3 or not token
    assert [left["number"] for left in pages] == list(range(len(pages), 0, -1))
    rooms = [left for left in pages if left["reason"] == "room" and left["modelName"] in MODELS]
    assert rooms
    assert rooms[0]["bytes"] >= SIZE
    assert rooms[0]["loadSeconds"] > 0
    assert rooms[0]["uses"] >= 1
    for query in ({"next_page_token": "bm9uZQ=="}, {"limit": "x"}):
        assert small.client.get("/evictions", params=query).status_code == 400
    done = CliRunner().invoke(cli, ["evictions", "--url", small.url, "--limit", "2", "--json"])
    assert [left["number"] for left in json.loads(done.output)] == [len(pages), len(pages) - 1]
    done = CliRunner().invoke(cli, ["evictions", "--url", small.url])
    assert done.output.splitlines()[0].split() == ["Left", "Artifact", "Reason", "Memory", "Load", "Uses", "Idle"]
    assert pages[0]["modelName"] in done.output

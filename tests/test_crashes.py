"""Workers that are killed under load, and a server that is told to stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
from serving import FLOWER, Server, constant, script, serve, until, waits

from manymodels.media import JSON

CLIENTS = 16
BUSY = """
import time
def model_fn(model_dir):
    return "model"
def predict_fn(data, model):
    time.sleep(0.002)
    return [1]
"""

#: Forks a process that ends as the request says, and answers with its exit code.
FORKS = """
import json, multiprocessing, os, sys, time

def model_fn(model_dir):
    return "model"

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(data, model):
    if data == "Process":
        process = multiprocessing.get_context("fork").Process(target=len, args=("",))
        process.start()
        process.join()
        return process.exitcode
    pid = os.fork()
    if not pid:
        if data == "os._exit":
            os._exit(0)
        if data == "sys.exit":
            sys.exit(0)
        if data == "raise":
            raise RuntimeError
        while data != "return" and not os.path.exists(data):
            time.sleep(0.01)
        return "forked"
    return pid if "/" in data else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crash-store")
    for number in range(4):
        constant(root / f"m{number}" / "model.joblib", 1.0)
    script(root, "busy", BUSY)
    script(root, "forks", FORKS)
    return root


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("running"), root, "--workers", "2") as server:
        yield server


def ask(server: Server, names: list[str], done: Event) -> list[tuple[int, str]]:
    """Ask as fast as answers come; return what was answered."""
    replies = []
    while not done.is_set():
        for name in names:
            reply = server.invoke(name, [FLOWER])
            replies.append((reply.status_code, reply.text))
    return replies


def test_a_killed_worker_costs_what_it_was_running(running: Server) -> None:
    names = ["busy", *(f"m{number}" for number in range(4))]
    for name in names:
        assert len(running.predict(name)) == 1
    [old] = running.workers("busy")
    done = Event()
    with ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(ask, running, names, done) for _ in range(CLIENTS)]
        until(lambda: running.predict("busy"), "it is under load")
        os.kill(old, signal.SIGKILL)
        until(lambda: old not in _holders(running, "busy"), "another worker holds the model")
        for _ in range(20):
            running.invoke("busy", [FLOWER])
        done.set()
        replies = [reply for future in asking for reply in future.result()]
    failed = [text for status, text in replies if status != 200]
    assert {status for status, _ in replies} <= {200, 500}
    assert len(failed) <= CLIENTS
    assert all("was ended by SIGKILL while it answered" in text for text in failed)
    assert len(replies) > CLIENTS * len(names)
    for name in names:
        assert len(running.predict(name)) == 1
    assert len({pid for name in names for pid in running.workers(name)} - {old}) >= 1


def _holders(server: Server, name: str) -> list[int]:
    reply = server.client.get(f"/models/{name}")
    return reply.json()["workers"] or [0] if reply.status_code == 200 else []


def test_only_the_group_that_was_running_fails(running: Server, root: Path, tmp_path: Path) -> None:
    """One invocation runs, others of its model and of others wait behind it; then the worker is killed."""
    gate = tmp_path / "gate"
    name = script(root, "victim", waits(gate))
    waiting = gate.with_name("gate.waiting")
    with ThreadPoolExecutor(CLIENTS) as threads:
        first = threads.submit(running.invoke, name, [FLOWER])
        until(waiting.exists, "it runs")
        [worker] = set(waiting.read_text().split())
        others = [threads.submit(running.invoke, f"m{number}", [FLOWER]) for number in range(4)]
        behind = [threads.submit(running.invoke, name, [FLOWER]) for _ in range(4)]
        assert all(other.result().status_code == 200 for other in others)
        os.kill(int(worker), signal.SIGKILL)
        reply = first.result()
        assert reply.status_code == 500
        assert reply.json()["type"] == "WorkerDied"
        assert "'victim' was ended by SIGKILL while it answered" in reply.json()["message"]
        assert "server-timing" in reply.headers
        gate.touch()
        assert [future.result().json() for future in behind] == [[1]] * 4
    assert worker not in map(str, running.workers(name))


@pytest.mark.parametrize(
    ("how", "code"), [("os._exit", 0), ("Process", 0), ("return", 1), ("sys.exit", 1), ("raise", 1)]
)
def test_a_process_that_a_model_forks_is_no_worker(running: Server, how: str, code: int) -> None:
    for _ in range(2):
        reply = running.invoke("forks", json.dumps(how), content_type=JSON)
        assert (reply.status_code, reply.json()) == (200, code)
    assert "broke the protocol" not in running.log()
    if code:
        until(lambda: "came back from its code" in running.log(), "its author is told")


def test_a_worker_is_missed_though_what_its_model_forked_lives_on(running: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    assert running.invoke("forks", json.dumps(str(gate)), content_type=JSON).status_code == 200
    [old] = running.workers("forks")
    os.kill(old, signal.SIGKILL)
    until(lambda: old not in _holders(running, "forks"), "it is missed")
    gate.touch()


def test_the_zygote_may_die_too(running: Server) -> None:
    assert running.predict("m0") == [1.0]
    front, *below = running.processes()
    [zygote] = front.children()
    assert zygote in below
    zygote.kill()

    def answered() -> bool:
        return all(running.invoke(f"m{number}", [FLOWER]).status_code == 200 for number in range(4))

    until(answered, "workers are there again")
    assert running.client.get("/ping").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_invocations_are_answered_before_it_stops(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    gate = tmp_path / "gate"
    name = script(root, f"last-{number.name}", waits(gate))
    with serve(tmp_path, root, "--workers", "2") as server, ThreadPoolExecutor(4) as threads:
        assert server.predict("m0") == [1.0]
        tree = server.processes()
        last = [threads.submit(server.invoke, name, [FLOWER]) for _ in range(3)]
        waiting = "\nmanymodels_waiting_invocations 3.0\n"
        until(lambda: waiting in server.client.get("/metrics").text, "all have come")
        until(gate.with_name("gate.waiting").exists, "they run")
        server.process.send_signal(number)
        until(lambda: _refuses(server), "no more connections are taken")
        gate.touch()
        assert [future.result().json() for future in last] == [[1]] * 3
        assert "stopping: what is being answered has 20 s" in server.log()
        assert server.process.wait(60) == 0
        until(lambda: not any(process.is_running() for process in tree), "the process tree is gone")


def _refuses(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/ping", trust_env=False)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def test_the_tree_goes_with_a_killed_front(root: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit code -9"), serve(tmp_path, root, "--workers", "2") as server:  # noqa: PT012
        assert server.predict("m0") == [1.0]
        tree = server.processes()
        server.process.kill()
        server.process.wait()
        until(lambda: not any(process.is_running() for process in tree), "the process tree is gone")

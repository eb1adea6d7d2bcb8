"""The benchmarks: one scenario of ours from end to end; the load generator, which must notice wrong answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.servers import Place, Running, running
from benchmarks.servers.base import free_port
from benchmarks.servers.ours import Bare

ROOT = Path(__file__).resolve().parent.parent


def test_a_run_writes_a_page(tmp_path: Path) -> None:
    options = ["--server", "ours", "--scenario", "many", "--quick", "--seconds", "0.2"]
    options += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "page.md")]
    command = [sys.executable, "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "page.json").read_text())["runs"]
    assert run["error"] == ""
    assert run["cells"]["20"]["good"] > 0
    assert run["cells"]["20"]["wrong"] == run["cells"]["20"]["refused"] == run["cells"]["20"]["failed"] == 0
    assert "\n| ours | " in (tmp_path / "page.md").read_text()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that answers ``[1]`` to whatever it is asked."""
    folder = tmp_path_factory.mktemp("bare")
    with running(Bare(), Place(Path(sys.executable), folder, folder, free_port())) as started:
        yield started


def plan(port: int, expected: float) -> load.Plan:
    question = load.Question(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n0", expected)
    return load.Plan(port, [question], connections=3, warm=0, seconds=50, counted=True)


def test_right_answers_are_counted(bare: Running) -> None:
    outcome = load.Load(plan(bare.place.port, 1.0)).outcome()
    assert outcome.good >= 50
    assert (outcome.wrong, outcome.refused, outcome.failed, outcome.first_problem) == (0, 0, 0, "")
    assert 0 < outcome.p50 <= outcome.p99 <= outcome.longest


def test_wrong_answers_do_not_count(bare: Running) -> None:
    outcome = load.Load(plan(bare.place.port, 2.0)).outcome()
    assert (outcome.good, outcome.rate) == (0, 0)
    assert outcome.wrong >= 50
    assert "[1]" in outcome.first_problem


def test_refusals_do_not_count(bare: Running) -> None:
    asked = plan(bare.place.port, 1.0)
    asked = replace(asked, questions=[load.Question(b"nonsense\r\n\r\n", 1.0)])
    outcome = load.Load(asked).outcome()
    assert outcome.good == 0
    assert outcome.refused >= 50


def test_no_server_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="refused"):
        load.Load(plan(free_port(), 1.0)).outcome()


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]", b"[1]"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n", b"[1]"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
    ],
)
def test_whole_replies(reply: bytes, body: bytes | None) -> None:
    assert load.body_of(reply) == body


@pytest.mark.parametrize(
    ("body", "where", "right"),
    [
        (b"[1]", [], True),
        (b"[0]", [], False),
        (b"[1, 1]", [], False),
        (b'{"outputs": [{"data": [1.0000000001]}]}', ["outputs", 0, "data"], True),
        (b'{"outputs": []}', ["outputs", 0, "data"], False),
        (b"<html>", [], False),
    ],
)
def test_right_bodies(body: bytes, where: list[str | int], right: bool) -> None:
    assert load.is_right(body, where, 1) == right


def test_loads_are_told_from_hits() -> None:
    assert load.was_loaded(b"server-timing: load;dur=1.5", b"load;dur=")
    assert not load.was_loaded(b"server-timing: load;dur=0.000", b"load;dur=")
    assert not load.was_loaded(b"server-timing: predict;dur=1", b"load;dur=")

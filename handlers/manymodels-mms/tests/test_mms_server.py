"""The model server that is multi-model-server: what it is told and what it answers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from manymodels_mms.backend import MmsServer, create
from manymodels_mms.engine import Engine
from pools import BINDING, OTHERS, PATIENCE, Toys, ended, until

from manymodels.errors import (
    LoadFailed,
    ModelAlreadyLoaded,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    PredictionFailed,
    WorkerDied,
)
from manymodels.invocation import Invocation
from manymodels.plugins import Binding
from manymodels.settings import load

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def ask(server: MmsServer, name: str, timeout: float = PATIENCE, **orders: Any) -> dict[str, Any]:
    """Invoke a model, which does what it is ordered; return its answer."""
    answer = await server.invoke(name, Invocation(json.dumps(orders).encode()), timeout)
    content: dict[str, Any] = json.loads(answer.body)
    return content


def engine_of(server: MmsServer) -> Engine:
    """Return the run of multi-model-server behind a server."""
    assert server._engine is not None
    return server._engine


def files(folder: Path) -> set[str]:
    """Return what multi-model-server has in its folder; Java's own files aside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "netty" not in path.name}


def processes() -> set[int]:
    """Return all processes below this one that have not ended."""
    return {child.pid for child in psutil.Process().children(recursive=True) if not ended(child.pid)}


async def test_a_model_is_loaded_answers_and_is_unloaded(server: MmsServer, toys: Toys, tmp_path: Path) -> None:
    assert server.healthy()
    assert server.models() == []
    counter = tmp_path / "counter"
    path = toys.artifact("b", note="made by hand", counter=str(counter))
    description = await server.load("b", path, BINDING)
    await server.load("a", toys.artifact("a"), BINDING)
    assert [model.name for model in server.models()] == ["a", "b"]
    assert server.describe("b") == description
    assert (description.path, description.plugin, description.framework) == (str(path), "toy", None)
    assert list(description.notes) == ["made by hand"]
    assert description.load_seconds > 0
    assert MIB < description.bytes < 100 * MIB
    assert server.used() == sum(model.bytes for model in server.models())
    with pytest.raises(ModelAlreadyLoaded, match="'b' is loaded already"):
        await server.load("b", path, BINDING)

    answer = await ask(server, "b", tag=1)
    assert answer == {"pid": description.workers[0], "joined": 1, "model": "b", "version": None, "tag": 1}

    await server.unload("b")
    assert ended(description.workers[0]), "its memory is free when unload returns"
    assert counter.read_text() == "load\nunload\n"
    for call in (ask(server, "b"), server.unload("b")):
        with pytest.raises(ModelNotFound, match="'b' is not loaded"):
            await call
    with pytest.raises(ModelNotFound):
        server.describe("b")
    assert (await ask(server, "a"))["model"] == "a"
    await server.unload("a")
    assert server.used() == 0


@pytest.mark.parametrize(
    "name", ["a b/c.tar.gz", "modèle/日本", "%2e%2e", 'quo"te\\', "..", "x" * 1024, "a?b&c=d#e", "-", "new\nline"]
)
async def test_names_may_be_any_text(server: MmsServer, toys: Toys, name: str) -> None:
    await server.load(name, toys.artifact("model"), BINDING)
    assert (await ask(server, name))["model"] == name
    await server.unload(name)


async def test_paths_may_be_any_text(server: MmsServer, tmp_path: Path) -> None:
    toys = Toys(tmp_path / "mod\u00e8le \u65e5\u672c=\u00a7 '\"\\")
    (tmp_path / "mod\u00e8le \u65e5\u672c=\u00a7 '\"\\").mkdir()
    await server.load("m", toys.artifact("a b"), BINDING)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_files_that_multi_model_server_would_follow_are_not_seen_by_it(server: MmsServer, toys: Toys) -> None:
    path = toys.artifact("m")
    manifest = {"runtime": "/bin/false", "model": {"modelName": "x", "handler": "nothing:there"}}
    (path / "MAR-INF").mkdir()
    (path / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (path / "MANIFEST.json").write_text("not JSON")
    (path / "logging.py").write_text("raise SystemExit")  # a module that would shadow the library's
    await server.load("m", path, BINDING)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_invocations_that_wait_are_joined(server: MmsServer, toys: Toys) -> None:
    gate = toys.gate()
    await server.load("m", toys.artifact("m"), BINDING)
    first = asyncio.ensure_future(ask(server, "m", wait=str(gate), tag=0))
    await gate.reached()
    rest = [asyncio.ensure_future(ask(server, "m", tag=tag)) for tag in range(1, 100)]
    failing = asyncio.ensure_future(ask(server, "m", error="no"))
    await asyncio.sleep(0)
    gate.open()
    answers = await asyncio.gather(first, *rest)
    assert [answer["tag"] for answer in answers] == list(range(100))
    assert [answer["joined"] for answer in answers[:65]] == [1, *[64] * 64]
    with pytest.raises(PredictionFailed, match=r"^'m' failed: RuntimeError: no$"):
        await failing
    await server.unload("m")


async def test_large_bodies_both_ways(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    tag = "x" * (6 * MIB - 100)
    answers = await asyncio.gather(*(ask(server, "m", tag=tag) for _ in range(3)))
    assert [answer["tag"] == tag for answer in answers] == [True] * 3
    await server.unload("m")


async def test_a_failed_load_says_why_and_leaves_nothing(server: MmsServer, toys: Toys) -> None:
    folder = engine_of(server).folder
    before = files(folder), processes()
    for orders, error, message in (
        ({"error": "bad weights"}, LoadFailed, "'m' cannot be loaded by the plugin 'toy': RuntimeError: bad weights"),
        ({"allocate": 8 << 30}, OutOfMemory, "memory ran out while loading 'm'"),
    ):
        with pytest.raises(error) as caught:
            await server.load("m", toys.artifact("m", **orders), BINDING)
        assert type(caught.value) is error
        assert str(caught.value) == message
        assert server.models() == []
        assert server.used() == 0
    with pytest.raises(LoadFailed, match="'nothing' of 'missing' cannot be read: No such file"):
        await server.load("missing", toys.artifact("m") / "nothing", BINDING)
    with pytest.raises(LoadFailed, match="The plugin 'other' is not installed"):
        await server.load("m", toys.artifact("m"), Binding("other"))
    await until(lambda: (files(folder), processes()) == before, "all is as it was")
    await server.load("m", toys.artifact("m"), BINDING)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_memory_that_runs_out_while_predicting(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    with pytest.raises(OutOfMemory, match="memory ran out while 'm' answered"):
        await ask(server, "m", allocate=8 << 30)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_memory_is_what_the_processes_take(server: MmsServer, toys: Toys) -> None:
    small = await server.load("small", toys.artifact("small"), BINDING)
    large = await server.load("large", toys.artifact("large", kept=64 * MIB), BINDING)
    assert 60 * MIB < large.bytes - small.bytes < 70 * MIB
    await server.unload("small")
    await server.unload("large")


async def test_what_a_model_prints_and_logs_reaches_our_log(
    server: MmsServer, toys: Toys, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await server.load("talker", toys.artifact("m", say="while loading"), BINDING)
        await ask(server, "talker", say="  printed \u00e9", log='logged "so"')
        with pytest.raises(PredictionFailed):
            await ask(server, "talker", error="with a traceback")
        await until(lambda: "with a traceback" in caplog.text, "it is logged")
    said = {
        (record.levelname, record.getMessage().split("\n")[0]) for record in caplog.records if _about(record, "talker")
    }
    assert said == {
        ("INFO", "while loading"),
        ("INFO", "  printed \u00e9"),
        ("WARNING", 'logged "so"'),
        ("ERROR", "predict of 'talker' failed"),
    }
    assert "Traceback" in caplog.text
    await server.unload("talker")


async def test_what_a_model_prints_does_not_pass_through_java(
    server: MmsServer, toys: Toys, caplog: pytest.LogCaptureFixture
) -> None:
    (pid,) = (await server.load("m", toys.artifact("m"), BINDING)).workers
    folder = engine_of(server).store
    assert {Path(os.readlink(f"/proc/{pid}/fd/{number}")).relative_to(folder).name for number in (1, 2)} == {"output"}
    with caplog.at_level(logging.INFO):
        assert (await ask(server, "m", print=20, width=MIB, tag=1))["tag"] == 1
        with pytest.raises(WorkerDied):
            await ask(server, "m", say="the last words", exit=3)
        await until(lambda: "the last words" in caplog.text, "they are logged")
    assert max(len(record.getMessage()) for record in caplog.records if _about(record, "m")) < 10_000
    await server.unload("m")


def _about(record: logging.LogRecord, model: str) -> bool:
    return getattr(record, "model", None) == model


@pytest.mark.parametrize("line", ["[PID] no number", "[METRICS]no metric", "MMS worker started.", "\x1e[1", "{}"])
async def test_lines_that_mean_something_to_multi_model_server(server: MmsServer, toys: Toys, line: str) -> None:
    await server.load("m", toys.artifact("m", say=line), BINDING)
    for _ in range(2):
        assert (await ask(server, "m", tag=1))["tag"] == 1
    await server.unload("m")


async def test_more_invocations_than_may_wait_are_refused(server: MmsServer, toys: Toys) -> None:
    gate = toys.gate()
    await server.load("m", toys.artifact("m"), BINDING)
    calls = [asyncio.ensure_future(ask(server, "m", wait=str(gate), alone=1)) for _ in range(4096)]
    await gate.reached()
    with pytest.raises(Overloaded, match="4096 invocations of 'm' are waiting already"):
        await ask(server, "m")
    for call in calls:
        call.cancel()
    gate.open()
    await asyncio.wait(calls)
    assert (await ask(server, "m", tag=1))["tag"] == 1
    await server.unload("m")


async def test_loads_and_unloads_leave_nothing(server: MmsServer, toys: Toys) -> None:
    path, engine = toys.artifact("m"), engine_of(server)
    await server.load("m", path, BINDING)
    await server.unload("m")
    assert engine.guard is not None
    assert engine.zygote is not None
    java = psutil.Process(engine.guard.pid).children()[0]
    zygote = psutil.Process(engine.zygote.process.pid)

    def state() -> tuple[Any, ...]:
        return files(engine.folder), processes(), os.listdir("/proc/self/fd"), zygote.num_fds()

    before, threads, fds = state(), java.num_threads(), java.num_fds()
    memory = zygote.memory_full_info().uss
    for _ in range(100):
        await server.load("m", path, BINDING)
        assert (await ask(server, "m"))["model"] == "m"
        await server.unload("m")
    await until(lambda: state() == before, "all is as it was")
    assert zygote.memory_full_info().uss < memory + MIB
    # It keeps some threads for the next models.
    await until(lambda: java.num_threads() <= threads + 16 and java.num_fds() <= fds + 16, "Java is as it was")


async def test_many_models_at_a_time(server: MmsServer, toys: Toys) -> None:
    names = [f"m{number}" for number in range(30)]
    await asyncio.gather(*(server.load(name, toys.artifact(name, version=name), BINDING) for name in names))
    answers = await asyncio.gather(*(ask(server, name, tag=name) for name in names for _ in range(3)))
    assert [answer["version"] for answer in answers] == [name for name in names for _ in range(3)]
    assert len({answer["pid"] for answer in answers}) == 30
    await asyncio.gather(*(server.unload(name) for name in names))
    assert server.models() == []


async def test_servers_side_by_side(server: MmsServer, toys: Toys) -> None:
    other = create(load(block_plugins=OTHERS, memory="1GiB"))
    await other.start(None)
    await asyncio.gather(*(each.load("m", toys.artifact("m"), BINDING) for each in (server, other)))
    answers = [await ask(each, "m") for each in (server, other)]
    assert answers[0]["pid"] != answers[1]["pid"]
    await other.stop()
    assert not other.healthy()
    assert (await ask(server, "m"))["pid"] == answers[0]["pid"]
    await server.unload("m")

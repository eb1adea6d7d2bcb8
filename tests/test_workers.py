"""The pool of worker processes: what it is told and what it answers, with both ways to start workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from pools import BINDING, PATIENCE, Toys, ask, block, home, running, until

from manymodels.errors import (
    InvocationTimeout,
    LoadFailed,
    ModelAlreadyLoaded,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    PredictionFailed,
    WorkerDied,
)
from manymodels.plugins import Binding
from manymodels.server import memory, workers

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("start_method", ["fork", "spawn"])
MIB = 1 << 20


@both
async def test_models_are_loaded_answer_and_are_unloaded(toys: Toys, start_method: str) -> None:
    async with running(start_method=start_method) as pool:
        assert pool.healthy()
        assert pool.models() == []
        assert pool.used() == 0
        path = toys.artifact("b", note="made by hand")
        description = await pool.load("b", path, BINDING)
        await toys.load(pool, "a")

        assert [model.name for model in pool.models()] == ["a", "b"]
        assert pool.describe("b") == description
        assert (description.path, description.plugin, description.framework) == (str(path), "toy", None)
        assert list(description.notes) == ["made by hand"]
        assert description.bytes > 0
        assert description.load_seconds > 0
        assert pool.used() == sum(model.bytes for model in pool.models())

        answer = await ask(pool, "b", tag=1)
        assert answer == {"pid": home(pool, "b"), "joined": 1, "model": "b", "version": None, "tag": 1}

        await pool.unload("b")
        assert [model.name for model in pool.models()] == ["a"]
        with pytest.raises(ModelNotFound, match="'b' is not loaded"):
            await ask(pool, "b")
        with pytest.raises(ModelNotFound, match="'b' is not loaded"):
            pool.describe("b")
        with pytest.raises(ModelNotFound, match="'b' is not loaded"):
            await pool.unload("b")
    assert not pool.healthy()


@both
async def test_a_workers_output_and_log_reach_the_servers_log(
    toys: Toys, start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(start_method=start_method) as pool:
        await toys.load(pool, "m", note="made by hand")
        gate = toys.gate()
        call = asyncio.create_task(ask(pool, "m", say="hello", log="beware", wait=str(gate)))
        await until(lambda: {"hello", "beware"} <= set(caplog.messages), "the lines are logged")
        worker = home(pool, "m")
        gate.open()
        await call
    records = {record.getMessage(): record for record in caplog.records}
    for line, name, level in (("hello", "manymodels.worker", logging.INFO), ("beware", "toy.script", logging.WARNING)):
        assert (records[line].name, records[line].levelno) == (name, level)
        assert (vars(records[line])["model"], vars(records[line])["worker"]) == ("m", worker)
    assert vars(records["made by hand"])["model"] == "m"
    assert "toy.script" not in logging.root.manager.loggerDict  # which would keep every name a script makes up


async def test_a_model_is_loaded_once(toys: Toys) -> None:
    async with running() as pool:
        gate = toys.gate()
        first = asyncio.create_task(toys.load(pool, "m", wait=str(gate)))
        await gate.reached()
        with pytest.raises(ModelAlreadyLoaded, match="'m' is loaded already"):
            await pool.load("m", toys.artifact("m2"), BINDING)
        with pytest.raises(ModelNotFound):
            await ask(pool, "m")
        assert pool.models() == []
        gate.open()
        await first
        with pytest.raises(ModelAlreadyLoaded):
            await pool.load("m", toys.artifact("m2"), BINDING)
        assert (await ask(pool, "m"))["model"] == "m"


async def test_a_load_that_fails_says_why_and_leaves_nothing(toys: Toys) -> None:
    async with running() as pool:
        with pytest.raises(LoadFailed, match="'m' cannot be loaded by the plugin 'toy': RuntimeError: no weights"):
            await toys.load(pool, "m", error="no weights")
        with pytest.raises(LoadFailed, match="cannot be read"):
            await pool.load("m", toys.artifact("m") / "missing", BINDING)
        with pytest.raises(LoadFailed, match="'tensor' is not installed"):
            await pool.load("m", toys.artifact("m"), Binding("tensor"))
        assert pool.models() == []
        assert pool.used() == 0
        await toys.load(pool, "m")
        assert (await ask(pool, "m"))["model"] == "m"


async def test_errors_and_texts_that_are_not_utf8_cross_to_the_front(toys: Toys) -> None:
    async with running(workers=1) as pool:
        with pytest.raises(LoadFailed, match="RuntimeError: caf\\\\udce9"):
            await toys.load(pool, "m", error="caf\udce9")
        await toys.load(pool, "m", note="caf\udce9")
        assert list(pool.describe("m").notes) == ["caf\\udce9"]
        worker = home(pool, "m")
        with pytest.raises(PredictionFailed, match="RuntimeError: caf\\\\udce9"):
            await ask(pool, "m", error="caf\udce9")
        assert (await ask(pool, "m"))["pid"] == worker


async def test_an_exception_fails_its_invocation_alone(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        first = await block(pool, "m", gate)
        calls = [asyncio.create_task(ask(pool, "m", tag=tag, error="no" if tag == 3 else "")) for tag in range(6)]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(first, *calls, return_exceptions=True)
        failed = answers.pop(4)
        assert isinstance(failed, PredictionFailed)
        assert str(failed) == "'m' failed: RuntimeError: no"
        assert [answer["tag"] for answer in answers if isinstance(answer, dict)] == [None, 0, 1, 2, 4, 5]


@pytest.mark.parametrize(("flags", "sizes"), [({}, [7]), ({"max_batch": 3}, [1, 3, 3]), ({"batching": False}, [1])])
async def test_invocations_that_wait_are_joined(toys: Toys, flags: dict[str, Any], sizes: list[int]) -> None:
    async with running(workers=1, **flags) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        first = await block(pool, "m", gate)
        calls = [asyncio.create_task(ask(pool, "m", tag=tag)) for tag in range(7)]
        await asyncio.sleep(0)
        gate.open()
        assert (await first)["joined"] == 1
        answers = await asyncio.gather(*calls)
        assert sorted({answer["joined"] for answer in answers}) == sorted(set(sizes))
        assert [answer["tag"] for answer in answers] == list(range(7))


async def test_a_full_queue_is_refused(toys: Toys) -> None:
    async with running(queue_size=2, slow_after=0.1) as pool:
        await toys.load(pool, "m")
        await toys.load(pool, "other")
        gate = toys.gate()
        calls = [asyncio.create_task(ask(pool, "m", wait=str(gate))) for _ in range(2)]
        await gate.reached()
        with pytest.raises(Overloaded, match="2 invocations of 'm' are waiting already"):
            await ask(pool, "m")
        assert (await ask(pool, "other"))["model"] == "other"
        gate.open()
        await asyncio.gather(*calls)
        await ask(pool, "m")


async def test_a_client_that_left_is_not_answered(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate, never = toys.gate(), toys.gate("never")
        first = await block(pool, "m", gate)
        gone = asyncio.create_task(ask(pool, "m", wait=str(never)))
        kept = asyncio.create_task(ask(pool, "m", tag=1))
        await asyncio.sleep(0)
        gone.cancel()
        gate.open()
        await first
        assert (await kept)["joined"] == 1
        assert not never.was_reached


async def test_what_waits_for_an_unloaded_model_is_answered(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        first = await block(pool, "m", gate)
        waiting = asyncio.create_task(ask(pool, "m"))
        await asyncio.sleep(0)
        unload = asyncio.create_task(pool.unload("m"))
        with pytest.raises(ModelNotFound, match="'m' was unloaded"):
            await waiting
        assert not unload.done()
        gate.open()
        assert (await first)["model"] == "m"
        await unload
        assert pool.used() == 0


async def test_deadlines_of_waiting_invocations_are_kept_in_any_order(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        first = await block(pool, "m", gate)
        patient = asyncio.create_task(ask(pool, "m"))
        await asyncio.sleep(0)
        with pytest.raises(InvocationTimeout, match=r"'m' did not answer within 0.1 s: .* still waiting for its turn"):
            await ask(pool, "m", timeout=0.1)
        assert not patient.done()
        gate.open()
        await asyncio.gather(first, patient)


async def test_a_budget_refuses_what_does_not_fit(toys: Toys) -> None:
    async with running(memory="80MiB") as pool:
        await toys.load(pool, "a", kept=40 * MIB)
        assert 40 * MIB <= pool.used() < 60 * MIB
        (toys.artifact("big") / "weights").write_bytes(bytes(30 * MIB))
        with pytest.raises(
            OutOfMemory, match=r"no room for 'big': it needs about 45.0 MiB, and 4.* of 80.0 MiB"
        ) as full:
            await pool.load("big", toys.artifact("big"), BINDING)
        assert full.value.eviction_helps
        assert [model.name for model in pool.models()] == ["a"]

        (toys.artifact("huge") / "weights").write_bytes(bytes(60 * MIB))
        with pytest.raises(OutOfMemory) as full:
            await pool.load("huge", toys.artifact("huge"), BINDING)
        assert not full.value.eviction_helps

        await pool.unload("a")
        await pool.load("big", toys.artifact("big"), BINDING)
        assert pool.used() >= 30 * MIB


async def test_a_model_that_takes_more_than_there_is_fails_and_its_worker_lives(toys: Toys) -> None:
    async with running(memory="200MiB", workers=1) as pool:
        await toys.load(pool, "m")
        worker = home(pool, "m")
        with pytest.raises(OutOfMemory, match="memory ran out while loading 'greedy'"):
            await toys.load(pool, "greedy", kept=400 * MIB)
        with pytest.raises(OutOfMemory, match="memory ran out while 'm' answered"):
            await ask(pool, "m", allocate=400 * MIB)
        assert (await ask(pool, "m"))["pid"] == worker


async def test_the_default_budget_is_the_containers(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total", lambda: 10 * MIB)
    async with running(memory=None, workers=1) as pool:
        (toys.artifact("m") / "weights").write_bytes(bytes(3 * MIB))
        with pytest.raises(OutOfMemory, match=r"of 2.5 MiB are taken; raise --memory"):
            await pool.load("m", toys.artifact("m"), BINDING)


async def test_a_thousand_loads_leave_nothing_behind(toys: Toys, tmp_path: Path) -> None:
    async with running() as pool:
        path = toys.artifact("m", counter=str(tmp_path / "counter"))
        before = len(os.listdir("/proc/self/fd"))
        processes = psutil.Process().children(recursive=True)
        for number in range(1000):
            await pool.load(f"m{number}", path, BINDING)
            await pool.unload(f"m{number}")
        assert len(os.listdir("/proc/self/fd")) == before
        assert psutil.Process().children(recursive=True) == processes
        assert (pool.models(), pool.used()) == ([], 0)
        assert (tmp_path / "counter").read_text() == "load\nunload\n" * 1000


async def test_a_name_may_come_back_while_its_first_load_is_abandoned(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "other")
        gate, second = toys.gate(), toys.gate("second")
        call = await block(pool, "other", gate)
        abandoned = asyncio.create_task(pool.load("m", toys.artifact("m-1", version=1), BINDING))
        await until(lambda: any(slot.control for slot in pool._fleet.shared), "the load is queued")
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        again = asyncio.create_task(pool.load("m", toys.artifact("m-2", version=2, wait=str(second)), BINDING))
        await asyncio.sleep(0.05)
        gate.open()
        await second.reached()
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        third = asyncio.create_task(pool.load("m", toys.artifact("m-3", version=3), BINDING))
        await asyncio.sleep(0.05)
        second.open()
        await asyncio.gather(third, call)
        assert (await ask(pool, "m"))["version"] == 3
        assert [model.name for model in pool.models()] == ["m", "other"]


@both
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.1])
async def test_stopping_while_a_worker_is_replaced(toys: Toys, start_method: str, pause: float) -> None:
    async with running(start_method=start_method) as pool:
        await toys.load(pool, "m")
        os.kill(home(pool, "m"), signal.SIGKILL)
        await asyncio.sleep(pause)
    assert not pool.healthy()


async def test_what_does_not_end_when_the_server_stops_is_told(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STOP_TIMEOUT", 0.2)
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        never = toys.gate("never")
        calls = [asyncio.create_task(ask(pool, "m", wait=str(never)))]
        await never.reached()
        calls.append(asyncio.create_task(ask(pool, "m")))
    for call in calls:
        with pytest.raises(WorkerDied, match="the server stopped before 'm' answered"):
            await call


@both
async def test_stopping_does_not_wait_for_what_nobody_waits_for(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    monkeypatch.setattr(workers, "STOP_TIMEOUT", 10 * PATIENCE)
    never = toys.gate("never")
    async with running(workers=1, start_method=start_method) as pool:
        await toys.load(pool, "m")
        await toys.load(pool, "other")
        gone: list[asyncio.Task[Any]] = [await block(pool, "m", never)]
        gone.append(asyncio.create_task(toys.load(pool, "behind")))
        await until(lambda: any(slot.control for slot in pool._fleet.shared), "the load is queued")
        gone.append(asyncio.create_task(pool.unload("other")))
        await until(lambda: len(pool._fleet.shared[0].control) > 1, "the unload, too")
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        asyncio.get_running_loop().call_later(PATIENCE / 2, never.open)
    assert not never.is_open


@both
async def test_stopping_lets_what_runs_end(toys: Toys, start_method: str) -> None:
    async with running(start_method=start_method) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        call = await block(pool, "m", gate)
        asyncio.get_running_loop().call_later(0.1, gate.open)
    assert (await call)["model"] == "m"
    assert not [child for child in psutil.Process().children(recursive=True) if "manymodels" in str(child.cmdline())]

"""The pool when models misbehave: they die, hang, flood the log; and when the zygote is killed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import pytest
from pools import BINDING, PATIENCE, Toys, ask, block, ended, home, running, running_zygote, until

from manymodels.errors import InvocationTimeout, LoadFailed, ModelNotFound, ModelRefused, OutOfMemory, WorkerDied
from manymodels.server import conduct
from manymodels.server.messages import Dropped, frame
from manymodels.server.workers import WorkerPool

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("start_method", ["fork", "spawn"])


async def load_many(toys: Toys, pool: WorkerPool, count: int = 10) -> list[str]:
    """Load models, so that each of a few workers is the home of some."""
    names = [f"m{number}" for number in range(count)]
    for name in names:
        await toys.load(pool, name)
    return names


@both
@pytest.mark.parametrize(
    ("orders", "reason"), [({"kill": "SIGSEGV"}, "was ended by SIGSEGV"), ({"exit": 3}, "exited with code 3")]
)
async def test_a_crash_fails_the_model_that_ran_alone(
    toys: Toys, start_method: str, orders: dict[str, Any], reason: str
) -> None:
    async with running(start_method=start_method) as pool:
        names = await load_many(toys, pool)
        worker = home(pool, "m0")
        assert [name for name in names[1:] if home(pool, name) == worker]
        results = await asyncio.gather(
            ask(pool, "m0", **orders), *(ask(pool, name) for name in names[1:]), return_exceptions=True
        )
        assert isinstance(results[0], WorkerDied)
        assert str(results[0]) == f"the worker process of 'm0' {reason} while it answered"
        assert [answer["model"] for answer in results[1:] if isinstance(answer, dict)] == names[1:]

        assert [(await ask(pool, name))["model"] for name in names] == names
        assert home(pool, "m0") != worker
        with pytest.raises(LoadFailed, match=f"^the worker process {reason} while it loaded 'broken'$"):
            await toys.load(pool, "broken", **orders)
        assert [(await ask(pool, name))["model"] for name in names] == names


@both
async def test_a_model_past_its_deadline_is_ended_and_its_worker_replaced(toys: Toys, start_method: str) -> None:
    async with running(start_method=start_method, slow_after=0.1) as pool:
        names = await load_many(toys, pool)
        worker = home(pool, "m0")
        results = await asyncio.gather(
            ask(pool, "m0", timeout=1, wait=str(toys.gate("never"))),
            *(ask(pool, name) for name in names[1:]),
            return_exceptions=True,
        )
        assert isinstance(results[0], InvocationTimeout)
        assert str(results[0]) == "'m0' did not answer within 1 s: the invocation was still running"
        assert [answer["model"] for answer in results[1:] if isinstance(answer, dict)] == names[1:]
        await until(lambda: ended(worker), "the worker is gone")
        assert (await ask(pool, "m0"))["pid"] != worker


async def test_a_worker_killed_under_load_fails_at_most_the_group_in_flight(toys: Toys) -> None:
    async with running() as pool:
        names = await load_many(toys, pool, 20)
        victim = home(pool, "m0")
        failed: list[BaseException] = []
        answered = 0

        async def client(number: int) -> None:
            nonlocal answered
            for round_ in range(40):
                name = names[(number + round_) % len(names)]
                try:
                    assert (await ask(pool, name))["model"] == name
                    answered += 1
                except WorkerDied as error:
                    failed.append(error)
                if number == 0 and round_ == 10:
                    os.kill(victim, signal.SIGKILL)

        await asyncio.gather(*(client(number) for number in range(32)))
        assert answered + len(failed) == 32 * 40
        assert len({str(error) for error in failed}) <= 1
        assert all("was ended by SIGKILL while it answered" in str(error) for error in failed)
        assert ended(victim)
        assert [(await ask(pool, name))["model"] for name in names] == names


async def test_a_model_that_kills_its_workers_gets_its_own_and_is_then_refused(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "other")
        await toys.load(pool, "bad")
        with pytest.raises(WorkerDied):
            await ask(pool, "bad", exit=1)
        await asyncio.gather(ask(pool, "other"), ask(pool, "bad"))
        assert home(pool, "bad") == home(pool, "other")

        with pytest.raises(WorkerDied):
            await ask(pool, "bad", exit=1)
        await asyncio.gather(ask(pool, "other"), ask(pool, "bad"))
        shared = home(pool, "other")
        assert home(pool, "bad") != shared

        with pytest.raises(WorkerDied):
            await ask(pool, "bad", exit=1)
        refused = r"'bad' is refused for another 10 s: its worker process exited with code 1, 3 times"
        with pytest.raises(ModelRefused, match=refused):
            await ask(pool, "bad")
        assert (await ask(pool, "other"))["pid"] == shared

        await pool.unload("bad")
        with pytest.raises(ModelRefused, match="refused for another 10 s"):
            await pool.load("bad", toys.artifact("bad"), BINDING)
        # A new version of the artifact has another path.
        await pool.load("bad", toys.artifact("bad-2"), BINDING)
        assert (await ask(pool, "bad"))["model"] == "bad"


async def test_a_refusal_ends_and_good_conduct_clears_the_record(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    record = conduct.Conduct()
    for _ in range(4):
        record.killed("m", "/m", "was ended by SIGSEGV")
    with pytest.raises(ModelRefused):
        record.check("m", "/m")
    record.check("m", "/m-2")
    record.check("other", "/m")
    assert record.isolated("m", "/m")
    monkeypatch.setattr(conduct, "REFUSED", 0.01)
    record.killed("m", "/m", "was ended by SIGSEGV")
    await until(lambda: record.refusal("m", "/m") is None, "its time is up")
    record.check("m", "/m")
    monkeypatch.setattr(conduct, "FORGIVEN", 0.0)
    record.killed("m", "/m", "was ended by SIGSEGV")
    record.check("m", "/m")
    assert not record.isolated("m", "/m")


async def test_a_load_may_take_its_time_and_no_more(toys: Toys) -> None:
    async with running(workers=1, load_timeout=2) as pool:
        await toys.load(pool, "m")
        worker = home(pool, "m")
        with pytest.raises(LoadFailed, match=r"'stuck' did not load within 2 s"):
            await toys.load(pool, "stuck", wait=str(toys.gate("never")))
        assert [model.name for model in pool.models()] == ["m"]
        assert (await ask(pool, "m"))["pid"] != worker


async def test_a_model_that_hangs_when_it_is_loaded_again_is_ended_too(toys: Toys) -> None:
    async with running(workers=1, load_timeout=2) as pool:
        await toys.load(pool, "m")
        await toys.load(pool, "other")
        toys.artifact("m", wait=str(toys.gate("never")))
        with pytest.raises(WorkerDied):
            await ask(pool, "m", exit=1)
        with pytest.raises(LoadFailed, match="ended because it ran past the deadline while it loaded 'm'"):
            await ask(pool, "m")
        assert (await ask(pool, "other"))["model"] == "other"
        assert not pool._fleet.extra or all(slot.idle for slot in pool._fleet.extra)


async def test_a_model_that_cannot_be_loaded_again_fails_those_who_wait(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        toys.artifact("m", error="weights are gone")
        with pytest.raises(WorkerDied):
            await ask(pool, "m", exit=1)
        results = await asyncio.gather(*(ask(pool, "m") for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [LoadFailed] * 3
        assert "weights are gone" in str(results[0])
        toys.artifact("m")
        assert (await ask(pool, "m"))["model"] == "m"


async def test_the_kernel_ending_a_load_is_taken_for_want_of_memory(toys: Toys) -> None:
    async with running(workers=1) as pool:
        with pytest.raises(OutOfMemory, match="while loading 'm': its worker process was ended by SIGKILL"):
            await toys.load(pool, "m", kill="SIGKILL")


async def test_what_a_dead_worker_had_not_begun_is_done_again(toys: Toys) -> None:
    async with running(workers=1) as pool:
        for name in ("a", "b", "gone"):
            await toys.load(pool, name)
        gate = toys.gate()
        first = await block(pool, "a", gate)
        second = asyncio.create_task(ask(pool, "a", kill="SIGSEGV"))
        others = [asyncio.create_task(ask(pool, "b")), asyncio.create_task(toys.load(pool, "c"))]
        waits = asyncio.create_task(ask(pool, "gone"))
        await until(lambda: pool._fleet.shared[0].control, "the load is queued")
        unload = asyncio.create_task(pool.unload("gone"))
        await asyncio.sleep(0)
        gate.open()
        results = await asyncio.gather(first, second, *others, waits, unload, return_exceptions=True)
        assert isinstance(results[1], WorkerDied)
        assert isinstance(results[4], ModelNotFound)
        assert [error for error in results if isinstance(error, BaseException)] == [results[1], results[4]]
        assert (await ask(pool, "c"))["model"] == "c"
        assert {model.name for model in pool.models()} == {"a", "b", "c"}


async def test_a_model_with_its_own_worker_is_unloaded_while_it_runs(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "bad")
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await ask(pool, "bad", exit=1)
        worker = (await ask(pool, "bad"))["pid"]
        never = toys.gate("never")
        runs = await block(pool, "bad", never)
        waits = asyncio.create_task(ask(pool, "bad"))
        await asyncio.sleep(0)
        await pool.unload("bad")
        assert ended(worker)
        for call in (runs, waits):
            with pytest.raises(ModelNotFound, match="'bad' was unloaded"):
                await call
        await toys.load(pool, "bad")  # not refused: unloading it is not its fault
        assert (await ask(pool, "bad"))["model"] == "bad"


@both
async def test_a_script_that_prints_without_end_harms_nobody(
    toys: Toys, start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(start_method=start_method, slow_after=0.1) as pool:
        names = await load_many(toys, pool, 4)
        # 200 MB in long lines and in short ones.
        flood = asyncio.gather(ask(pool, "m0", print=3000, width=50_000), ask(pool, "m1", print=1000, width=50_000))
        while not flood.done():
            for name in names[2:]:
                assert (await ask(pool, name))["model"] == name
            await asyncio.sleep(0.01)
        await flood
    lines = [record.getMessage() for record in caplog.records if record.name == "manymodels.worker"]
    assert 0 < len(lines) < 4000
    assert max(map(len, lines)) <= 8192
    assert any("lines dropped: more than 200 a second" in line for line in lines)


@pytest.mark.parametrize("busy", [False, True])
async def test_everything_recovers_when_the_zygote_is_killed(toys: Toys, busy: bool) -> None:
    async with running() as pool:
        names = await load_many(toys, pool)
        zygote = running_zygote()
        workers = zygote.children()
        assert len(workers) == 2
        calls = []
        if busy:
            never = toys.gate("never")
            calls = [asyncio.create_task(ask(pool, "m0", wait=str(never)))]
            await never.reached()
            calls += [asyncio.create_task(ask(pool, name)) for name in names[1:]]
            await asyncio.sleep(0)
        zygote.kill()
        await until(lambda: all(ended(worker.pid) for worker in workers), "the workers are gone")
        results = await asyncio.gather(*calls, return_exceptions=True)
        if busy:
            assert isinstance(results[0], WorkerDied)
            assert sum(isinstance(result, WorkerDied) for result in results) <= 2
        assert [(await ask(pool, name))["model"] for name in names] == names
        await until(lambda: len(running_zygote().children()) == 2, "all workers are there again")


async def test_a_model_that_writes_into_its_connection_is_ended(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        await toys.load(pool, "other")
        with pytest.raises(WorkerDied):
            await ask(pool, "m", garbage=64)
        assert (await ask(pool, "other"))["model"] == "other"


async def test_a_worker_that_leaves_out_what_nobody_cancelled(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        call = asyncio.ensure_future(ask(pool, "m", wait=str(gate)))
        await gate.reached()
        (slot,) = pool._fleet.shared
        slot.data_received(frame([Dropped([slot.sent[0].number])]))
        with pytest.raises(WorkerDied):
            await asyncio.wait_for(call, PATIENCE)
        assert (await ask(pool, "m"))["model"] == "m"


async def test_models_of_a_dead_worker_keep_their_room(toys: Toys) -> None:
    async with running(workers=1, memory="100MiB") as pool:
        for name in ("a", "b"):
            await toys.load(pool, name, kept=20 << 20)
        used = pool.used()
        victim = home(pool, "a")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: ended(victim) and pool.describe("a").workers == (), "the worker is gone")
        assert pool.used() == used
        assert [(await ask(pool, name))["model"] for name in ("a", "b")] == ["a", "b"]
        assert pool.used() < used + (20 << 20)
        await pool.unload("a")
        await pool.unload("b")
        assert pool.used() == 0


async def test_another_content_of_an_artifact_starts_with_a_clean_record(toys: Toys) -> None:
    async with running(workers=1) as pool:
        artifact = toys.artifact("m", exit=3)
        for _ in range(3):
            with pytest.raises(LoadFailed, match="exited with code 3"):
                await pool.load("m", artifact, BINDING, "first")
        with pytest.raises(ModelRefused):
            await pool.load("m", artifact, BINDING, "first")
        await pool.load("m", toys.artifact("m"), BINDING, "second")
        assert (await ask(pool, "m"))["model"] == "m"

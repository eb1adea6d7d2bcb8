"""Where the pool puts work: no model waits for another that takes its time. Models wait at gates, not for the clock."""

from __future__ import annotations

import asyncio

import pytest
from pools import Toys, ask, block, ended, home, running, until

from manymodels.server import fleet

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("start_method", ["fork", "spawn"])
#: So that tests need not wait long until a job counts as one that holds others up.
SOON = 0.2


@both
async def test_a_slow_model_holds_up_no_other(toys: Toys, start_method: str) -> None:
    async with running(start_method=start_method, slow_after=SOON) as pool:
        names = [f"m{number}" for number in range(12)]
        for name in names:
            await toys.load(pool, name)
        worker = home(pool, "m0")
        neighbours = [name for name in names[1:] if home(pool, name) == worker]
        assert neighbours
        gate = toys.gate()
        slow = await block(pool, "m0", gate)
        # Those sent along with it or queued behind it move; those that come later go elsewhere at once.
        for _ in range(2):
            answers = await asyncio.gather(*(ask(pool, name) for name in names[1:]))
            assert [answer["model"] for answer in answers] == names[1:]
            assert worker not in {answer["pid"] for answer in answers}
        own = asyncio.create_task(ask(pool, "m0", tag="later"))
        await asyncio.sleep(2 * SOON)
        assert not slow.done()
        assert not own.done()
        gate.open()
        assert (await slow)["pid"] == worker
        assert (await own)["pid"] == worker
        # Back home, since nothing holds them up there.
        assert {(await ask(pool, name))["pid"] for name in neighbours} == {worker}


async def test_what_was_sent_in_one_frame_with_a_slow_job_moves(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON) as pool:
        for name in ("a", "slow", "c"):
            await toys.load(pool, name)
        shared = home(pool, "a")
        first, gate = toys.gate("first"), toys.gate()
        calls = [await block(pool, "a", first)]
        # All three wait and are sent in one frame as soon as the first has ended.
        calls.append(asyncio.create_task(ask(pool, "slow", wait=str(gate))))
        rest = [asyncio.create_task(ask(pool, name, alone=True, tag=tag)) for name in ("a", "c") for tag in range(3)]
        await asyncio.sleep(0)
        first.open()
        await gate.reached()
        answers = await asyncio.gather(*rest)
        assert [(answer["model"], answer["tag"]) for answer in answers] == [
            (n, t) for n in ("a", "c") for t in range(3)
        ]
        gate.open()
        assert [answer["pid"] for answer in await asyncio.gather(*calls)] == [shared, shared]


async def test_a_model_often_slow_gets_a_worker_of_its_own(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON) as pool:
        await toys.load(pool, "slow")
        await toys.load(pool, "other")
        shared = home(pool, "other")
        for number in range(3):
            gate = toys.gate(f"gate-{number}")
            call = await block(pool, "slow", gate)
            await until(lambda: pool._fleet.shared[0].stalled, "the worker counts as held up")
            gate.open()
            assert (await call)["pid"] == shared
        own = (await ask(pool, "slow"))["pid"]
        assert own != shared
        assert home(pool, "slow") == own
        gate = toys.gate("last")
        call = await block(pool, "slow", gate)
        assert (await ask(pool, "other"))["pid"] == shared
        assert not call.done()
        gate.open()
        await call
        await pool.unload("slow")
        assert ended(own)
        assert home(pool, "other") == shared


@both
async def test_all_workers_held_up_are_relieved_by_another(
    toys: Toys, start_method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "EXTRA_IDLE", 0.1)
    async with running(start_method=start_method, slow_after=SOON) as pool:
        names = [f"m{number}" for number in range(12)]
        for name in names:
            await toys.load(pool, name)
        first = names[0]
        second = next(name for name in names if home(pool, name) != home(pool, first))
        shared = {home(pool, first), home(pool, second)}
        gates = [toys.gate("gate-1"), toys.gate("gate-2")]
        slow = [await block(pool, name, gate) for name, gate in zip((first, second), gates, strict=True)]
        await until(lambda: all(slot.stalled for slot in pool._fleet.shared), "both workers count as held up")
        others = [name for name in names if name not in (first, second)]
        answers = await asyncio.gather(*(ask(pool, name) for name in others))
        extra = {answer["pid"] for answer in answers}
        assert not extra & shared
        await toys.load(pool, "late")
        extra.add(home(pool, "late"))
        assert not extra & shared
        for gate in gates:
            gate.open()
        await asyncio.gather(*slow)
        await until(lambda: all(map(ended, extra)), "the extra workers are retired")
        assert {(await ask(pool, name))["pid"] for name in (*names, "late")} == shared


async def test_a_long_load_holds_up_no_other(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON) as pool:
        await toys.load(pool, "m")
        gate = toys.gate()
        load = asyncio.create_task(toys.load(pool, "huge", wait=str(gate)))
        await gate.reached()
        assert (await ask(pool, "m"))["model"] == "m"
        await toys.load(pool, "n")
        assert (await ask(pool, "n"))["model"] == "n"
        assert not load.done()
        await pool.unload("n")
        assert [model.name for model in pool.models()] == ["m"]
        gate.open()
        await load
        assert (await ask(pool, "huge"))["model"] == "huge"


async def test_unloading_does_not_wait_for_a_held_up_worker(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON) as pool:
        await toys.load(pool, "slow")
        await toys.load(pool, "m")
        gate = toys.gate()
        call = await block(pool, "slow", gate)
        await until(lambda: pool._fleet.shared[0].stalled, "the worker counts as held up")
        await pool.unload("m")
        assert not call.done()
        # The name is free at once, for another model.
        await toys.load(pool, "m", version=2)
        assert (await ask(pool, "m"))["version"] == 2
        gate.open()
        await call
        await until(lambda: pool._fleet.shared[0].idle, "the old model is unloaded")
        assert (await ask(pool, "m"))["version"] == 2


async def test_held_up_models_stay_within_the_budget(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON, memory="60MiB") as pool:
        await toys.load(pool, "slow")
        await toys.load(pool, "large", kept=35 << 20)
        gate = toys.gate()
        call = await block(pool, "slow", gate)
        await until(lambda: pool._fleet.shared[0].stalled, "the worker counts as held up")
        waits = asyncio.create_task(ask(pool, "large"))
        await asyncio.sleep(2 * SOON)
        # A second copy does not fit: it waits for its turn.
        assert not waits.done()
        assert pool.used() < 60 << 20
        gate.open()
        assert (await waits)["pid"] == (await call)["pid"]


async def test_what_found_no_place_moves_as_soon_as_there_is_one(toys: Toys) -> None:
    async with running(workers=1, slow_after=SOON) as pool:
        for name in ("a", "b", "c"):
            await toys.load(pool, name)
        gates = {name: toys.gate(f"gate-{name}") for name in ("a", "b")}
        calls = {}
        for name, gate in gates.items():  # the worker, then the one extra worker there may be
            calls[name] = await block(pool, name, gate)
            await until(
                lambda: all(slot.stalled for slot in (*pool._fleet.shared, *pool._fleet.extra)), "all are held up"
            )
        waits = asyncio.create_task(ask(pool, "c"))
        await asyncio.sleep(2 * SOON)
        assert not waits.done()
        gates["b"].open()
        assert (await waits)["pid"] == (await calls["b"])["pid"]
        assert not calls["a"].done()
        gates["a"].open()
        await calls["a"]


async def test_an_unload_does_not_wait_for_another_models_long_job(toys: Toys) -> None:
    async with running(workers=1, slow_after=0.5) as pool:
        await toys.load(pool, "long")
        await toys.load(pool, "idle", kept=20 << 20)
        gate = toys.gate()
        running_long = await block(pool, "long", gate)
        assert await pool.unload("idle") is False
        assert pool.used() > 20 << 20
        gate.open()
        await running_long
        await until(lambda: pool.used() < 20 << 20, "the memory is free")
        await toys.load(pool, "idle")
        assert await pool.unload("idle") is True

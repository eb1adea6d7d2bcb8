"""Invocations that wait for a load are sent to the worker along with it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pools import BINDING, PATIENCE, Toys, ask, running, until

from manymodels.errors import LoadFailed
from manymodels.invocation import Invocation
from manymodels.server.awaited import Asked
from manymodels.server.workers import WorkerPool

pytestmark = pytest.mark.anyio


def asked(**orders: Any) -> Asked:
    """Return an invocation that does what it is ordered."""
    return Asked(Invocation(json.dumps(orders).encode()), time.monotonic() + PATIENCE)


async def begin(pool: WorkerPool, toys: Toys, one: Asked, **orders: Any) -> asyncio.Task[Any]:
    """Begin to load a model that an invocation waits for."""
    loading = asyncio.create_task(pool.load("m", toys.artifact("m", **orders), BINDING, asked=[one]))
    await until(lambda: one.answer is not None, "it is sent")
    return loading


async def test_its_answer_follows_the_load(toys: Toys) -> None:
    gate = toys.gate()
    async with running() as pool:
        one = asked(tag=1)
        loading = await begin(pool, toys, one, wait=str(gate))
        await gate.reached()
        assert [len(slot.sent) for slot in pool._fleet.slots() if slot.sent] == [2]
        gate.open()
        await loading
        assert one.answer is not None
        answer = await one.answer()
        assert json.loads(answer.body)["tag"] == 1
        assert pool.state().waiting == 0


async def test_it_fails_with_the_load(toys: Toys) -> None:
    async with running() as pool:
        one = asked()
        loading = await begin(pool, toys, one, error="bad weights")
        with pytest.raises(LoadFailed, match="bad weights"):
            await loading
        assert one.answer is not None
        with pytest.raises(LoadFailed, match="bad weights"):
            await one.answer()


async def test_it_fails_with_a_load_that_ends_the_worker(toys: Toys, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    async with running(workers=1) as pool:
        one = asked()
        loading = await begin(pool, toys, one, counter=str(loads), exit=3)
        with pytest.raises(LoadFailed, match="while it loaded 'm'"):
            await loading
        assert one.answer is not None
        with pytest.raises(LoadFailed, match="while it loaded 'm'"):
            await one.answer()
        await toys.load(pool, "other")
        assert loads.read_text() == "load\n"  # it did not take the model to the next worker


async def test_it_is_not_begun_once_nobody_waits_for_it(toys: Toys) -> None:
    loads, begun = toys.gate("loads"), toys.gate("begun")
    async with running() as pool:
        one = asked(wait=str(begun))
        loading = await begin(pool, toys, one, wait=str(loads))
        await loads.reached()
        one.drop()
        slots = [slot for slot in pool._fleet.slots() if slot.sent]
        await until(lambda: not any(job.calls for slot in slots for job in slot.sent), "the worker is told")
        loads.open()
        await loading
        assert (await ask(pool, "m", tag=2))["tag"] == 2
    assert not begun.was_reached

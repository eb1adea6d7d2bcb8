"""A model that one worker is not enough for is held by more, as long as it is asked so much and there is room."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pools import BINDING, Toys, ask, home, running, until

from manymodels.server import replicas
from manymodels.server.workers import WorkerPool

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "WINDOW", 0.1)


@asynccontextmanager
async def asked(pool: WorkerPool, name: str) -> AsyncIterator[set[int]]:
    """Ask a model without pause from eight clients; gives the process ids of those who answer."""
    pids: set[int] = set()

    async def client() -> None:
        while True:
            pids.add((await ask(pool, name, alone=True, sleep=0.01))["pid"])

    clients = [asyncio.create_task(client()) for _ in range(8)]
    try:
        yield pids
    finally:
        for task in clients:
            task.cancel()
        for result in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


async def test_a_hot_model_uses_all_workers_until_it_is_quiet(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "QUIET", 0.2)
    async with running() as pool:
        await toys.load(pool, "hot")
        first, size = home(pool, "hot"), pool.used()
        async with asked(pool, "hot") as pids:
            await until(lambda: len(pids) == 2, "another worker answers too")
            assert set(pool.describe("hot").workers) == pids
            assert pool.used() > 1.5 * size, "a copy is measured anew, and may differ a little"
        await until(lambda: pool.describe("hot").workers == (first,), "the copy is let go of")
        await until(lambda: pool.used() < 1.5 * size, "its room is free")
        assert (await ask(pool, "hot"))["pid"] == first
        await pool.unload("hot")
        assert pool.used() == 0


async def test_copies_make_room_for_other_models(toys: Toys) -> None:
    async with running(memory="150MiB") as pool:
        await toys.load(pool, "hot", kept=40 * MIB)
        first = home(pool, "hot")
        async with asked(pool, "hot"):
            await until(lambda: len(pool.describe("hot").workers) == 2, "it has a copy")
        large = toys.artifact("large")
        with (large / "weights").open("wb") as file:
            file.truncate(60 * MIB)
        await pool.load("large", large, BINDING)
        assert pool.describe("hot").workers == (first,)
        assert (await ask(pool, "hot"))["pid"] == first


async def test_no_copy_without_room(toys: Toys) -> None:
    async with running(memory="60MiB") as pool:
        await toys.load(pool, "hot", kept=40 * MIB)
        async with asked(pool, "hot"):
            await asyncio.sleep(0.5)
            assert home(pool, "hot")


async def test_a_copy_has_its_room_while_it_is_loaded(toys: Toys) -> None:
    async with running() as pool:
        await toys.load(pool, "hot", kept=40 * MIB)
        gate = toys.gate()
        toys.artifact("hot", kept=40 * MIB, wait=str(gate))
        async with asked(pool, "hot"):
            await gate.reached()
            assert pool.used() >= 80 * MIB
            gate.open()
            await until(lambda: len(pool.describe("hot").workers) == 2, "it has a copy")


async def test_what_a_copys_worker_leaves_is_taken_over(toys: Toys) -> None:
    async with running() as pool:
        await toys.load(pool, "hot", kept=20 * MIB)
        first, size = home(pool, "hot"), pool.used()
        async with asked(pool, "hot") as pids:
            await until(lambda: len(pids) == 2, "another worker answers too")
        (copy,) = pids - {first}
        os.kill(copy, signal.SIGKILL)
        await until(lambda: pool.describe("hot").workers == (first,), "its end is noticed")
        await until(lambda: pool.used() == size, "its room is free")
        assert (await ask(pool, "hot"))["pid"] == first


async def test_a_copy_takes_over_from_its_home(toys: Toys) -> None:
    async with running() as pool:
        await toys.load(pool, "hot")
        first = home(pool, "hot")
        async with asked(pool, "hot") as pids:
            await until(lambda: len(pids) == 2, "another worker answers too")
        (copy,) = pids - {first}
        os.kill(first, signal.SIGKILL)
        await until(lambda: pool.describe("hot").workers == (copy,), "its end is noticed")
        assert (await ask(pool, "hot"))["model"] == "hot"


async def test_a_copy_that_brings_nothing_is_let_go_of(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "GAIN", 1000.0)
    async with running() as pool:
        await toys.load(pool, "hot")
        first = home(pool, "hot")
        async with asked(pool, "hot") as pids:
            await until(lambda: len(pids) == 2, "another worker answers too")
            await until(lambda: pool.describe("hot").workers == (first,), "the copy is let go of")
            await asyncio.sleep(0.4)
            assert pool.describe("hot").workers == (first,)


async def test_a_copy_that_brings_something_is_kept(toys: Toys) -> None:
    async with running() as pool:
        await toys.load(pool, "hot")
        async with asked(pool, "hot") as pids:
            await until(lambda: len(pids) == 2, "another worker answers too")
            await asyncio.sleep(10 * replicas.WINDOW)
            assert set(pool.describe("hot").workers) == pids, "it was judged meanwhile"

"""A worker that leaks is replaced, and nobody notices."""

from __future__ import annotations

import asyncio

import pytest
from pools import Toys, ask, ended, home, running, until

from manymodels.server import renewal

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "REST", 0.0)
    monkeypatch.setattr(renewal, "SPARE", 20 * MIB)


async def test_a_worker_that_leaks_is_replaced_under_load(toys: Toys) -> None:
    async with running(workers=1) as pool:
        for name in ("leaking", "other", "slow"):
            await toys.load(pool, name)
        worker = home(pool, "leaking")
        seen: set[int] = set()

        async def client(name: str, **orders: float) -> None:
            while len(seen) < 2:
                seen.add((await ask(pool, name, **orders))["pid"])
                await asyncio.sleep(0.01)

        await asyncio.gather(client("leaking", leak=MIB), client("other"), client("slow", sleep=0.05))
        await until(lambda: ended(worker), "the old process has ended")
        assert worker not in {(await ask(pool, name))["pid"] for name in ("leaking", "other", "slow")}
        await until(lambda: not pool._fleet.retiring, "it is forgotten")


async def test_what_a_worker_that_leaks_runs_is_answered(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        worker = home(pool, "m")
        # Reported by an idle worker, so without any request to come.
        await ask(pool, "m", leak=60 * MIB)
        await until(lambda: pool._fleet.shared[0].private > 40 * MIB or ended(worker), "it is reported")
        await until(lambda: ended(worker), "it is replaced")
        assert (await ask(pool, "m"))["pid"] != worker


async def test_what_leaked_counts(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "REST", 600.0)
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        await ask(pool, "m", leak=60 * MIB)
        await until(lambda: pool.used() > 35 * MIB, "it is counted")
        assert pool.describe("m").bytes < 35 * MIB

"""A model that asks for a worker of its own has one; what ends a worker is told; a load holds up little."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from pools import BINDING, Toys, ask, block, ended, home, running, until

from manymodels.errors import InvocationTimeout, LoadFailed, ModelNotFound, ModelRefused, OutOfMemory, WorkerDied
from manymodels.server import fleet
from manymodels.server.workers import WorkerPool

pytestmark = pytest.mark.anyio


def isolated(path: Path) -> Path:
    """Let an artifact ask for a worker of its own."""
    (path / "manymodels.json").write_text(json.dumps({"framework": "toy", "isolated": True}))
    return path


async def test_a_model_may_ask_for_a_worker_of_its_own(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "OWN_PER_WORKER", 1)
    async with running(workers=1) as pool:
        await toys.load(pool, "other")
        await pool.load("alone", isolated(toys.artifact("alone")), BINDING)
        own = home(pool, "alone")
        assert own != home(pool, "other")
        assert (await ask(pool, "alone"))["pid"] == own
        with pytest.raises(OutOfMemory, match=r"'more' asks for a worker of its own, .* raise --workers"):
            await pool.load("more", isolated(toys.artifact("more")), BINDING)
        with pytest.raises(WorkerDied):
            await ask(pool, "alone", exit=1)
        assert (await ask(pool, "alone"))["pid"] not in (own, home(pool, "other"))
        own = home(pool, "alone")
        await pool.unload("alone")
        assert ended(own)
        await pool.load("more", toys.artifact("more"), BINDING)
        assert (await ask(pool, "more"))["pid"] != home(pool, "other")


async def test_a_model_that_hangs_in_native_code_is_ended(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "native")
        await toys.load(pool, "other")
        worker = home(pool, "native")
        call = asyncio.create_task(ask(pool, "native", timeout=1, hang=600))
        other = asyncio.create_task(ask(pool, "other"))
        with pytest.raises(InvocationTimeout, match="still running"):
            await call
        assert (await other)["pid"] != worker
        assert ended(worker)


async def refusal(pool: WorkerPool, name: str) -> str:
    """Let a loaded model end its workers until it is refused; return why."""
    for _ in range(3):
        with pytest.raises(WorkerDied):
            await ask(pool, name, exit=7)
    with pytest.raises(ModelRefused) as caught:
        await ask(pool, name)
    return str(caught.value)


async def test_a_description_says_that_a_model_is_refused(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        assert pool.describe("m").refused is None
        reason = await refusal(pool, "m")
        assert "exited with code 7" in reason
        assert pool.describe("m").refused is not None
        assert "exited with code 7, 3 times" in str(pool.describe("m").refused)


async def test_a_model_that_cannot_even_be_loaded_says_why_it_is_refused(toys: Toys) -> None:
    async with running(workers=1) as pool:
        with pytest.raises(ModelNotFound):
            pool.describe("broken")
        for _ in range(3):
            with pytest.raises(LoadFailed, match="exited with code 4"):
                await toys.load(pool, "broken", exit=4)
        with pytest.raises(ModelRefused, match="exited with code 4, 3 times"):
            pool.describe("broken")


async def test_loads_wait_for_the_invocations_of_other_models(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "first")
        await toys.load(pool, "asked")
        first, held = toys.gate("gate-1"), toys.gate("gate-2")
        call = await block(pool, "first", first)
        loads = [asyncio.create_task(toys.load(pool, name, wait=str(held))) for name in ("new", "newer")]
        await until(lambda: len(pool._fleet.shared[0].control) == 2, "both loads are queued")
        asked = asyncio.create_task(ask(pool, "asked"))
        await asyncio.sleep(0)
        first.open()
        await call
        assert (await asked)["model"] == "asked"
        await held.reached()
        assert not any(load.done() for load in loads)
        held.open()
        await asyncio.gather(*loads)

"""No model's invocations wait long for another's, and none runs for a client that has given up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from pools import BINDING, PATIENCE, Toys, ask, block, home, running

from manymodels.errors import InvocationTimeout
from manymodels.invocation import Answer, Invocation
from manymodels.server.jobs import SHARE, Resident
from manymodels.server.messages import Failure
from manymodels.server.workers import WorkerPool

pytestmark = pytest.mark.anyio


async def hurry(pool: WorkerPool, name: str, seconds: float, **orders: Any) -> dict[str, Any]:
    """Invoke a model as a client that waits for so long only."""
    invocation = Invocation(json.dumps(orders).encode(), deadline=time.monotonic() + seconds)
    answer = await pool.invoke(name, invocation, PATIENCE)
    content: dict[str, Any] = json.loads(answer.body)
    return content


async def test_a_flood_takes_turns_with_others(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "flooding")
        await toys.load(pool, "quiet")
        await ask(pool, "quiet")
        gate = toys.gate()
        first = await block(pool, "flooding", gate)
        order: list[str] = []

        async def noted(name: str) -> dict[str, Any]:
            answer = await ask(pool, name)
            order.append(name)
            return answer

        flood = [asyncio.create_task(noted("flooding")) for _ in range(3 * SHARE)]
        quiet = asyncio.create_task(noted("quiet"))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, quiet, *flood)
        # What went before may have let the model have more: it waited at the gate.
        assert (await quiet)["joined"] == 1
        assert order.index("quiet") <= max(answer.result()["joined"] for answer in flood)


async def test_in_a_frame_the_fewest_invocations_come_first(toys: Toys) -> None:
    async with running(workers=1) as pool:
        for name in ("first", "flooding", "quiet"):
            await toys.load(pool, name)
        opens, waits = toys.gate(), toys.gate("other")
        first = await block(pool, "first", opens)
        flood = [asyncio.create_task(ask(pool, "flooding", wait=str(waits))) for _ in range(2)]
        await asyncio.sleep(0)
        quiet = asyncio.create_task(ask(pool, "quiet"))
        await asyncio.sleep(0)
        opens.open()
        await asyncio.gather(first, quiet)  # though the flood came first, and goes on
        await waits.reached()
        assert not any(task.done() for task in flood)
        waits.open()
        await asyncio.gather(*flood)


async def test_alone_a_flood_is_joined_as_far_as_it_goes(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "flooding")
        gate = toys.gate()
        first = await block(pool, "flooding", gate)
        flood = [asyncio.create_task(ask(pool, "flooding")) for _ in range(3 * SHARE)]
        await asyncio.sleep(0)
        gate.open()
        assert (await first)["joined"] == 1
        assert {answer["joined"] for answer in await asyncio.gather(*flood)} == {3 * SHARE}


@pytest.mark.parametrize(
    ("count", "predict", "elapsed", "share"),
    [
        (32, 0.0004, 0.001, SHARE),  # quick: the front is what others wait for
        (32, 0.02, 0.021, 200),  # slow and joined: more cost no more
        (1, 0.02, 0.021, 200),
        (4, 0.02, 0.081, 1),  # slow, each for itself
        (32, 0.0005, 0.017, SHARE),
        (32, 0.001, 0.033, 5),
    ],
)
def test_a_share_follows_what_a_group_took(count: int, predict: float, elapsed: float, share: int) -> None:
    resident = Resident("m", "/m", BINDING, "1")
    failure = Failure("PredictionFailed", "it failed")
    answer = Answer(b"", "", timings={"predict": predict})
    resident.learn([failure, *[answer] * (count - 1)] if count > 1 else [answer], elapsed)
    assert resident.share == share


async def test_an_invocation_past_its_clients_deadline_never_runs(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        gate, never = toys.gate(), toys.gate("never")
        first = await block(pool, "m", gate)
        with pytest.raises(InvocationTimeout, match=r"did not answer within 0.05 s: .* still waiting for its turn"):
            await hurry(pool, "m", 0.05, wait=str(never))
        gate.open()
        await first
        with pytest.raises(InvocationTimeout, match="still waiting for its turn"):
            await hurry(pool, "m", 0, wait=str(never))
        assert (await ask(pool, "m"))["joined"] == 1
        assert not never.was_reached


async def test_a_client_in_a_hurry_does_not_end_the_worker(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m")
        worker = home(pool, "m")
        gate = toys.gate()
        call = asyncio.create_task(hurry(pool, "m", 3.0, wait=str(gate)))
        await gate.reached()
        with pytest.raises(InvocationTimeout, match="still running"):
            await call
        later = asyncio.create_task(ask(pool, "m"))
        await asyncio.sleep(0.1)
        gate.open()
        assert (await later)["pid"] == worker
        assert home(pool, "m") == worker

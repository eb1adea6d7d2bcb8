"""Faster predictors in multi-model-server: when one serves, how it is told, and what if it ends the process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from manymodels_mms.backend import MmsServer
from pools import BINDING, PATIENCE, Toys, ended, until

from manymodels.errors import WorkerDied
from manymodels.invocation import Invocation
from manymodels.trial import Predictor

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def ask(server: MmsServer, name: str, **orders: Any) -> dict[str, Any]:
    """Invoke a model, which does what it is ordered; return its answer."""
    answer = await server.invoke(name, Invocation(json.dumps(orders).encode()), PATIENCE)
    content: dict[str, Any] = json.loads(answer.body)
    return content


async def found(server: MmsServer, name: str, other: Predictor | None = None) -> Predictor:
    """Return which predictor serves a model, once that is found out, or is another."""
    await until(lambda: server.describe(name).predictor not in (None, other), "a predictor was tried")
    predictor = server.describe(name).predictor
    assert predictor is not None
    return predictor


async def test_a_faster_predictor_that_agrees_serves(server: MmsServer, toys: Toys) -> None:
    await server.load("quick", toys.artifact("quick", slow=0.002, accelerate={}), BINDING)
    await server.load("plain", toys.artifact("plain"), BINDING)
    assert server.describe("quick").predictor is None
    assert (await ask(server, "quick", tag="a"))["tag"] == "a"
    predictor = await found(server, "quick")
    assert (predictor.name, predictor.difference) == ("quick", 0.0)
    assert predictor.original_us is not None
    assert predictor.accelerated_us is not None
    assert predictor.original_us > 2000
    assert predictor.original_us > predictor.accelerated_us
    assert (await found(server, "plain")).reason == "the plugin knows no faster one", "one that nobody asked"
    assert (await ask(server, "quick", tag="b", left=True))["tag"] == "b"
    assert (await ask(server, "quick", tag="c", broken=True))["tag"] == "c"
    after = await found(server, "quick", predictor)
    assert after.reason == "the faster one failed: RuntimeError: broken"
    await server.unload("quick")
    await server.unload("plain")


async def test_its_memory_is_counted(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m", slow=0.002, accelerate={"table": 32 * MIB}), BINDING)
    before = server.describe("m").bytes
    predictor = await found(server, "m")
    assert predictor.bytes is not None
    assert 32 * MIB <= predictor.bytes < 33 * MIB
    await until(lambda: server.describe("m").bytes > before, "it was measured again")
    assert server.used() == server.describe("m").bytes
    assert 30 * MIB < server.used() - before < 40 * MIB
    await server.unload("m")


async def test_a_model_under_steady_load_has_its_turn(server: MmsServer, toys: Toys) -> None:
    await server.load("busy", toys.artifact("busy", slow=0.002, accelerate={}), BINDING)
    while server.describe("busy").predictor is None:
        await ask(server, "busy")
    assert (await found(server, "busy")).name == "quick"
    await server.unload("busy")


async def test_a_model_is_unloaded_while_one_is_tried(server: MmsServer, toys: Toys) -> None:
    gate = toys.gate()
    await server.load("gone", toys.artifact("gone", accelerate={"wait": str(gate)}), BINDING)
    (pid,) = server.describe("gone").workers
    await gate.reached()
    await server.unload("gone")
    assert ended(pid)


async def test_one_that_ends_its_process_is_not_tried_again(server: MmsServer, toys: Toys) -> None:
    path = toys.artifact("m", accelerate={"exit": 7})
    await server.load("m", path, BINDING)
    await until(lambda: not server.describe("m").workers, "the trial has ended the process")
    (pid,) = {(await ask(server, "m"))["pid"] for _ in range(5)}  # more often than a model may end its process
    assert (await found(server, "m")).reason == "its worker ended while a faster one was tried"
    await server.unload("m")
    await server.load("m", path, BINDING)
    assert (await found(server, "m")).reason == "its worker ended while a faster one was tried"
    assert (await ask(server, "m"))["pid"] != pid
    await server.unload("m")


async def test_a_process_that_may_have_ended_by_a_trial_is_not_held_against_the_model(
    server: MmsServer, toys: Toys
) -> None:
    gate = toys.gate()
    await server.load("m", toys.artifact("m", accelerate={"wait": str(gate), "kill": "SIGSEGV"}), BINDING)
    await gate.reached()
    call = asyncio.ensure_future(ask(server, "m"))
    await until(lambda: server._residents["m"].lanes[0].busy, "the invocation is on its way")
    gate.open()
    with pytest.raises(WorkerDied, match="was ended by SIGSEGV while it answered"):
        await call
    assert not any(record.kills for record in server._conduct._records.values())
    assert (await ask(server, "m", tag=1))["tag"] == 1
    await server.unload("m")

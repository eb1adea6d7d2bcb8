"""Faster predictors: when one serves, what it leaves to the original, and what if it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pools import Toys, ask, home, running, until

from manymodels import Accelerated, Artifact, Batch, Context, LeftToOriginal, ModelSettings, Plugins, RowBatch, hookimpl
from manymodels.codecs import decode
from manymodels.errors import BadInput, WorkerDied
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding
from manymodels.server.workers import WorkerPool
from manymodels.trial import Predictor

ONE = np.array([[1.0, 2.0]])
MANY = np.array([[0.5, -1.0]] * 20)


class Sums:
    """A plugin that adds up rows, slowly, and offers what a test wants of it."""

    def __init__(self, predict: Callable[[Any], Any] | None, probes: Sequence[Any] = (ONE, MANY)) -> None:
        self._predict = predict
        self._probes = probes
        self.calls: list[int] = []

    @hookimpl
    def load(self) -> str:
        return "model"

    @hookimpl
    def input_fn(self, body: bytes) -> Any:
        return decode(body, "application/json").astype(float)

    @hookimpl
    def predict_fn(self, data: Any) -> Any:
        self.calls.append(len(data))
        if (data < -99).any():
            raise BadInput("too small")
        time.sleep(0.001)
        return data.sum(axis=1)

    @hookimpl
    def batch(self) -> Batch:
        return RowBatch()

    @hookimpl
    def accelerate(self) -> Accelerated | None:
        return None if self._predict is None else Accelerated("quick", self._predict, self._probes)


class Watch:
    """A plugin that keeps what passes through ``predict_fn``."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl(wrapper=True)
    def predict_fn(self, data: Any, context: Context) -> Generator[None, Any, Any]:
        prediction = yield
        self.seen.append((context.target_model, data.tolist(), prediction.tolist()))
        return prediction


def sums(data: Any) -> Any:
    return data.sum(axis=1)


def make(plugin: Sums, *others: object, **settings: Any) -> Model:
    plugins = Plugins([("sums", plugin), *((f"other{n}", other) for n, other in enumerate(others))])
    return Model(Artifact(Path("/"), "shop"), Binding("sums"), plugins, ModelSettings(**settings))


def accelerate(model: Model) -> dict[str, Any]:
    """Do all steps; return which predictor serves."""
    for _ in model.accelerate():
        pass
    assert model.predictor is not None
    return {name: value for name in model.predictor.__struct_fields__ if (value := getattr(model.predictor, name))}


def answers(model: Model, *bodies: bytes) -> list[Any]:
    results = model.invoke([Invocation(body, "application/json") for body in bodies])
    return [result.body if isinstance(result, Answer) else result for result in results]


@pytest.mark.parametrize("wrappers", [0, 1])
def test_a_faster_predictor_that_agrees_serves(wrappers: int) -> None:
    watches = [Watch() for _ in range(wrappers)]
    plugin = Sums(sums)
    model = make(plugin, *watches)
    assert model.predictor is None
    assert answers(model, b"[[1,2]]") == [b"[3.0]"]
    predictor = accelerate(model)
    assert predictor.pop("original_us") > 1000 > predictor.pop("accelerated_us")
    assert predictor == {"name": "quick"}
    plugin.calls.clear()
    assert answers(model, b"[[1,2]]") == [b"[3.0]"]
    assert answers(model, b"[[1,2]]", b"[[3,4],[5,6]]") == [b"[3.0]", b"[7.0,11.0]"]
    assert plugin.calls == []
    for watch in watches:  # of the probes they saw nothing
        joined = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        single = ("shop", [[1.0, 2.0]], [3.0])
        assert watch.seen == [single, single, ("shop", joined, [3.0, 7.0, 11.0])]


@pytest.mark.parametrize("wrappers", [0, 1])
def test_what_it_leaves_to_the_original_and_what_that_refuses(wrappers: int) -> None:
    def predict(data: Any) -> Any:
        if (data < 0).any():
            raise LeftToOriginal
        return sums(data)

    plugin, watches = Sums(predict, [ONE, ONE, MANY[:1], -100 * ONE, np.abs(MANY)]), [Watch() for _ in range(wrappers)]
    model = make(plugin, *watches)
    assert accelerate(model)["name"] == "quick"
    plugin.calls.clear()
    first, second, refused = answers(model, b"[[1,2]]", b"[[-1,2]]", b"[[-100,2]]")
    assert (first, second, str(refused)) == (b"[3.0]", b"[1.0]", "too small")
    assert plugin.calls == [3, 1, 1], "the joined ones, and those it left"
    assert [seen[1:] for watch in watches for seen in watch.seen] == [
        ([[1.0, 2.0]], [3.0]),
        ([[-1.0, 2.0]], [1.0]),
    ] * wrappers


def fail(data: Any) -> Any:
    raise ZeroDivisionError("quick")


def leave(data: Any) -> Any:
    raise LeftToOriginal


def slow(data: Any) -> Any:
    time.sleep(0.003)
    return sums(data)


def slow_for_many(data: Any) -> Any:
    return sums(data) if len(data) == 1 else slow(data)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Sums(None), "the plugin knows no faster one"),
        (Sums(lambda data: sums(data) * (1 + 1e-6)), "quick does not agree: a difference of 1e-06, more than 1e-09"),
        (Sums(lambda data: sums(data).astype(np.float32)), "quick does not agree: dtype float32 instead of float64"),
        (Sums(lambda data: sums(data)[:20]), "quick does not agree: shape (20,) instead of (21,)"),
        (Sums(sums, [ONE, -100 * ONE]), "quick does not agree: it answers what is refused with BadInput"),
        (Sums(fail), "quick failed on its probes: ZeroDivisionError: quick"),
        (Sums(leave), "quick leaves single rows to it"),
        (Sums(sums, []), "quick came without probes"),
        (Sums(slow), "quick is not faster for one row"),
        (Sums(slow_for_many), "quick is not faster for many rows"),
    ],
)
def test_the_original_serves_otherwise(plugin: Sums, reason: str) -> None:
    model = make(plugin)
    predictor = accelerate(model)
    assert (predictor["name"], predictor["reason"]) == ("original", reason)
    plugin.calls.clear()
    assert answers(model, b"[[1,2]]") == [b"[3.0]"]
    assert plugin.calls == [1]


def test_a_plugin_that_fails_to_make_one(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Sums):
        @hookimpl
        def accelerate(self) -> Accelerated | None:
            raise RuntimeError("no compiler")

    model = make(Broken(None))
    assert accelerate(model)["reason"] == "making a faster one failed: RuntimeError: no compiler"
    assert answers(model, b"[[1,2]]") == [b"[3.0]"]
    assert "making a faster predictor of 'shop' failed" in caplog.text


def test_what_the_operator_says() -> None:
    near = Sums(lambda data: sums(data) * (1 + 1e-12))
    assert accelerate(make(near))["name"] == "quick"
    assert accelerate(make(near))["difference"] == pytest.approx(1e-12, rel=0.1)
    assert accelerate(make(near, accelerate_tolerance=1e-13))["name"] == "original"
    assert accelerate(make(near, accelerate="strict"))["reason"] == "quick does not agree: not the same bits"
    assert accelerate(make(Sums(sums), accelerate="strict"))["name"] == "quick"
    assert accelerate(make(Sums(sums), accelerate="off"))["reason"] == "accelerate is off"


@pytest.mark.parametrize("wrappers", [0, 1])
def test_one_that_fails_later_is_not_used_any_more(wrappers: int, caplog: pytest.LogCaptureFixture) -> None:
    def predict(data: Any) -> Any:
        if (data == 13).any():
            raise ZeroDivisionError("thirteen")
        return sums(data)

    plugin = Sums(predict)
    model = make(plugin, *(Watch() for _ in range(wrappers)))
    assert accelerate(model)["name"] == "quick"
    model.news = False
    plugin.calls.clear()
    assert answers(model, b"[[13,2]]") == [b"[15.0]"]
    assert answers(model, b"[[1,2]]") == [b"[3.0]"]
    assert plugin.calls == [1, 1]
    assert model.predictor is not None
    assert model.news
    assert model.predictor.reason == "the faster one failed: ZeroDivisionError: thirteen"
    assert caplog.text.count("the faster predictor of 'shop' failed and is not used any more") == 1


def test_an_original_that_works_in_place_is_given_copies() -> None:
    class InPlace(Sums):
        @hookimpl
        def predict_fn(self, data: Any) -> Any:
            time.sleep(0.001)
            data *= 2
            return data.sum(axis=1)

    assert accelerate(make(InPlace(lambda data: (data * 2).sum(axis=1))))["name"] == "quick"


# -- In workers --


async def tried(pool: WorkerPool, name: str) -> Predictor:
    """Wait until it is told which predictor serves a model, and return it."""
    await until(lambda: pool.describe(name).predictor, f"{name} had its turn")
    predictor = pool.describe(name).predictor
    assert predictor is not None
    return predictor


@pytest.mark.anyio
async def test_a_worker_accelerates_what_was_asked_for(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "quick", slow=0.002, accelerate={})
        await toys.load(pool, "plain")
        assert (await ask(pool, "quick", tag="a"))["tag"] == "a"
        predictor = await tried(pool, "quick")
        assert (predictor.name, predictor.difference) == ("quick", 0.0)
        assert (await tried(pool, "plain")).reason == "the plugin knows no faster one", "nobody asked it"
        assert (await ask(pool, "quick", tag="b", left=True))["tag"] == "b"
        assert (await ask(pool, "quick", tag="c", broken=True))["tag"] == "c"
        await until(lambda: pool.describe("quick").predictor != predictor, "the failure is told")
        after = pool.describe("quick").predictor
        assert after is not None
        assert after.reason == "the faster one failed: RuntimeError: broken"


@pytest.mark.anyio
async def test_the_memory_of_a_faster_predictor_is_listed_apart(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "m", slow=0.002, kept=300_000, accelerate={"table": 5_000_000})
        before = pool.describe("m")
        assert before.measured
        assert 300_000 < before.bytes < 400_000, "less than a page counts, and what others take does not"
        await until(lambda: pool.describe("m").predictor, "the model is accelerated")
        after = pool.describe("m")
        assert after.predictor is not None
        assert after.predictor.bytes is not None
        assert 5_000_000 < after.predictor.bytes < 5_100_000
        assert after.bytes == before.bytes + after.predictor.bytes == pool.used()
        await ask(pool, "m", broken=True)
        await until(lambda: pool.describe("m").predictor != after.predictor, "the failure is told")
        assert pool.used() == before.bytes


@pytest.mark.anyio
async def test_a_model_under_steady_load_has_its_turn(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "busy", slow=0.002, accelerate={})
        while pool.describe("busy").predictor is None:
            await ask(pool, "busy")
        predictor = pool.describe("busy").predictor
        assert predictor is not None
        assert predictor.name == "quick"


@pytest.mark.anyio
async def test_a_model_that_is_unloaded_before_its_turn(toys: Toys) -> None:
    async with running(workers=1) as pool:
        gate = toys.gate()
        await toys.load(pool, "gone", slow=0.002, accelerate={"wait": str(gate)})
        await toys.load(pool, "other")
        pid = home(pool, "other")
        await ask(pool, "gone")
        await gate.reached()  # its worker is at the chore
        gate.open()
        await pool.unload("gone")
        assert (await ask(pool, "other"))["pid"] == pid


@pytest.mark.anyio
async def test_a_model_whose_trial_ends_its_worker_is_not_tried_again(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "model", accelerate={"exit": 7})
        await toys.load(pool, "other")
        await until(lambda: not pool.describe("other").workers, "the trial has ended the worker")
        for _ in range(5):  # more often than a model may end its worker
            assert (await ask(pool, "model"))["model"] == "model"
            assert (await ask(pool, "other"))["model"] == "other"
        predictor = pool.describe("model").predictor
        assert predictor is not None
        assert predictor.reason == "its worker ended while a faster one was tried"
        await pool.unload("model")
        await toys.load(pool, "model", accelerate={"exit": 7})
        pid = (await ask(pool, "model"))["pid"]
        assert (await ask(pool, "other"))["pid"] == pid, "the new worker lives on"


@pytest.mark.anyio
async def test_a_trial_that_ends_its_worker_after_a_job_is_not_tried_again(toys: Toys) -> None:
    async with running(workers=1) as pool:
        gate = toys.gate()
        await toys.load(pool, "model", accelerate={"wait": str(gate), "then": {"exit": 7}})
        await toys.load(pool, "other")
        await gate.reached()
        between = asyncio.create_task(ask(pool, "other"))
        await asyncio.sleep(0)
        gate.open()
        assert (await between)["model"] == "other"
        await until(lambda: not pool.describe("other").workers, "the trial has ended the worker")
        assert (await ask(pool, "model"))["model"] == "model"
        assert (await tried(pool, "model")).reason == "its worker ended while a faster one was tried"


@pytest.mark.anyio
async def test_a_job_between_the_steps_of_a_trial_is_blamed_for_itself(toys: Toys) -> None:
    async with running(workers=1) as pool:
        gate = toys.gate()
        await toys.load(pool, "model", slow=0.002, accelerate={"wait": str(gate)})
        await toys.load(pool, "other")
        await gate.reached()
        fatal = asyncio.create_task(ask(pool, "other", exit=7))
        await asyncio.sleep(0)
        gate.open()
        with pytest.raises(WorkerDied):
            await fatal
        await ask(pool, "model")
        assert (await tried(pool, "model")).name == "quick", "it is tried again"


@pytest.mark.anyio
async def test_a_worker_tells_how_much_memory_it_takes(toys: Toys) -> None:
    async with running(workers=1) as pool:
        await toys.load(pool, "large", kept=32 << 20)
        (slot,) = pool._fleet.shared
        await until(lambda: slot.private > 32 << 20, "the worker has told")
        await pool.unload("large")
        await until(lambda: slot.private < 32 << 20, "the worker has told again")

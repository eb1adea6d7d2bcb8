"""Shadows: when they are asked, how their answers compare, and that whoever was answered does not wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from manymodels.endpoint.rules import Shadow
from manymodels.endpoint.shadows import ALL, COMPARED, EACH, HELD, Shadows
from manymodels.errors import BadInput, Overloaded
from manymodels.invocation import Answer, Invocation
from manymodels.metrics.record import ShadowCounts

pytestmark = pytest.mark.anyio

REQUEST = Invocation(b"[[1]]", "application/json", deadline=5.0)
Ask = Callable[[str, Invocation], Awaitable[Answer]]


def answer(content: Any, **fields: Any) -> Answer:
    return Answer(json.dumps(content).encode(), "application/json", **fields)


def always(given: Answer) -> Ask:
    async def ask(name: str, invocation: Invocation) -> Answer:
        assert name == "new"
        assert invocation.body == REQUEST.body
        assert invocation.deadline == float("inf")
        return given

    return ask


async def result(ask: Ask, served: Answer, request: Invocation = REQUEST, **shadow: Any) -> ShadowCounts:
    """Ask a shadow once and return what came of it."""
    counts = ShadowCounts()
    shadows = Shadows(ask)
    shadows.begin("churn", Shadow(model="new", **shadow), request, served, counts)
    await ended(shadows)
    return counts


async def ended(shadows: Shadows) -> None:
    if shadows._tasks:
        await asyncio.wait(shadows._tasks)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (answer([1.0, 2.0]), ShadowCounts(agreed=1)),
        (answer([1.0, 2.015625]), ShadowCounts(agreed=1, largest=0.0078125)),
        (answer([1.0, 2.5]), ShadowCounts(differed=1, last="a difference of 0.25, more than 0.01")),
        (answer([1.0]), ShadowCounts(differed=1, last="1 items instead of 2")),
        (answer([1.0, 2.0], status=299), ShadowCounts(differed=1, last="status 299 instead of 200")),
        (
            Answer(b"1.0,2.0", "text/csv"),
            ShadowCounts(differed=1, last="Content-Type text/csv instead of application/json"),
        ),
    ],
)
async def test_answers_are_compared_as_values(given: Answer, counts: ShadowCounts) -> None:
    assert await result(always(given), answer([1.0, 2.0]), tolerance=0.01) == counts


async def test_a_status_is_compared_with_the_one_served() -> None:
    served = answer([1.0], status=201)
    near = answer([1.0078125], status=201)
    assert (await result(always(near), served, tolerance=0.01)).agreed == 1
    other = answer([1.0])
    assert (await result(always(other), served, tolerance=0.01)).last == "status 200 instead of 201"


async def test_long_answers_are_compared_in_a_thread_and_very_long_ones_by_their_bytes() -> None:
    many = [0.5] * 5000
    assert await result(always(answer(many)), answer([*many[1:], 0.5078125]), tolerance=0.01) == ShadowCounts(
        agreed=1, largest=0.0078125
    )
    most = Answer(b"1" * COMPARED, "text/plain")
    assert (await result(always(most), Answer(b"1" * COMPARED, "text/plain"))).agreed == 1
    last = "other bytes, in more than the 2 MiB that are compared as values"
    assert await result(always(most), answer(1)) == ShadowCounts(differed=1, last=last)


async def test_it_is_asked_for_its_share_of_what_went_well_and_not_what_answered_itself() -> None:
    asked = always(answer(1))
    assert await result(asked, answer(1), share=0.0) == ShadowCounts()
    assert await result(asked, answer(1, status=500)) == ShadowCounts()
    assert await result(asked, answer(1, target_model="new")) == ShadowCounts()
    assert await result(asked, answer(1, target_model="old")) == ShadowCounts(agreed=1)


async def test_it_opens_no_sessions() -> None:
    session = msgspec.structs.replace(REQUEST, headers={"x-amzn-sagemaker-session-id": "NEW_SESSION"})
    assert await result(always(answer([1])), answer([1]), session) == ShadowCounts()
    assert await result(always(answer([1])), answer([1])) == ShadowCounts(agreed=1)


async def test_what_it_cannot_answer_is_counted() -> None:
    async def refuses(name: str, invocation: Invocation) -> Answer:
        raise BadInput("too few columns")

    async def busy(name: str, invocation: Invocation) -> Answer:
        raise Overloaded("later")

    assert await result(refuses, answer(1)) == ShadowCounts(failed=1, last="BadInput: too few columns")
    assert await result(busy, answer(1)) == ShadowCounts(dropped=1)


async def test_few_are_asked_at_a_time() -> None:
    gate = asyncio.Event()
    running = 0

    async def slow(name: str, invocation: Invocation) -> Answer:
        nonlocal running
        running += 1
        await gate.wait()
        return answer(1)

    shadows = Shadows(slow)
    one, rest, large = ShadowCounts(), ShadowCounts(), ShadowCounts()
    for _ in range(EACH + 3):
        shadows.begin("one", Shadow(model="new"), REQUEST, answer(1), one)
    assert one == ShadowCounts(dropped=3)
    shadows.begin("large", Shadow(model="new"), REQUEST, Answer(b" " * HELD, "text/plain"), large)
    assert large == ShadowCounts(dropped=1)
    for number in range(ALL):
        shadows.begin(str(number), Shadow(model="new"), REQUEST, answer(1), rest)
    assert rest == ShadowCounts(dropped=EACH)
    await asyncio.sleep(0)
    assert running == ALL
    gate.set()
    await ended(shadows)
    assert (one.agreed, rest.agreed) == (EACH, ALL - EACH)
    shadows.begin("one", Shadow(model="new"), REQUEST, answer(1), one)
    await ended(shadows)
    assert one == ShadowCounts(agreed=EACH + 1, dropped=3)  # there is room again


async def test_it_ends_with_the_server() -> None:
    ended = asyncio.Event()

    async def hangs(name: str, invocation: Invocation) -> Answer:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        raise AssertionError

    shadows = Shadows(hangs)
    shadows.begin("churn", Shadow(model="new"), REQUEST, answer(1), ShadowCounts())
    await asyncio.sleep(0)
    shadows.stop()
    await asyncio.wait_for(ended.wait(), 5)

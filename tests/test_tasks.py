"""Tasks that nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from manymodels.server.tasks import Tasks


def test_one_that_fails_is_in_the_log_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def fail() -> None:
        raise ValueError("no such thing")

    async def wait(name: str, event: asyncio.Event, ended: asyncio.Event) -> None:
        try:
            await event.wait()
        finally:
            done.append(name)
            ended.set()

    async def run() -> None:
        tasks = Tasks("tidying up")
        now, never, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for work in (fail(), wait("in time", now, ended), wait("at the end", never, asyncio.Event())):
            tasks.run(work)
        now.set()
        await ended.wait()
        await tasks.stop()

    asyncio.run(run())
    assert done == ["in time", "at the end"]
    [record] = caplog.records
    assert record.getMessage() == "tidying up failed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no such thing"

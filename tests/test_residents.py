"""Which models are resident: room, pins, idle models, warming up, the journal."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from manymodels import hookimpl
from manymodels.artifact import Artifact
from manymodels.endpoint import Endpoint
from manymodels.endpoint.journal import REMEMBERED, Journal
from manymodels.environments import Requirements
from manymodels.errors import ModelNotFound, OutOfMemory, SettingsError
from manymodels.invocation import Answer, Invocation
from manymodels.metrics import Metrics, ServerState
from manymodels.plugins import Binding, Plugins
from manymodels.server import ModelDescription
from manymodels.server.awaited import Asked
from manymodels.server.memory import check_room
from manymodels.settings import load
from manymodels.store import DiskCache, Found, LocalStore

PATIENCE = 30.0


class Framework:
    """A plugin that claims everything."""

    @hookimpl
    def claim(self, artifact: Artifact) -> str:
        return "framework"


class Shelf:
    """A model server that keeps exact accounts of bytes, each model's those of its file, and runs nothing."""

    def __init__(self, budget: int) -> None:
        self.metrics = Metrics(0)
        self.budget = budget
        self.held: dict[str, int] = {}
        self.most = 0
        self.loads: list[str] = []
        #: Invocations wait for this.
        self.answering = asyncio.Event()
        self.answering.set()
        self.running = 0

    async def start(self, frameworks: Sequence[str] | None) -> None:
        """Start."""

    async def stop(self) -> None:
        """Stop."""

    async def load(
        self,
        name: str,
        path: Path,
        binding: Binding,
        version: str = "",
        size: int | None = None,
        *,
        isolated: bool = False,
        requirements: Requirements | None = None,
        replace: bool = False,
        asked: Sequence[Asked] = (),
    ) -> ModelDescription:
        """Load a model: it takes room at once, and a moment."""
        assert size is not None
        assert replace or name not in self.held
        check_room(name, size, sum(self.held.values()), self.budget)
        self.held[name] = size
        self.most = max(self.most, sum(self.held.values()))
        self.loads.append(name)
        await asyncio.sleep(0.001)
        return self.describe(name)

    async def unload(self, name: str) -> bool:
        """Unload a model: its room is free after a moment."""
        await asyncio.sleep(0.001)
        del self.held[name]
        return True

    async def invoke(self, name: str, invocation: Invocation, timeout: float) -> Answer:
        """Answer once that is allowed."""
        if name not in self.held:
            raise ModelNotFound(name)
        self.running += 1
        await self.answering.wait()
        self.running -= 1
        return Answer(name.encode(), "text/plain")

    def models(self) -> list[ModelDescription]:
        """Return all models."""
        return [self.describe(name) for name in sorted(self.held)]

    def describe(self, name: str) -> ModelDescription:
        """Return one model."""
        return ModelDescription(name=name, path="", plugin="framework", bytes=self.held[name], load_seconds=0.01)

    def state(self) -> ServerState:
        """Return the accounts."""
        used = sum(self.held.values())
        return ServerState(models=len(self.held), bytes=used, budget=self.budget, waiting=self.running, workers=1)

    def healthy(self) -> bool:
        """Say yes."""
        return True


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serve files of the given sizes with so much memory."""

    @asynccontextmanager
    async def serving(files: dict[str, int], budget: int, **flags: Any) -> AsyncIterator[tuple[Endpoint, Shelf]]:
        root = tmp_path / "store"
        for name, size in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"." * size)
        store = LocalStore(root, DiskCache(tmp_path / "cache"), lambda path: path.is_file())
        shelf = Shelf(budget)
        endpoint = Endpoint(store, shelf, Plugins([("framework", Framework())]), load(**flags))
        await endpoint.start()
        try:
            yield endpoint, shelf
        finally:
            await endpoint.stop()

    return serving


class Looks:
    """Looks at the store."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._silent: tuple[str, ...] = ()
        self._answers = threading.Event()

    def note(self, name: str) -> None:
        """Take note of a look, which waits if it is not to be answered."""
        self.names.append(name)
        assert name not in self._silent or self._answers.wait(60)

    @contextmanager
    def unanswered(self, *names: str) -> Iterator[None]:
        """Have looks for these wait until the block is left."""
        self.names.clear()
        self._answers.clear()
        self._silent = names
        try:
            yield
        finally:
            self._answers.set()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks, find = Looks(), LocalStore.find

    def noted(store: LocalStore, target_model: str) -> Found:
        looks.note(target_model)
        return find(store, target_model)

    monkeypatch.setattr(LocalStore, "find", noted)
    return looks


async def ask(endpoint: Endpoint, *names: str) -> None:
    for name in names:
        assert (await endpoint.invoke(name, Invocation(b""))).body == name.encode()


async def until(condition: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < end, "gave up waiting"
        await asyncio.sleep(0.005)


SMALL = {f"small{number}": 10 for number in range(10)}


def test_several_small_models_leave_for_a_large_one_and_no_more(serve: Serve) -> None:
    async def run() -> None:
        async with serve({**SMALL, "large": 35}, 100, eviction="lru") as (endpoint, shelf):
            await ask(endpoint, *SMALL, "large")
            left = [eviction.model_name for eviction in endpoint.evictions(None, 100)]
            assert sorted(left) == ["small0", "small1", "small2", "small3"]
            assert sorted(shelf.held) == ["large", *[f"small{number}" for number in range(4, 10)]]

    asyncio.run(run())


def test_loads_at_the_same_time_do_not_evict_for_the_same_room(serve: Serve) -> None:
    async def run() -> None:
        new = {f"new{number}": 10 for number in range(10)}
        async with serve({**SMALL, **new}, 100) as (endpoint, shelf):
            await ask(endpoint, *SMALL)
            await asyncio.gather(*(ask(endpoint, name) for name in list(new)[:5]))
            assert len(endpoint.evictions(None, 100)) == 5
            await asyncio.gather(*(ask(endpoint, name) for name in new))
            assert shelf.most == 100
            assert len(endpoint.evictions(None, 100)) == len(shelf.loads) - 10

    asyncio.run(run())


def test_models_in_use_stay(serve: Serve) -> None:
    async def run() -> None:
        async with serve({**SMALL, "large": 50}, 100) as (endpoint, shelf):
            await ask(endpoint, *SMALL)
            shelf.answering.clear()
            busy = [asyncio.create_task(ask(endpoint, f"small{number}")) for number in range(5)]
            await until(lambda: shelf.running == 5)
            loading = asyncio.create_task(ask(endpoint, "large"))
            await until(lambda: "large" in shelf.held)
            assert sorted(shelf.held) == ["large", *[f"small{number}" for number in range(5)]]
            shelf.answering.set()
            await asyncio.gather(loading, *busy)

    asyncio.run(run())


def test_nobody_leaves_while_that_would_not_be_enough(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serve({**SMALL, "large": 90}, 100) as (endpoint, shelf):
            await ask(endpoint, *SMALL)
            shelf.answering.clear()
            busy = [asyncio.create_task(ask(endpoint, f"small{number}")) for number in range(5)]
            await until(lambda: shelf.running == 5)
            loading = asyncio.create_task(ask(endpoint, "large"))
            await until(lambda: endpoint._flights.get("large") and endpoint._room._making.locked())
            assert len(shelf.held) == 10
            shelf.answering.set()
            await asyncio.gather(loading, *busy)
            assert len(shelf.held) == 2

    asyncio.run(run())


def test_where_all_are_in_use_there_is_no_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manymodels.endpoint.room.ROOM_WAIT", 0.05)

    async def run() -> None:
        async with serve(SMALL, 30) as (endpoint, shelf):
            shelf.answering.clear()
            busy = [asyncio.create_task(ask(endpoint, f"small{number}")) for number in range(3)]
            await until(lambda: shelf.running == 3)
            results = await asyncio.gather(
                *(endpoint.invoke(f"small{number}", Invocation(b"")) for number in range(3, 7)), return_exceptions=True
            )
            assert [type(result) for result in results] == [OutOfMemory] * 4
            shelf.answering.set()
            await asyncio.gather(*busy)

    asyncio.run(run())


def test_pinned_models_are_loaded_and_stay(serve: Serve) -> None:
    async def run() -> None:
        files = {**SMALL, "team/a": 10, "team/b": 10, "other": 10}
        async with serve(files, 50, pin="team/*,other,gone") as (endpoint, shelf):
            await until(lambda: len(shelf.held) == 3)
            await ask(endpoint, *SMALL, *SMALL)
            assert {"team/a", "team/b", "other"} <= set(shelf.held)
            assert shelf.loads[0] == "other"  # names come before patterns
            assert not {eviction.model_name for eviction in endpoint.evictions(None, 100)} - set(SMALL)
            await endpoint.unload("team/a")  # on request they go
            assert "team/a" not in shelf.held

    asyncio.run(run())


def test_what_is_pinned_is_loaded_whatever_its_name_stands_for(serve: Serve, tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text('{"names": {"a": {"serve": {"a": 5, "b": 95}}}}')

    async def run() -> None:
        async with serve({"a": 1, "b": 1}, 10, pin="a", names=names) as (endpoint, shelf):
            await endpoint._chores[0]
            assert shelf.loads == ["a"]
            assert (await endpoint.bring("a")).name == "b"

    asyncio.run(run())


def test_what_a_trace_asks_for_most_is_loaded_as_far_as_there_is_room(serve: Serve, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("".join(f"1\tsmall{number}\n" * (number + 1) for number in range(10)) + "2\tgone\n" * 20)

    async def run() -> None:
        async with serve(SMALL, 50, warm_up=str(trace)) as (endpoint, shelf):
            await endpoint._chores[0]
            assert shelf.loads == ["small9", "small8", "small7", "small6", "small5"]
            assert endpoint.evictions(None, 100) == []

    asyncio.run(run())


def test_what_is_pinned_is_loaded_though_the_trace_is_damaged(serve: Serve, tmp_path: Path) -> None:
    trace = tmp_path / "trace.gz"
    trace.write_bytes(gzip.compress(b"1\tsmall1\n" * 100)[:-9])

    async def run() -> None:
        async with serve(SMALL, 50, pin="small2", warm_up=str(trace)) as (endpoint, shelf):
            await endpoint._chores[0]
            assert shelf.loads == ["small2"]

    asyncio.run(run())


def test_models_that_nobody_asks_for_leave(serve: Serve) -> None:
    async def run() -> None:
        async with serve(SMALL, 100, idle_ttl="0.05", pin="small1") as (endpoint, shelf):
            await ask(endpoint, "small0", "small1")
            await until(lambda: set(shelf.held) == {"small1"})
            [left] = endpoint.evictions(None, 100)
            assert (left.model_name, left.reason, left.bytes, left.uses) == ("small0", "idle", 10, 1)
            assert left.idle_seconds >= 0.05
            await ask(endpoint, "small0")

    asyncio.run(run())


def test_invocations_are_recorded(serve: Serve, tmp_path: Path) -> None:
    async def run() -> None:
        async with serve(SMALL, 100, trace=str(tmp_path / "trace")) as (endpoint, _):
            await ask(endpoint, "small0", "small1", "small0")

    asyncio.run(run())
    lines = [line.split("\t")[1:] for line in (tmp_path / "trace").read_text().splitlines()]
    assert lines == [["small0", "10", "0.010000"], ["small1", "10", "0.010000"], ["small0"]]


def test_a_policy_that_is_none() -> None:
    with pytest.raises(SettingsError, match="eviction is 'fifo'"):
        load(eviction="fifo")


def test_a_trace_to_warm_up_from_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"warm_up is .*does not point to a file"):
        load(warm_up=str(tmp_path / "none"))


def test_never_is_a_change_looked_for_but_on_demand(serve: Serve, tmp_path: Path) -> None:
    async def run() -> None:
        async with serve({"a": 10}, 100, store_refresh="never") as (endpoint, shelf):
            with pytest.raises(ModelNotFound, match="'a' is not loaded"):
                await endpoint.refresh("a")
            await ask(endpoint, "a")
            before = endpoint.describe("a").version
            (tmp_path / "store" / "a").write_bytes(b"." * 20)
            await ask(endpoint, "a", "a")
            assert (shelf.loads, endpoint.describe("a").version) == (["a"], before)
            after = (await endpoint.refresh("a")).version
            assert after != before
            assert shelf.held == {"a": 20}
            assert (await endpoint.refresh("a")).version == after
            await ask(endpoint, "a")
            assert shelf.loads == ["a", "a"]
            assert [(left.reason, left.uses) for left in endpoint.evictions(None, 10)] == [("replaced", 3)]
            (tmp_path / "store" / "a").unlink()
            await ask(endpoint, "a")
            with pytest.raises(ModelNotFound):
                await endpoint.refresh("a")
            assert shelf.held == {}

    asyncio.run(run())


def test_where_there_is_no_room_for_both_the_old_version_leaves_first(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("manymodels.endpoint.room.ROOM_WAIT", 0.05)

    async def run() -> None:
        async with serve({"a": 60}, 100) as (endpoint, shelf):
            await ask(endpoint, "a")
            shelf.answering.clear()
            busy = asyncio.create_task(ask(endpoint, "a"))
            await until(lambda: shelf.running == 1)
            (tmp_path / "store" / "a").write_bytes(b"." * 70)
            refreshing = asyncio.create_task(endpoint.refresh("a"))
            await until(lambda: endpoint._leaving)
            shelf.answering.set()
            await asyncio.gather(busy, refreshing)
            assert (shelf.held, shelf.most) == ({"a": 70}, 70)

    asyncio.run(run())


# -- The journal --


def journal(count: int) -> Journal:
    made = Journal()
    for number in range(count):
        made.add(time=1.0, model=str(number), reason="room", size=1, load_seconds=0.1, uses=2, idle=3.0)
    return made


def test_the_journal_has_pages() -> None:
    made = journal(25)
    numbers = [eviction.number for eviction in made.page(None, 10)]
    assert numbers == list(range(25, 15, -1))
    made.add(time=1.0, model="new", reason="room", size=1, load_seconds=0.1, uses=2, idle=3.0)
    assert [eviction.number for eviction in made.page(16, 10)] == list(range(15, 5, -1))
    assert [eviction.number for eviction in made.page(6, 10)] == [5, 4, 3, 2, 1]
    assert made.page(1, 10) == []
    assert [eviction.number for eviction in made.page(1000, 2)] == [26, 25]
    assert journal(0).page(5, 10) == []


def test_the_journal_is_bounded() -> None:
    made = journal(REMEMBERED + 5)
    assert len(made.page(None, 2 * REMEMBERED)) == REMEMBERED
    assert made.page(6, 10) == []


def test_a_loaded_model_is_served_while_the_store_does_not_answer(
    serve: Serve, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manymodels.endpoint.endpoint.LOOK", 0.05)

    async def main() -> None:
        async with serve({"a": 1, "b": 1}, 10, store_refresh=0) as (endpoint, _):
            await ask(endpoint, "a", "b")
            with looks.unanswered("a", "b"):
                await ask(endpoint, "a", "b", "a")
            await ask(endpoint, "a", "b")

    asyncio.run(main())


def test_who_asks_shortly_before_the_store_is_due_does_not_wait_for_it(
    serve: Serve, looks: Looks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        monkeypatch.setattr("manymodels.endpoint.endpoint.AHEAD", 0.0)
        async with serve({"a": 1}, 10, store_refresh=3600) as (endpoint, _):
            await ask(endpoint, "a")
            looks.names.clear()
            await ask(endpoint, "a")
            assert looks.names == [], "the store is not due for long"
        monkeypatch.setattr("manymodels.endpoint.endpoint.AHEAD", 1.0)
        async with serve({"a": 1}, 10, store_refresh=3600) as (endpoint, shelf):
            await ask(endpoint, "a")
            (tmp_path / "store" / "a").write_bytes(b"..")
            with looks.unanswered("a"):
                await asyncio.wait_for(ask(endpoint, "a", "a"), PATIENCE)
            await until(lambda: shelf.held == {"a": 2})
            assert looks.names == ["a"], "it is asked once at a time"

    asyncio.run(main())


def test_a_model_that_leaves_while_the_store_is_asked_ahead_stays_away(
    serve: Serve, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manymodels.endpoint.endpoint.AHEAD", 1.0)

    async def main() -> None:
        async with serve({"a": 6, "b": 6}, 10, store_refresh=3600) as (endpoint, shelf):
            await ask(endpoint, "a")
            with looks.unanswered("a"):
                await ask(endpoint, "a", "b")
            await endpoint._flights.settle()
            assert shelf.held == {"b": 6}
            await ask(endpoint, "a")
            assert shelf.held == {"a": 6}

    asyncio.run(main())

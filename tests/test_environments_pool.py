"""Environments in a pool: built once by several, left when nobody needs them, and not used until they are whole."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from pools import BINDING, Toys, ask, running, until
from wheels import make, of_the_core

from manymodels import Plugins
from manymodels.endpoint.patience import patiently
from manymodels.environments import Environments, Requirements
from manymodels.environments.build import record
from manymodels.errors import LoadFailed, ModelNotReady, OutOfMemory
from manymodels.server import environment_fleets
from manymodels.server.workers import WorkerPool
from manymodels.settings import load

pytestmark = pytest.mark.anyio
NEEDS = Requirements("requirements.txt", ("toolbox==1.0",))


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for environments of wheels; all tests share what is built."""
    wheels = tmp_path_factory.mktemp("wheels")
    of_the_core(wheels)
    make(wheels, "toolbox", "1.0")
    cache = tmp_path_factory.mktemp("cache")
    return {"environments": "build", "environment_wheels": wheels, "cache_dir": cache}


def executable(pid: int) -> str:
    return psutil.Process(pid).cmdline()[0]


async def loaded(pool: WorkerPool, toys: Toys, name: str, **orders: Any) -> None:
    path = toys.artifact(name, **orders)
    await patiently(lambda: pool.load(name, path, BINDING, size=1, requirements=NEEDS), 60)


async def test_two_servers_build_one_environment_once(toys: Toys, flags: dict[str, Any]) -> None:
    servers = [Environments(load(**flags), Plugins.installed()) for _ in range(2)]
    first, second = await asyncio.gather(*(server.build("m", NEEDS, BINDING) for server in servers))
    assert first is not None
    assert first == second, "with the seconds that the one build took"
    assert not servers[0].remove(first.name), "the other uses it"
    for server in servers:
        await server.close()


async def test_models_share_the_workers_of_an_environment(toys: Toys, flags: dict[str, Any]) -> None:
    async with running(**flags) as pool:
        await toys.load(pool, "plain")
        own = pool.used()
        await loaded(pool, toys, "a")
        assert pool.used() - own > 1 << 20, "the interpreter counts"
        await loaded(pool, toys, "b")
        assert pool.describe("a").workers == pool.describe("b").workers != pool.describe("plain").workers
        environment = pool.describe("a").environment
        assert environment is not None
        assert environment in executable(pool.describe("a").workers[0])
        assert pool.describe("plain").environment is None
        await ask(pool, "a")
        with pytest.raises(Exception, match="ended by SIGKILL"):
            await ask(pool, "a", kill="SIGKILL")
        await ask(pool, "b")
        assert pool.describe("b").environment == environment


async def test_a_bad_neighbour_gets_a_worker_of_its_own_there(toys: Toys, flags: dict[str, Any]) -> None:
    async with running(**flags) as pool:
        await loaded(pool, toys, "good")
        await loaded(pool, toys, "bad")
        for _ in range(2):
            with pytest.raises(Exception, match="ended by SIGKILL"):
                await ask(pool, "bad", kill="SIGKILL")
        await ask(pool, "bad")
        await ask(pool, "good")
        assert pool.describe("bad").workers != pool.describe("good").workers
        (pid,) = pool.describe("bad").workers
        assert "environments" in executable(pid)
        await pool.unload("bad")
        await ask(pool, "good")


async def test_workers_end_when_nobody_needs_them(
    toys: Toys, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_fleets.EnvironmentFleets.retire, "__defaults__", (0.0,))
    async with running(**flags) as pool:
        await loaded(pool, toys, "a")
        with_it = pool.state().workers
        await pool.unload("a")
        await until(lambda: pool.state().workers == with_it - 1, "its worker has ended")
        assert not pool._fleet.environments.slots()
        await loaded(pool, toys, "a")
        assert (await ask(pool, "a")) is not None


async def test_idle_environments_make_room(toys: Toys, flags: dict[str, Any]) -> None:
    async with running(**{**flags, "memory": "300MiB"}) as pool:
        await loaded(pool, toys, "a")
        taken = pool.used()
        await pool.unload("a")
        assert pool.used() > taken // 2, "its environment stays for a while"
        path = toys.artifact("large")
        with pytest.raises(OutOfMemory):
            await pool.load("large", path, BINDING, size=250 << 20)
        assert pool.used() < taken // 2


async def test_what_is_half_built_is_not_used(toys: Toys, flags: dict[str, Any], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    mine = Environments(load(**{**flags, "cache_dir": cache}), Plugins.installed())
    with pytest.raises(ModelNotReady, match="is being built"):
        mine.get("m", NEEDS, BINDING)
    await until(lambda: list((cache / "environments").glob(".*/*/bin/python")), "it is half built")
    await mine.close()  # as a server that is stopped
    assert [path for path in (cache / "environments").iterdir() if path.is_dir()] == []
    (name,) = (path.stem for path in (cache / "environments").glob("*.lock"))
    # As one that was killed leaves it.
    (cache / "environments" / f".{name}-left" / name).mkdir(parents=True)
    again = Environments(load(**{**flags, "cache_dir": cache}), Plugins.installed())
    with pytest.raises(ModelNotReady):
        again.get("m", NEEDS, BINDING)
    built = await again.build("m", NEEDS, BINDING)
    assert built is not None
    assert built.name == name
    assert "toolbox==1.0" in built.packages
    assert record(cache / "environments" / name) == built
    assert [path.name for path in (cache / "environments").iterdir() if path.is_dir()] == [name]
    await again.close()


async def test_a_failed_build_is_tried_again_after_a_while(
    toys: Toys, flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Requirements("requirements.txt", ("later==1.0",))
    found = Environments(load(**flags), Plugins.installed())
    with pytest.raises(LoadFailed, match="later"):
        await found.build("m", missing, BINDING)
    with pytest.raises(LoadFailed, match="later"):
        found.check("m")
    found.check("other")
    make(flags["environment_wheels"], "later", "1.0")
    with pytest.raises(LoadFailed, match="later"):
        await found.build("m", missing, BINDING)
    assert found.get("m", None, BINDING) is None
    found.check("m")  # its next version needs nothing
    with pytest.raises(LoadFailed, match="later"):
        found.get("m", missing, BINDING)
    for build in found._builds.values():
        build.until = 0.0
    found.check("m")  # it may be right by now
    built = await found.build("m", missing, BINDING)
    assert built is not None
    assert "later==1.0" in built.packages
    found.check("m")
    await found.close()


async def test_an_environment_was_last_used_when_a_model_last_asked_for_it(flags: dict[str, Any]) -> None:
    found = Environments(load(**flags), Plugins.installed())
    built = await found.build("m", NEEDS, BINDING)
    assert built is not None
    lock = flags["cache_dir"] / "environments" / f"{built.name}.lock"

    def last_used() -> float:
        return next(last for environment, last, _ in found.list() if environment == built)

    os.utime(lock, (0, 0))
    assert found.get("other", NEEDS, BINDING) is not None
    assert last_used() > 0
    os.utime(lock, (0, 0))
    await found.close()
    assert last_used() > 0, "it was in use until now"

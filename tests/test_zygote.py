"""The process that workers are forks of, and the launchers in front of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pools import OTHERS, Toys, ended, running_zygote, until

from manymodels.errors import PluginError, WorkerDied
from manymodels.server import warm
from manymodels.server.launcher import Launcher, Process, SpawnLauncher, ZygoteLauncher, create_launcher
from manymodels.server.messages import Failed, Frames, Run, frame, to_front_decoder
from manymodels.server.worker import WorkerConfig

pytestmark = pytest.mark.anyio

THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"


def config(*modules: str) -> WorkerConfig:
    """Return a configuration with the toy plugin alone."""
    return WorkerConfig(blocked=tuple(OTHERS.split(",")), modules=modules)


@asynccontextmanager
async def started(launcher: Launcher) -> AsyncIterator[None]:
    """Start a launcher and stop it at the end."""
    try:
        await launcher.start()
        yield
    finally:
        await launcher.stop()


@pytest.fixture
def modules(tmp_path: Path, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that the zygote can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return folder


async def works(process: Process) -> bool:
    """Say whether a worker answers; then let it end."""
    loop = asyncio.get_running_loop()
    os.close(process.log)
    with process.connection as connection:
        await loop.sock_sendall(connection, bytes(frame([Run(7, 1, [])])))
        frames = Frames(to_front_decoder)
        messages: list[Any] = []
        while not messages and (data := await loop.sock_recv(connection, 4096)):
            messages = frames.feed(data)
    await process.exited
    return [(type(message), message.job) for message in messages] == [(Failed, 7)]


def left_out(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return what the log says of modules that were left out."""
    lines = [message.split(" is not imported in advance: it ") for message in caplog.messages]
    return {line[0]: line[1] for line in lines if len(line) == 2}


async def test_modules_that_cannot_be_imported_early_are_named(modules: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (modules / "toy_good.py").write_text(f"open({str(modules / 'imported')!r}, 'a').write('x')")
    (modules / "toy_threads.py").write_text(THREAD)
    (modules / "toy_broken.py").write_text("raise ValueError('binary incompatible')")
    names = ("toy_missing", "toy_threads", "toy_broken", "toy_good")
    launcher = ZygoteLauncher(config(*names))
    async with started(launcher):
        assert await works(await launcher.launch())
    assert left_out(caplog) == {
        "toy_missing": "cannot be imported: ModuleNotFoundError: No module named 'toy_missing'",
        "toy_broken": "cannot be imported: ValueError: binary incompatible",
        "toy_threads": "starts threads when imported",
    }
    assert (modules / "imported").read_text() == "x"


async def test_many_modules_that_start_threads_do_not_cost_a_restart_each(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = [f"toy_threads_{number}" for number in range(5)]
    for name in names:
        (modules / f"{name}.py").write_text(f"open({str(modules / 'imported')!r}, 'a').write('x')\n{THREAD}")
    launcher = ZygoteLauncher(config(*names))
    async with started(launcher):
        assert await works(await launcher.launch())
    assert list(left_out(caplog)) == names
    assert (modules / "imported").read_text() == "xxx"


async def test_a_second_zygote_spares_what_the_first_found_out(modules: Path, caplog: pytest.LogCaptureFixture) -> None:
    (modules / "toy_threads.py").write_text(f"open({str(modules / 'imported')!r}, 'a').write('x')\n{THREAD}")
    launcher = ZygoteLauncher(config("toy_threads"))
    async with started(launcher):
        zygote = running_zygote()
        zygote.kill()
        await until(lambda: launcher._zygote is None, "the end of the zygote is seen")
        assert await works(await launcher.launch())
        assert (modules / "imported").read_text() == "x"


async def test_a_plugin_that_starts_threads_is_told_apart(
    modules: Path, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(modules, "threads", THREAD)
    launcher = ZygoteLauncher(config())
    async with started(launcher):
        with pytest.raises(WorkerDied, match=r"forking with 2 threads is not safe.*use --start-method spawn"):
            await launcher.launch()


async def test_a_plugin_that_cannot_be_imported_ends_the_start(modules: Path) -> None:
    write_plugin(modules, "broken", "import no_such_framework")
    with pytest.raises(PluginError, match="ended with code 1 before it was ready; its error stream says why"):
        async with started(ZygoteLauncher(config())):
            pass


async def test_imports_that_take_for_ever_end_the_start(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "START_TIMEOUT", 0.5)
    (modules / "toy_slow.py").write_text("import time; time.sleep(60)")
    with pytest.raises(PluginError, match="importing the plugins' frameworks took longer than"):
        async with started(ZygoteLauncher(config("toy_slow"))):
            pass


def write_plugin(folder: Path, name: str, source: str) -> None:
    """Write a distribution with one plugin module."""
    (folder / f"{name}_plugin.py").write_text(source)
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[manymodels]\n{name} = {name}_plugin\n")


@pytest.mark.parametrize(("method", "kind"), [("fork", ZygoteLauncher), ("spawn", SpawnLauncher)])
async def test_workers_are_started_and_ended(toys: Toys, method: str, kind: type[Launcher]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    launcher = create_launcher(method, config())
    assert type(launcher) is kind
    async with started(launcher):
        processes = [await launcher.launch() for _ in range(3)]
        assert {
            psutil.Process(processes[0].pid).environ()[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        } == {"1"}
        launcher.kill(processes[0])
        assert await processes[0].exited == -9
        launcher.kill(processes[0])  # ended already
        assert await works(processes[1])
        assert processes[1].exited.result() == 0
        assert [ended(process.pid) for process in processes] == [True, True, False]
    assert ended(processes[2].pid)
    assert await processes[2].exited == -9
    for process in (processes[0], processes[2]):
        process.connection.close()
        os.close(process.log)
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # asyncio keeps one to watch its children


async def test_a_zygote_ends_with_its_front_and_workers_with_it(toys: Toys) -> None:
    launcher = ZygoteLauncher(config())
    async with started(launcher):
        process = await launcher.launch()
        worker = psutil.Process(process.pid)
        zygote = running_zygote()
        assert worker.parent() == zygote
        assert launcher._zygote is not None
        zygote.kill()
        assert await process.exited == -9
        await until(lambda: ended(worker.pid), "the worker is gone")
        launcher.kill(process)  # harmless
        process.connection.close()
        os.close(process.log)

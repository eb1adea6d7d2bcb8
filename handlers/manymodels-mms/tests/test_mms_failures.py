"""What becomes of models, callers and processes when something dies, hangs or is not there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from manymodels_mms.backend import MmsServer, create
from manymodels_mms.messages import encode
from pools import BINDING, OTHERS, PATIENCE, TOY, Toys, ended, until

from manymodels.environments import Requirements
from manymodels.errors import (
    InternalFailure,
    InvocationTimeout,
    LoadFailed,
    ModelNotFound,
    ModelRefused,
    OutOfMemory,
    SettingsError,
    WorkerDied,
)
from manymodels.invocation import Invocation
from manymodels.server.messages import Answered, Failure
from manymodels.settings import load

pytestmark = pytest.mark.anyio


async def ask(server: MmsServer, name: str, timeout: float = PATIENCE, **orders: Any) -> dict[str, Any]:
    """Invoke a model, which does what it is ordered; return its answer."""
    answer = await server.invoke(name, Invocation(json.dumps(orders).encode()), timeout)
    content: dict[str, Any] = json.loads(answer.body)
    return content


@asynccontextmanager
async def running(**flags: Any) -> AsyncIterator[MmsServer]:
    """Run a server with the toy plugin alone."""
    server = create(load(**{"block_plugins": OTHERS, "memory": "1GiB", **flags}))
    try:
        await server.start(None)
        yield server
    finally:
        await server.stop()


def home(server: MmsServer, name: str) -> int:
    """Return the process id of a model's only process."""
    (pid,) = server.describe(name).workers
    return pid


def content(folder: Path) -> set[Path]:
    """Return what is in a folder."""
    return set(folder.iterdir())


def guard_of(server: MmsServer) -> psutil.Process:
    """Return the parent of the Java process."""
    assert server._engine is not None
    assert server._engine.guard is not None
    return psutil.Process(server._engine.guard.pid)


crashes = pytest.mark.parametrize(
    ("orders", "reason"), [({"kill": "SIGSEGV"}, "was ended by SIGSEGV"), ({"exit": 3}, "exited with code 3")]
)


@crashes
async def test_a_crash_fails_what_ran_and_nothing_else(
    server: MmsServer, toys: Toys, orders: dict[str, Any], reason: str
) -> None:
    for name in ("m", "other"):
        await server.load(name, toys.artifact(name), BINDING)
    first, other = home(server, "m"), home(server, "other")
    gate = toys.gate()
    crash = asyncio.ensure_future(ask(server, "m", wait=str(gate), **orders))
    await gate.reached()
    waiting = [asyncio.ensure_future(ask(server, "m", tag=tag)) for tag in range(3)]
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(WorkerDied) as caught:
        await crash
    assert str(caught.value) == f"the worker process of 'm' {reason} while it answered"
    assert [(await call)["tag"] for call in waiting] == [0, 1, 2]
    assert (await ask(server, "m"))["pid"] == home(server, "m") != first
    assert (await ask(server, "other"))["pid"] == other
    await server.unload("m")
    await server.unload("other")


@crashes
async def test_a_crash_while_loading(server: MmsServer, toys: Toys, orders: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadFailed, match=f"^the worker process {reason} while it loaded 'm'$"):
        await server.load("m", toys.artifact("m", **orders), BINDING)
    assert server.models() == []


async def test_a_process_that_the_kernel_ends_while_loading_was_too_large(server: MmsServer, toys: Toys) -> None:
    with pytest.raises(OutOfMemory, match="its process was ended by SIGKILL") as caught:
        await server.load("m", toys.artifact("m", kill="SIGKILL"), BINDING)
    assert caught.value.eviction_helps


async def test_a_model_that_keeps_ending_its_process_is_refused(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    for _ in range(3):
        with pytest.raises(WorkerDied):
            await ask(server, "m", exit=1)
    with pytest.raises(ModelRefused, match="its worker process exited with code 1, 3 times"):
        await ask(server, "m")
    await server.unload("m")


async def test_a_model_past_its_deadline_is_ended(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    pid, gate = home(server, "m"), toys.gate()
    with pytest.raises(InvocationTimeout, match=r"^'m' did not answer within 0.3 s: the invocation runs$"):
        await ask(server, "m", 0.3, wait=str(gate))
    await until(lambda: ended(pid), "its process is ended")
    assert (await ask(server, "m"))["pid"] != pid
    await server.unload("m")


async def test_a_process_that_ends_without_work_is_replaced(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    pid = home(server, "m")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not server.describe("m").workers, "it is noticed")
    assert (await ask(server, "m"))["pid"] != pid
    await server.unload("m")


async def test_a_model_is_kept_that_comes_back_after_its_callers_deadline(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    os.kill(home(server, "m"), signal.SIGKILL)
    await until(lambda: not server.describe("m").workers, "it is noticed")
    gate = toys.gate()
    toys.artifact("m", wait=str(gate))
    with pytest.raises(InvocationTimeout, match=r"the invocation waits$"):
        await ask(server, "m", 0.5)
    await gate.reached()
    gate.open()
    await until(lambda: len(server.describe("m").workers) == 1, "it is loaded")
    pid = home(server, "m")
    toys.artifact("m")
    assert (await ask(server, "m"))["pid"] == pid
    await server.unload("m")


async def test_an_invocation_is_answered_when_its_model_cannot_be_loaded_again(toys: Toys) -> None:
    async with running() as server:
        await server.load("m", toys.artifact("m"), BINDING)
        os.kill(home(server, "m"), signal.SIGKILL)
        await until(lambda: not server.describe("m").workers, "it is noticed")
        assert server._engine is not None
        shutil.rmtree(server._engine.store)
        with pytest.raises(InternalFailure, match="'m' cannot be asked; the server's log says why"):
            await ask(server, "m")


async def test_the_deadline_that_is_named_is_the_clients(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    gate = toys.gate()
    invocation = Invocation(json.dumps({"wait": str(gate)}).encode(), deadline=time.monotonic() + 0.3)
    with pytest.raises(InvocationTimeout, match=r"^'m' did not answer within 0.3 s: the invocation runs$"):
        await server.invoke("m", invocation, PATIENCE)
    gate.open()
    await server.unload("m")


async def test_an_answer_that_is_no_text_is_none(
    server: MmsServer, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    assert server._engine is not None

    async def invoke(*_: object) -> bytes:
        return encode(Answered(0, [Failure("kind", "text")])).replace(b"text", b"\xff\xff\xff\xff")

    with monkeypatch.context() as patch:
        patch.setattr(server._engine.api, "invoke", invoke)
        with pytest.raises(WorkerDied):
            await ask(server, "m")
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_a_caller_that_goes_away_disturbs_nobody(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    pid, gate = home(server, "m"), toys.gate()
    gone = asyncio.ensure_future(ask(server, "m", wait=str(gate)))
    await gate.reached()
    rest = asyncio.ensure_future(ask(server, "m"))
    gone.cancel()
    await asyncio.wait({gone})
    gate.open()
    assert (await rest)["pid"] == pid
    await server.unload("m")


async def test_a_model_that_writes_into_its_connection(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    with pytest.raises(WorkerDied):
        await ask(server, "m", garbage=64, exit=1)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


async def test_a_model_is_unloaded_while_it_answers_and_while_others_wait(server: MmsServer, toys: Toys) -> None:
    await server.load("m", toys.artifact("m"), BINDING)
    pid, gate = home(server, "m"), toys.gate()
    calls = [asyncio.ensure_future(ask(server, "m", wait=str(gate)))]
    await gate.reached()
    calls.append(asyncio.ensure_future(ask(server, "m")))
    await asyncio.sleep(0)
    await server.unload("m")
    assert ended(pid)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [WorkerDied, ModelNotFound]
    assert [str(error) for error in errors] == ["'m' was unloaded while it answered", "'m' was unloaded"]


async def test_a_load_that_takes_too_long_is_ended(toys: Toys) -> None:
    async with running(load_timeout=2) as server:
        with pytest.raises(LoadFailed, match=r"^'m' did not load within 2 s$"):
            await server.load("m", toys.artifact("m", wait=str(toys.gate())), BINDING)
        assert server.models() == []
        await server.load("m", toys.artifact("m"), BINDING)
        assert (await ask(server, "m"))["model"] == "m"


async def test_a_load_that_is_cancelled_is_ended(server: MmsServer, toys: Toys) -> None:
    gate = toys.gate()
    loading = asyncio.ensure_future(server.load("m", toys.artifact("m", wait=str(gate)), BINDING))
    await gate.reached()
    loading.cancel()
    await asyncio.wait({loading})
    await server.load("m", toys.artifact("m"), BINDING)
    assert (await ask(server, "m"))["model"] == "m"
    await server.unload("m")


@pytest.mark.parametrize("victim", ["java", "guard", "zygote"])
async def test_what_dies_is_started_again_and_models_come_back(toys: Toys, folder: Path, victim: str) -> None:
    before = content(folder)
    async with running() as server:
        for name in ("a", "b"):
            await server.load(name, toys.artifact(name), BINDING)
        assert server._engine is not None
        assert server._engine.zygote is not None
        guard = guard_of(server)
        pids = {
            "java": guard.children()[0].pid,
            "guard": guard.pid,
            "zygote": server._engine.zygote.process.pid,
        }
        models = [home(server, name) for name in ("a", "b")]
        gate = toys.gate()
        call = asyncio.ensure_future(ask(server, "a", wait=str(gate)))
        await gate.reached()
        os.kill(pids[victim], signal.SIGKILL)
        with pytest.raises(WorkerDied, match="while 'a' answered"):
            await call
        assert sorted([(await ask(server, name))["model"] for name in ("a", "b")]) == ["a", "b"]
        assert server.healthy()
        for pid in [*pids.values(), *models]:
            await until(lambda pid=pid: ended(pid), "all of before is gone")  # type: ignore[misc]
        assert len(content(folder) - before) == 1


async def test_stop_lets_invocations_end(toys: Toys) -> None:
    gate = toys.gate()
    async with running() as server:
        await server.load("m", toys.artifact("m"), BINDING)
        call = asyncio.ensure_future(ask(server, "m", wait=str(gate), tag=1))
        await gate.reached()
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.1)
        gate.open()
        assert (await call)["tag"] == 1
        await stopping
        assert not server.healthy()


FRONT = f"""
import asyncio, sys
from pathlib import Path
from manymodels.plugins import Binding
from manymodels.settings import load
from manymodels_mms.backend import create

async def main():
    server = create(load(block_plugins={OTHERS!r}, start_method=sys.argv[2]))
    await server.start(None)
    for name in ("a", "b"):
        await server.load(name, Path(sys.argv[1]), Binding("toy"))
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_nothing_outlives_a_front_that_is_killed(toys: Toys, folder: Path, start_method: str) -> None:
    before = content(folder)
    command = [sys.executable, "-c", FRONT, str(toys.artifact("m")), start_method]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(TOY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as front:
        assert front.stdout is not None
        assert front.stdout.readline() == "ready\n"
        below = psutil.Process(front.pid).children(recursive=True)
        assert len(below) >= 6
        front.kill()
    psutil.wait_procs(below, timeout=PATIENCE)
    assert [process for process in below if not ended(process.pid)] == []
    assert content(folder) == before


async def test_processes_of_multi_model_server_itself(toys: Toys) -> None:
    """`--start-method spawn` has no zygote: each model is a process of multi-model-server's own making."""
    async with running(start_method="spawn", load_timeout=20) as server:
        description = await server.load("m", toys.artifact("m", note="by hand"), BINDING)
        assert list(description.notes) == ["by hand"]
        assert description.bytes > 10 << 20
        assert description.predictor is not None
        assert "have no idle moments" in description.predictor.reason
        assert (await ask(server, "m", tag=1))["tag"] == 1
        with pytest.raises(LoadFailed, match="RuntimeError: bad weights"):
            await server.load("broken", toys.artifact("broken", error="bad weights"), BINDING)
        with pytest.raises(OutOfMemory, match="memory ran out while loading 'large'"):
            await server.load("large", toys.artifact("large", allocate=8 << 30), BINDING)
        with pytest.raises(WorkerDied, match="the worker process of 'm' ended while it answered"):
            await ask(server, "m", exit=3)
        assert (await ask(server, "m", tag=2))["tag"] == 2
        await server.unload("m")
        guard = guard_of(server)
        await until(lambda: len(guard.children(recursive=True)) == 1, "only Java is left")


async def test_several_processes_of_a_model(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_WORKERS", "3")
    async with running() as server:
        description = await server.load("m", toys.artifact("m"), BINDING)
        assert len(set(description.workers)) == 3
        gates = [toys.gate(f"gate{number}") for number in range(3)]
        calls = []
        for gate in gates:
            calls.append(asyncio.ensure_future(ask(server, "m", wait=str(gate))))
            await gate.reached()
        for gate in gates:
            gate.open()
        assert {(await call)["pid"] for call in calls} == set(description.workers)
        await server.unload("m")
        for pid in description.workers:
            assert ended(pid)


async def test_a_crash_of_one_process_of_a_model_is_no_matter_to_the_others(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYMODELS_MMS_WORKERS_PER_MODEL", "2")
    async with running() as server:
        before = set((await server.load("m", toys.artifact("m"), BINDING)).workers)
        taken = server.used()
        gate = toys.gate()
        call = asyncio.ensure_future(ask(server, "m", wait=str(gate)))
        await gate.reached()
        for _ in range(2):
            with pytest.raises(WorkerDied, match="exited with code 3"):
                await ask(server, "m", exit=3)
            assert (await ask(server, "m", tag=1))["tag"] == 1
        gate.open()
        (kept,) = before & set(server.describe("m").workers)
        assert (await call)["pid"] == kept
        await until(lambda: len(server.describe("m").workers) == 2, "both are there")
        assert abs(server.used() - taken) < 16 << 20
        idle = next(pid for pid in server.describe("m").workers if pid != kept)
        os.kill(idle, signal.SIGKILL)
        await until(lambda: tuple(server.describe("m").workers) == (kept,), "its end is noticed")
        assert {(await ask(server, "m"))["pid"] for _ in range(5)} == {kept}
        await server.unload("m")


async def test_a_crash_while_several_processes_load_a_model_counts_once(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYMODELS_MMS_WORKERS_PER_MODEL", "4")
    async with running() as server:
        with pytest.raises(LoadFailed, match="exited with code 3 while it loaded 'm'"):
            await server.load("m", toys.artifact("m", exit=3), BINDING)
        (record,) = server._conduct._records.values()
        assert record.kills == 1
        assert server.used() == 0
        await server.load("m", toys.artifact("m"), BINDING)
        await server.unload("m")


async def test_without_java_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"JAVA_HOME is .*, which has no bin/java; correct or unset it"):
        async with running():
            pass


async def test_java_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMODELS_MMS_VMARGS", "-XX:NoSuchOption")
    with pytest.raises(WorkerDied, match="multi-model-server ended with code 1; its log says why"):
        async with running():
            pass


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMODELS_MMS_WORKERS_PER_MODEL", "0")
    with pytest.raises(SettingsError, match="MANYMODELS_MMS_WORKERS_PER_MODEL is '0'"):
        create(load())


async def test_a_model_that_needs_an_environment_is_refused(tmp_path: Path) -> None:
    server = create(load(environments="built", cache_dir=tmp_path / "cache"))
    needs = Requirements("requirements.txt", ("nothing-of-this-name==1",))
    with pytest.raises(LoadFailed, match="models of the backend mms cannot have; serve it with --backend workers"):
        await server.load("m", tmp_path, BINDING, size=1, requirements=needs)

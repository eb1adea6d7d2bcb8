"""Fixtures of these tests: the toy plugin, a server that tests share, and what none may leave behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from manymodels_mms.backend import MmsServer, create
from pools import OTHERS, TOY, Toys, ended

from manymodels.settings import load


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run coroutine tests, which are marked ``anyio``, on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for temporary files, with the toy plugin on the path; nothing may be left of what was started."""
    temporary = tmp_path_factory.mktemp("mms")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        patch.setenv("PYTHONPATH", str(TOY), prepend=os.pathsep)
        patch.setattr(tempfile, "tempdir", str(temporary))
        before = set(psutil.Process().children(recursive=True))
        yield temporary
        started = set(psutil.Process().children(recursive=True)) - before
        _, left = psutil.wait_procs(started, timeout=5)
        left = [process for process in left if not ended(process.pid)]
        for process in left:
            process.kill()
    assert not left, f"processes are left: {left}"
    assert not list(temporary.iterdir()), "files are left"


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    """A maker of toy models."""
    return Toys(tmp_path)


@pytest.fixture(scope="module")
async def server(folder: Path) -> AsyncIterator[MmsServer]:
    """A server with the toy plugin alone; tests unload what they load."""
    running = create(load(block_plugins=OTHERS, memory="1GiB"))
    await running.start(None)
    yield running
    await running.stop()

"""The process in which a plugin is checked: like a zygote it has imported what the plugin wants, and forks."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from ..errors import PluginError
from ..plugins import Plugins
from ..server.launcher import variables
from ..server.worker import set_up_process
from ..server.zygote import import_all
from ..settings import load
from . import forks
from .outcome import Outcome
from .subject import Subject, alone
from .suite import CHECKS

#: Seconds until a check is given up.
DEADLINE = 90.0
_SAMPLE = "sample"


class Lab:
    """Checks one installed plugin."""

    def __init__(self, plugin: str) -> None:
        """Start its process, and have the plugin write its sample artifact there.

        :raises PluginError: if there is no such plugin, or it writes no sample.
        """
        installed = Plugins.installed(load().block_plugins).names
        if plugin not in installed:
            raise PluginError(f"the plugin {plugin!r} is not installed; installed: {', '.join(installed) or 'none'}")
        folder = tempfile.mkdtemp(dir=_folder().name)
        process = subprocess.Popen(
            [sys.executable, "-m", "manymodels.testing", plugin, folder, str(os.getpid()), "{}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=variables(load().threads),
        )
        self._process = process
        self.close = weakref.finalize(self, _close, process)
        sample = self.run(_SAMPLE)
        if sample.status != "passed":
            self.close()
            raise PluginError(f"{plugin!r} cannot be checked without a sample: {sample.why}")

    def run(self, check: str) -> Outcome:
        """Run one check."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(check.encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            return Outcome("failed", f"the process that checks ended with {self._process.wait()}")
        return msgspec.json.decode(line, type=Outcome)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of all labs of this process, which share the samples they make."""
    return tempfile.TemporaryDirectory(prefix="manymodels-")


def _close(process: subprocess.Popen[bytes]) -> None:
    with process:
        assert process.stdin is not None
        process.stdin.close()  # at which it ends


def main(argv: list[str]) -> None:
    """Answer each check named on standard input: ``python -m manymodels.testing PLUGIN FOLDER PARENT LEFT_OUT``."""
    plugin, folder, parent, left_out = argv
    set_up_process(int(parent))
    plugins = Plugins.installed(load().block_plugins)

    def restart(left_out: dict[str, str]) -> NoReturn:
        again = msgspec.json.encode(left_out).decode()
        os.execv(sys.executable, [sys.executable, "-m", "manymodels.testing", plugin, folder, parent, again])  # noqa: S606

    skipped: dict[str, str] = msgspec.json.decode(left_out)
    import_all(alone(plugin).warm_up_imports(), skipped, restart)
    # What plugins print must not come between the outcomes.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        subject = Subject(plugin, Path(folder), plugins, skipped)
        outcome = forks.run(_function(line.strip(), subject), DEADLINE, subject.scratch() / "log")
        output.write(msgspec.json.encode(outcome) + b"\n")
        output.flush()


def _function(name: str, subject: Subject) -> Callable[[], str | None]:
    return subject.write_sample if name == _SAMPLE else lambda: CHECKS[name](subject)

"""Run a function in a fork of this process, so that a crash or a hang is its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..server.worker import set_up_process
from .outcome import Failed, NotApplicable, Outcome

#: Bytes of output that are kept, from its end.
_OUTPUT = 1 << 14


def run(function: Callable[[], str | None], deadline: float, log: Path) -> Outcome:
    """Run a check, or a part of one, in a fork of this process; return how it ended.

    :param function: returns what it did, or raises `Failed` or `NotApplicable`.
    :param deadline: seconds until the fork, and all it started, is ended.
    :param log: a file for what is printed.
    """
    start = time.monotonic()
    read, write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _child(function, parent, write, log)
    os.close(write)
    try:
        content = _read(read, start + deadline)
    finally:
        os.close(read)
        with contextlib.suppress(PermissionError):  # some systems do not let signal what has ended
            # With what it started; only a fork that has not begun is still of our own group.
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - start
    output = log.read_text(errors="replace")[-_OUTPUT:] if log.exists() else ""
    if content:
        return msgspec.structs.replace(msgspec.msgpack.decode(content, type=Outcome), seconds=seconds, output=output)
    if content is None:
        why = f"it took longer than {deadline:g} s"
    else:
        code = os.waitstatus_to_exitcode(status)
        why = f"the process ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"
        last = output.strip().splitlines()[-1:]
        why += f"; the last it said: {last[0]}" if last else ""
    return Outcome("failed", why, seconds, output)


def _read(fd: int, end: float) -> bytes | None:
    """Return all that is written to a pipe until it is closed; None if that takes too long."""
    content = b""
    while select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
        data = os.read(fd, 1 << 16)
        if not data:
            return content
        content += data
    return None


def _child(function: Callable[[], str | None], parent: int, write: int, log: Path) -> None:
    try:
        os.setsid()
        set_up_process(parent)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.write(write, msgspec.msgpack.encode(_outcome(function)))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)  # the stack above is the parent's


def _outcome(function: Callable[[], str | None]) -> Outcome:
    try:
        return Outcome("passed", function() or "")
    except Failed as error:
        return Outcome("failed", str(error))
    except NotApplicable as error:
        return Outcome("skipped", str(error))
    except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is how the check ended
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        return Outcome("failed", f"{type(error).__name__}: {error} ({where})")

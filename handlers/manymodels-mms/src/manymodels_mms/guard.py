"""The parent of the Java process: ends it, and all that it started, when the front does.

multi-model-server leaves its model processes behind however it ends. So whatever becomes an orphan
below the guard becomes its child, and is ended by it; the same for the folder they work in.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run a command until it ends or standard input does: ``python -m manymodels_mms.guard FOLDER COMMAND...``.

    Returns the exit code of the command, or 0 where it was not asked to end by itself.
    """
    folder, *command = argv
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    wake, poke = os.pipe()
    os.set_blocking(poke, False)
    signal.set_wakeup_fd(poke)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        # This process has one thread, so the function may run between fork and exec.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        code = None
        while code is None:
            ready, _, _ = select.select([0, wake], [], [])
            if 0 in ready:
                code = 0
            else:
                os.read(wake, 4096)
                code = _reap(process.pid)
        _end_all()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 128 - code if code < 0 else code


def _reap(command: int) -> int | None:
    """Take the exit codes of children that ended; return that of the command, if it is among them."""
    code = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == command:
                code = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        return code
    return code


def _end_all() -> None:
    """End all processes below this one; those that lost their parent have become children of it."""
    import psutil  # not before it is needed: this process is to be small

    while children := psutil.Process().children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

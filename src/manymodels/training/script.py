"""The user's own training script: where it is, and running it."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ..errors import TrainingFailed
from ..store import Limits, unpack
from ..store.base import ARCHIVES
from .failure import Failure

logger = logging.getLogger(__name__)

#: Seconds a script has to end after SIGTERM; SageMaker itself waits no longer.
GRACE = 120.0
#: Signals that are handed on to the script.
SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Bytes read once it has ended: no pipe holds more of what it wrote, and what it left running may write for ever.
DRAIN = 1 << 20
#: Seconds until a signal is handed on, or the script's end seen.
_TICK = 0.2
#: Bytes of the script's last words that are kept, and characters of the line that opens the reason.
_TAIL = 8192
_SHOWN = 500


@contextmanager
def code_folder(address: str | None, base: Path, limits: Limits) -> Iterator[Path]:
    """Yield the folder with the user's code; an archive is unpacked for as long.

    :param address: a folder or archive; None: ``code`` below `base`.
    :raises TrainingFailed: if it is not there, or not on this disk.
    :raises BadArtifact: if the archive is corrupt, empty, too large or hostile.
    """
    if address is not None and "://" in address:
        raise TrainingFailed(
            f"the submit directory is {address!r}, and code is not downloaded; put it into {base / 'code'}, "
            "or make it an input channel and set sagemaker_submit_directory to that channel's folder"
        )
    path = base / "code" if address is None else Path(address).resolve()
    if path.is_dir():
        yield path
    elif path.is_file() and path.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory(prefix="manymodels-") as temp:
            unpack(path, Path(temp, "code"), limits)
            yield Path(temp, "code")
    else:
        raise TrainingFailed(f"the submit directory {str(path)!r} is neither a folder nor a .tar.gz")


def check_script(program: str, code: Path) -> None:
    """Refuse a script that cannot be run.

    :raises TrainingFailed: naming it, and what is there instead.
    """
    if not (code / program).is_file():
        there = ", ".join(sorted(entry.name for entry in code.iterdir())[:10]) or "nothing"
        raise TrainingFailed(f"the script {program!r} is not in {code}, which holds {there}")
    if not program.endswith(".py"):
        raise TrainingFailed(f"the script {program!r} is not Python; name a file that ends with .py")
    if (code / "requirements.txt").is_file():
        logger.warning("requirements.txt is not installed: the image has to hold what %s needs", program)


def run_script(program: str, arguments: Sequence[str], code: Path, variables: Mapping[str, str]) -> Failure | None:
    """Run a script until it ends; its output goes where this process's goes.

    SIGTERM and SIGINT are handed on; the script then has `GRACE` seconds. What it leaves running is killed.

    :raises TrainingFailed: if it cannot be started.
    """
    path = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **variables, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with _noted_signals() as noted:
        try:
            # A session of its own, so that Ctrl-C reaches the script once and all it started can be killed.
            process = subprocess.Popen(
                [sys.executable, program, *arguments],
                cwd=code,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise TrainingFailed(
                f"{program} cannot be started with its hyperparameters as arguments and variables: {error}"
            ) from error
        try:
            return _attend(process, program, noted)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attend(process: subprocess.Popen[bytes], program: str, noted: list[int]) -> Failure | None:
    """Pass on errors and signals until the script ends."""
    assert process.stderr is not None
    tail = b""
    handed = 0
    deadline = float("inf")
    rest = DRAIN
    with process.stderr as errors:
        source: list[int] = [errors.fileno()]
        while rest > 0:
            ended = process.poll() is not None
            for number in noted[handed:]:
                handed += 1
                process.send_signal(number)
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                logger.error("%s did not end within %.0f s and is killed", program, GRACE)
                process.kill()
                deadline = float("inf")
            if not select.select(source, (), (), 0 if ended else _TICK)[0]:
                # A process the script left behind may hold its end of the pipe open for ever.
                if ended:
                    break
                continue
            chunk = os.read(errors.fileno(), 1 << 16)
            source = source if chunk else []
            rest -= len(chunk) if ended else 0
            tail = (tail + chunk)[-_TAIL:]
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
    return _judge(process.returncode, program, noted, tail.decode("utf-8", "replace"))


def _judge(code: int, program: str, noted: list[int], tail: str) -> Failure | None:
    if code == 0:
        return None
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
        if noted:
            how += f" after {signal.Signals(noted[0]).name} was sent to stop it"
        elif -code == signal.SIGKILL:
            how += ", most likely for want of memory; choose an instance with more"
    else:
        how = f"ended with exit code {code}"
        if lines := [line.strip() for line in re.split(r"[\r\n]+", tail) if line.strip()]:
            how += f": {lines[-1][:_SHOWN]}"
    details = f"The end of what it wrote to standard error:\n{tail}" if tail.strip() else ""
    return Failure(128 - code if code < 0 else code, f"{program} {how}", details)

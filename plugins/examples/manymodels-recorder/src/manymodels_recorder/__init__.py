"""Record a sample of the requests to every model, with their answers, as golden requests.

A wrapper: it serves no model, and runs around ``output_fn`` of whatever plugin does. It is found in
the entry-point group ``manymodels`` as the object `recorder`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from manymodels import Context, Golden, hookimpl
from manymodels.golden import write

__version__ = "0.1.0"

logger = logging.getLogger(__name__)

FOLDER = "MANYMODELS_RECORDER_FOLDER"
RATE = "MANYMODELS_RECORDER_RATE"
MODEL_BYTES = "MANYMODELS_RECORDER_MODEL_BYTES"
TOTAL_BYTES = "MANYMODELS_RECORDER_TOTAL_BYTES"

#: The plugin's name, under which it keeps in ``context.state`` that a model's file is full.
_NAME = "recorder"
#: Holds how many bytes all files take, and is locked by the process that changes that.
_COUNT = ".bytes"
#: What a file takes on disk at least, so that many small ones count as what they are.
_BLOCK = 4096
#: Characters of a quoted TargetModel that a file's name begins with; names have 255 bytes.
_SHOWN = 150
# Of the operating system: forks would share the state of a generator, and scripts seed the module's.
_chance = random.SystemRandom().random


class Recorder:
    """Writes requests and answers to a folder, a file for each model and process."""

    def __init__(
        self, folder: Path | None, *, rate: float = 0.01, model_bytes: int = 1 << 20, total_bytes: int = 64 << 20
    ) -> None:
        """Record into a folder; None: nothing.

        :param rate: share of the answered requests that is recorded, 0 to 1.
        :param model_bytes: most bytes of a file.
        :param total_bytes: most bytes of all files, whatever process wrote them.
        """
        self._folder = folder
        self._rate = rate
        self._model_bytes = model_bytes
        self._total_bytes = total_bytes
        #: The process that has looked into the folder, and what its files are named by; forks look themselves.
        self._process: tuple[int, str] = (0, "")
        self._full = False
        self._said: set[str] = set()

    @classmethod
    def configured(cls, environ: Mapping[str, str]) -> Recorder:
        """Return the recorder that the environment asks for.

        :raises ValueError: if a variable is not valid; the server then does not start, and says so.
        """
        folder = environ.get(FOLDER)
        rate = environ.get(RATE, "0.01")
        try:
            share = float(rate)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(f"{RATE}={rate!r} is no number from 0 to 1")
        return cls(
            Path(folder).absolute() if folder else None,
            rate=share,
            model_bytes=_count(environ, MODEL_BYTES, 1 << 20),
            total_bytes=_count(environ, TOTAL_BYTES, 64 << 20),
        )

    @hookimpl(wrapper=True)
    def output_fn(self, context: Context) -> Generator[None, Any, Any]:
        """Pass the answer on, and record some with their requests."""
        answer = yield
        if self._folder is not None and not self._full and _chance() < self._rate:
            try:
                self._record(self._folder, answer, context)
            except Exception as error:
                # No request fails for this; each kind of error is told once by every process.
                kind = f"{type(error).__name__} {getattr(error, 'errno', '')}"
                if kind not in self._said:
                    self._said.add(kind)
                    logger.exception("a request to %r is not recorded in %s", context.target_model, self._folder)
        return answer

    def _record(self, folder: Path, answer: Any, context: Context) -> None:
        invocation = context.invocation
        body, content_type = answer
        # A golden request has a Content-Type, and its answer the status 200.
        if invocation is None or invocation.content_type is None or context.response_status != 200:
            return
        if _NAME in context.state:
            return
        if self._process[0] != os.getpid():
            self._open(folder)
        path = folder / f"{_quoted(context.target_model)}.{self._process[1]}.jsonl"
        try:
            written = path.stat().st_size
        except FileNotFoundError:
            written = 0
        room = self._model_bytes - written
        if len(invocation.body) + len(body) > room:
            return
        line = write(
            [
                Golden(
                    body=invocation.body,
                    content_type=invocation.content_type,
                    accept=context.accept,
                    answer=body.encode() if isinstance(body, str) else bytes(body),
                    answer_content_type=context.response_content_type or content_type,
                )
            ]
        )
        if len(line) > room:
            # Shorter ones might fit, but then what is recorded last would be the short ones.
            context.state[_NAME] = "full"
        else:
            self._write(folder, path, line, written)

    def _open(self, folder: Path) -> None:
        """Prepare the folder for this process, and count anew what is in it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder / _COUNT, wait=True) as file, os.scandir(folder) as entries:
            _put(file, sum(_on_disk(entry.stat().st_size) for entry in entries if entry.name.endswith(".jsonl")))
        self._process = (os.getpid(), f"{time.time_ns():x}-{os.getpid()}")

    def _write(self, folder: Path, path: Path, line: bytes, written: int) -> None:
        """Append a line if the total has room for it, and no other process writes at this moment."""
        try:
            file = _locked(folder / _COUNT, wait=False)
        except BlockingIOError:
            return  # what is recorded is a sample anyway
        with file:
            taken = int(file.read() or 0) + _on_disk(written + len(line)) - _on_disk(written)
            if taken > self._total_bytes:
                self._full = True
                logger.warning("%s is full: %s=%d; nothing more is recorded", folder, TOTAL_BYTES, self._total_bytes)
                return
            _put(file, taken)
            _append(path, line, written)  # under the lock, or a process that counts what is there would miss it


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(f"{name}={text!r} is no number of bytes")
    return int(text)


def _quoted(name: str) -> str:
    """Return a file name that no other TargetModel gets, and that leads nowhere."""
    raw = name.encode("utf-8", "surrogatepass")
    text = quote(raw, safe="")
    if text.startswith("."):  # would be hidden, and "..jsonl" is no name to read
        text = f"%2E{text[1:]}"
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}~{hashlib.sha256(raw).hexdigest()[:16]}"


def _on_disk(count: int) -> int:
    return -(-count // _BLOCK) * _BLOCK


def _private(path: Path, flags: int) -> int:
    """Open a file that its owner alone can read, and that is no link."""
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(path: Path, *, wait: bool) -> Any:
    """Open a file that no other process has locked; closing it lets go of it."""
    file = open(_private(path, os.O_RDWR), "r+b", buffering=0)  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file


def _put(file: Any, count: int) -> None:
    file.seek(0)
    file.write(b"%020d" % count)


def _append(path: Path, line: bytes, size: int) -> None:
    """Append a whole line or nothing; no other process writes to this file."""
    file = _private(path, os.O_WRONLY | os.O_APPEND)
    try:
        if os.write(file, line) < len(line):
            os.ftruncate(file, size)
            raise OSError(f"{path} cannot be written whole: is the disk full?")
    finally:
        os.close(file)


recorder = Recorder.configured(os.environ)

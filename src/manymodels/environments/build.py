"""Build an environment with uv, under a temporary name until it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from ..errors import SettingsError

#: What is known of an environment, in its folder.
RECORD = "environment.json"
#: Lines of the installer that are shown where it fails, and characters of each.
TAIL = 8
WIDTH = 300
#: Seconds between looks whether another process has built what is waited for.
POLL = 0.2
_NOISE = "Using Python "
#: Longest line of the installer, in bytes.
LINE = 1 << 16


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that is built."""

    #: The digest of what is in it, and of the interpreter; also the name of its folder.
    name: str
    #: What it was made for: the requirements of artifacts.
    asked: tuple[str, ...]
    #: All it was made from, with what the server's own packages need.
    requirements: tuple[str, ...]
    #: What is installed, as ``name==version``.
    packages: tuple[str, ...]
    bytes: int
    #: Seconds that building it took.
    seconds: float


class Failed(Exception):
    """The installer failed; the text is what it said."""


class Lock:
    """A file whose lock is held by who builds or removes an environment, alone, and by who uses it, together."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            self._file = os.open(path, os.O_RDONLY)  # another user's, or in an image: it can be used all the same

    def take(self, *, alone: bool) -> bool:
        """Take the lock, or turn one held together into one held alone and back; False: others are in the way."""
        try:
            fcntl.flock(self._file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)


def find_uv() -> str:
    """Return the path of uv: the one installed beside this interpreter, or the one found on PATH.

    :raises SettingsError: if there is none.
    """
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise SettingsError(
            "environments are built by uv, which is not found: pip install 'manymodels[environments]', "
            "or put uv on the PATH"
        )
    return found


def python(folder: Path) -> str:
    """Return the interpreter of the environment in a folder."""
    return str(folder / "bin" / "python")


def record(folder: Path) -> Environment | None:
    """Return the environment in a folder; None if there is none."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Environment)
    except (OSError, msgspec.DecodeError):
        return None


class Build:
    """One environment being built, or that could not be."""

    def __init__(self, folder: Path, asked: Sequence[str], requirements: Sequence[str]) -> None:
        """Prepare to build.

        :param folder: where it is to be.
        :param asked: what artifacts ask for.
        :param requirements: all that it is to hold.
        """
        self._folder = folder
        self._asked = tuple(asked)
        self._requirements = tuple(requirements)
        self._began = time.monotonic()
        #: What is being done.
        self.stage = "waits for its turn"
        #: Names of the models that want it.
        self.models: set[str] = set()
        #: Why it failed, and until when, by the monotonic clock, it is not tried again.
        self.error: str | None = None
        self.until = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since it was asked for."""
        return time.monotonic() - self._began

    def fail(self, error: str, seconds: float) -> None:
        """Remember why it failed, for so many seconds."""
        self.error, self.until = error, time.monotonic() + seconds

    async def run(self, *, check: Sequence[str], wheels: Path | None, most: int, timeout: float) -> None:
        """Build it, unless another process does so meanwhile.

        :param check: arguments of its interpreter that have to succeed.
        :param wheels: a folder with all packages it may be made of; None: from where uv is told to look.
        :param most: bytes it may take.
        :raises Failed: with what the installer said.
        """
        lock = Lock(self._folder.with_suffix(".lock"))
        try:
            self.stage = "is being built by another server"
            while not lock.take(alone=True):
                if record(self._folder) is not None and lock.take(alone=False):
                    return  # it is used already
                await asyncio.sleep(POLL)
            if record(self._folder) is None:
                await asyncio.wait_for(self._make(check, wheels, most), timeout)
        except asyncio.TimeoutError:
            raise Failed(f"it took longer than {timeout:g} s (environment_timeout), and was at: {self.stage}") from None
        except OSError as error:
            raise Failed(f"its folder cannot be written: {error}") from error
        finally:
            lock.close()

    async def _make(self, check: Sequence[str], wheels: Path | None, most: int) -> None:
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        name = self._folder.name
        for left in self._folder.parent.glob(f".{name}-*"):  # nobody else is at it: the lock is ours
            await loop.run_in_executor(None, _delete, left)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self._folder.parent))
        try:
            folder = work / name
            uv = find_uv()
            # What may run code is left out of it: packages come as wheels, which are only unpacked.
            await self._do(
                uv, "venv", "--quiet", "--no-project", "--relocatable", "--python", sys.executable, str(folder)
            )
            self.stage = "its packages are looked for"
            file = work / "requirements.txt"
            file.write_text("".join(f"{line}\n" for line in self._requirements))
            sources = () if wheels is None else ("--no-index", "--find-links", str(wheels))
            install = (
                uv,
                "pip",
                "install",
                "--no-build",
                "--compile-bytecode",
                "--no-progress",
                "--python",
                python(folder),
            )
            await self._do(*install, *sources, "--requirements", str(file))
            self.stage = "it is checked"
            count = await loop.run_in_executor(None, size, folder)
            if count > most:
                raise Failed(f"it takes {count} bytes, and may take {most} (environment_size)")
            await self._do(python(folder), *check, tail=1)
            packages = await loop.run_in_executor(None, _packages, folder)
            built = Environment(
                name=name,
                asked=self._asked,
                requirements=self._requirements,
                packages=packages,
                bytes=count,
                seconds=time.monotonic() - start,
            )
            (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(built)))
            folder.rename(self._folder)
        finally:
            await asyncio.shield(loop.run_in_executor(None, _delete, work))

    async def _do(self, *command: str, tail: int = TAIL) -> None:
        """Run a command, and show its last line while it runs.

        :param tail: how many of them say why it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder.parent,
            limit=LINE,
            start_new_session=True,
        )
        assert process.stdout is not None
        lines: deque[str] = deque(maxlen=tail)
        try:
            while line := await _line(process.stdout):
                if (text := line.decode("utf-8", "replace").strip()[:WIDTH]) and not text.startswith(_NOISE):
                    lines.append(text)
                    self.stage = text
            code = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if code:
            raise Failed(" ".join(lines) or f"{Path(command[0]).name} ended with code {code}")


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        return b"(a line that is too long)"


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(place, name)).st_size for name in names)
    return total


def remove(folder: Path) -> bool:
    """Delete an environment; False if somebody uses it."""
    lock = Lock(folder.with_suffix(".lock"))
    try:
        if not lock.take(alone=True):
            return False
        gone = folder.with_name(f".{folder.name}-removed")
        folder.rename(gone)  # so that what is there is whole, or nothing
        _delete(gone)
        return True
    finally:
        lock.close()


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _packages(folder: Path) -> tuple[str, ...]:
    places = [str(place) for place in folder.glob("lib/python*/site-packages")]
    return tuple(sorted(f"{one.name}=={one.version}" for one in metadata.distributions(path=places)))

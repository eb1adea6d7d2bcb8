"""A worker process: holds many models and answers for them, one job at a time."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..artifact import Artifact
from ..context import ModelSettings
from ..errors import LoadFailed, ManyModelsError, ModelNotFound, OutOfMemory
from ..invocation import Streaming
from ..log import WorkerFormatter
from ..model import Model
from ..plugins import Plugins
from ..trial import Predictor
from .busy import Busy
from .chores import Chores
from .memory import Meter, private
from .messages import (
    Answered,
    Cancel,
    Dropped,
    Failed,
    Failure,
    Frames,
    Load,
    Loaded,
    Memory,
    Pull,
    Run,
    Serves,
    Stop,
    ToFront,
    Tries,
    Unload,
    Unloaded,
    frame,
    outcome,
    sendable,
    to_worker_decoder,
)
from .outlet import Outlet
from .trials import Trials

logger = logging.getLogger(__name__)

_RECEIVE = 1 << 20
#: Bytes of unloaded models that are not free after which all objects are looked at for garbage. Most models are
#: free at once; for others, whose objects refer to each other, it costs a copy of what the workers share, too.
GARBAGE = 64 << 20
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
#: Bytes of an artifact from which it says something of others of its plugin.
RATIO = 64 << 10
#: Seconds of a job behind which the front is listened to before the next: it says nothing sooner.
LONG = 0.001
#: Seconds between a job and a look at the memory the worker takes.
REPORT = 2.0
_PR_SET_PDEATHSIG = 1


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is started with."""

    blocked: tuple[str, ...] = ()
    #: Modules to import before the first job.
    modules: tuple[str, ...] = ()
    #: Bytes a worker may allocate beyond what it starts with; 0: no limit.
    memory: int = 0
    #: Process id of the front; 0 if there is none to look at.
    front: int = 0
    settings: ModelSettings = ModelSettings()


class Worker:
    """Serves one connection to the front until it closes."""

    def __init__(self, connection: socket.socket, plugins: Plugins, settings: ModelSettings, front: int = 0) -> None:
        self._connection = connection
        self._plugins = plugins
        self._settings = settings
        self._frames = Frames(to_worker_decoder)
        #: What is received goes through it: a large buffer for each message would be mapped and unmapped each time.
        self._received = memoryview(bytearray(_RECEIVE))
        self._jobs: deque[Load | Unload | Run] = deque()
        self._models: dict[int, Model] = {}
        #: Memory each takes, a faster predictor left out.
        self._bytes: dict[int, int] = {}
        self._chores = Chores(Busy(front))
        self._trials = Trials(self._chores, lambda number: self._send(Tries(number)), self._tell)
        self._outlet = Outlet(self._send, lambda wait: self._receive(wait=wait))
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._meter = Meter()
        #: Bytes of the model last measured for each of its artifact, by plugin.
        self._ratios: dict[str, float] = {}
        #: Private memory at the start, and its growth as last reported.
        self._private = private()
        self._reported = 0
        #: Memory of unloaded models that is not free yet.
        self._garbage = 0

    def serve(self) -> None:
        """Do jobs in their order until the front closes the connection, and chores in between."""
        try:
            while self._wait():
                while self._jobs:
                    job = self._jobs.popleft()
                    start = time.monotonic()
                    self._trials.pause()
                    self._send(self._do(job))
                    self._follow_up(job)
                    # A cancellation of the jobs behind one that took long may have come meanwhile.
                    if self._jobs and time.monotonic() - start > LONG and not self._receive(wait=False):
                        return
        except (BrokenPipeError, ConnectionResetError):
            return  # the front is gone
        except OSError:
            if self._connection.fileno() >= 0:
                raise
            logger.warning("a process that a model forked came back from its code and is ended; it should os._exit()")
            os._exit(1)

    def _wait(self) -> bool:
        """Wait for the front, and do chores until it says something; False once it is gone."""
        self._chores.work(lambda seconds: self._poll.poll(seconds * 1000))
        return self._receive(wait=True)

    def _send(self, message: ToFront) -> None:
        self._connection.sendall(frame([message]))

    def _follow_up(self, job: Load | Unload | Run) -> None:
        """Take on the chores that a job leads to."""
        chores = self._chores
        chores.worked()
        chores.add(None, self._report_memory, REPORT)
        model = self._models.get(job.model)
        if isinstance(job, Run) and model is not None:
            model.asked += len(job.invocations)
            self._trials.asked(job.model, model)
        elif isinstance(job, Load) and model is not None:
            chores.add(_settle, _settle)
            self._trials.loaded(job.model, model, allowed=job.trial)

    def _tell(self, number: int, predictor: Predictor) -> None:
        """Let the front know which predictor serves a model now."""
        count = self._bytes[number] + (predictor.bytes or 0)
        self._send(Serves(number, sendable(self._models[number].context.target_model), predictor, count))

    def _report_memory(self) -> Iterator[None]:
        grown = max(0, private() - self._private)
        if abs(grown - self._reported) > max(1 << 20, self._reported // 20):
            self._reported = grown
            self._send(Memory(grown))
        return iter(())  # no second step, before which the next job could not ask for another look

    def _receive(self, *, wait: bool) -> bool:
        try:
            count = self._connection.recv_into(self._received, 0, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not count:
            return False
        for message in self._frames.feed(self._received[:count]):
            if isinstance(message, Cancel):
                dropped = [job.job for job in self._jobs if job.job in message.jobs]
                self._jobs = deque(job for job in self._jobs if job.job not in dropped)
                self._connection.sendall(frame([Dropped(dropped)]))
            elif isinstance(message, (Pull, Stop)):
                self._outlet.take(message)
            else:
                self._jobs.append(message)
        return True

    def _do(self, job: Load | Unload | Run) -> ToFront:
        try:
            if isinstance(job, Run):
                model = self._models.get(job.model)
                if model is None:
                    raise ModelNotFound("the model is not loaded in this worker")
                start = time.perf_counter()
                results = model.stream(job.invocations)
                for index, result in enumerate(results):
                    if isinstance(result, Streaming):
                        results[index] = self._outlet.send(job.job, index, result)
                seconds = time.perf_counter() - start - self._outlet.waited()
                return Answered(job.job, [outcome(result) for result in results], seconds)
            if isinstance(job, Load):
                return self._load(job)
            if job.model in self._models:
                self._unload(job.model)
            return Unloaded(job.job)
        except ManyModelsError as error:
            return Failed(job.job, Failure.of(error))

    def _load(self, job: Load) -> Loaded:
        before = self._meter.begin()
        pages = private() if before is None else 0
        start = time.perf_counter()
        artifact = Artifact(Path(job.path), job.name)
        try:
            model = Model(artifact, job.binding, self._plugins, self._settings)
            size = artifact.size
        except OSError as error:
            raise LoadFailed(f"{job.name!r} cannot be read: {error}") from error
        except MemoryError as error:
            raise OutOfMemory(f"memory ran out while loading {job.name!r}") from error
        seconds = time.perf_counter() - start
        self._models[job.model] = model
        grown = self._meter.grown(before)
        if grown is None:
            count = max(int(size * self._ratios.get(job.binding.plugin, 1.0)), private() - pages)
        else:
            count = max(grown, size)
            if size >= RATIO:
                self._ratios[job.binding.plugin] = count / size
        self._bytes[job.model] = count
        measured = grown is not None and grown >= size
        notes = [sendable(note) for note in model.notes]
        return Loaded(job.job, count, measured, seconds, notes, model.golden, model.schema)

    def _unload(self, number: int) -> None:
        self._chores.drop(number)
        before, expected = self._meter.begin(), self._bytes.pop(number)
        model = self._models.pop(number)
        try:
            model.unload()
        except Exception:
            # The model is gone from here either way; its plugin's author reads why in the log.
            logger.exception("unloading %r failed", model.context.target_model)
        del model
        if (grown := self._meter.grown(before)) is not None:
            self._garbage += max(0, expected + min(0, grown))
        if self._garbage > GARBAGE:
            self._garbage = 0
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        if _trim is not None:  # glibc keeps freed memory for itself once it has seen large blocks come and go
            _trim(0)


def _settle() -> Iterator[None]:
    """Collect what is garbage, and leave what is not out of later collections.

    These would otherwise look at every object of every model, for a third of a second where three hundred models
    of a hundred trees are loaded.
    """
    gc.collect()
    gc.freeze()
    return iter(())


def set_up_process(front: int) -> None:
    """Make this process end with its parent, and leave stopping to it.

    :param front: process id of the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != front:  # it died before the line above
            os._exit(1)


def run(connection: socket.socket, log: int, plugins: Plugins, config: WorkerConfig) -> None:
    """Turn this process into a worker and serve; returns when the front closes the connection.

    :param log: file descriptor that standard output and error are sent to.
    """
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WorkerFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)
    if sys.platform == "linux":
        # If memory is short, the kernel is to end a worker, whose models come back, not the front.
        Path("/proc/self/oom_score_adj").write_text("500")
    if config.memory and sys.platform == "linux":
        limit_memory(config.memory)
    # Of what a model forks: the front would take what that says for the worker's.
    os.register_at_fork(after_in_child=connection.close)
    Worker(connection, plugins, config.settings, config.front).serve()


def limit_memory(allowance: int) -> None:
    """Let allocations beyond the allowance fail with MemoryError, instead of the kernel ending processes."""
    fields = Path("/proc/self/statm").read_text().split()
    data = int(fields[5]) * resource.getpagesize()
    limit = data + allowance
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(argv: list[str]) -> None:
    """Run a spawned worker: ``python -m manymodels.server.worker CONNECTION LOG CONFIG PARENT``."""
    connection, log, config, parent = argv
    set_up_process(int(parent))
    settings = msgspec.json.decode(config, type=WorkerConfig)
    plugins = Plugins.installed(settings.blocked)
    with socket.socket(fileno=int(connection)) as link:
        run(link, int(log), plugins, settings)


if __name__ == "__main__":
    main(sys.argv[1:])

"""A model process that is a fork of the zygote: speaks multi-model-server's protocol to its Java side.

Stands in for ``mms.model_service_worker``, whose process forks another one for each connection and prints
metrics with each prediction. The frames, the context and the call of the handler are multi-model-server's.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from mms.arg_parser import ArgParser
from mms.protocol.otf_message_handler import create_load_model_response, retrieve_msg
from mms.service import Service

from manymodels.errors import ManyModelsError
from manymodels.log import WorkerFormatter
from manymodels.server.chores import Chores
from manymodels.server.trials import Trials
from manymodels.trial import Predictor

from . import service
from .messages import Description, Serves, Tries, encode

#: Seconds between looks at a FIFO.
_POLL = 0.001
_FAILED = 500
_OUT_OF_MEMORY = 507
#: What the only model of a process is to its chores.
_MODEL = 0


class Worker:
    """Serves one connection of the Java side, and with it one model."""

    def __init__(self, connection: socket.socket, folder: str, name: str, description: Description) -> None:
        """Serve a model that multi-model-server knows by `name`."""
        self._connection = connection
        #: Where the Java side looks for the FIFOs it would read our output from.
        self._folder = folder
        self._name = name
        self._description = description
        self._service: Service | None = None
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._chores = Chores()
        self._trials = Trials(self._chores, self._begins, self._serves)

    def serve(self) -> None:
        """Do what the Java side says until it closes the connection, and chores in between."""
        while True:
            self._chores.work(lambda seconds: self._poll.poll(seconds * 1000))
            try:
                command, message = retrieve_msg(self._connection)
            except (ValueError, ConnectionResetError):  # how the end of the connection is told
                service.transformer.close()
                return
            if command == b"L":
                self._load(message)
            else:
                assert self._service is not None
                self._connection.sendall(self._service.predict(message))
            self._chores.worked()
            if (model := service.transformer.bound) is not None:
                self._trials.asked(_MODEL, model)

    def _begins(self, _: int) -> None:
        self._tell(Tries(self._name))

    def _serves(self, _: int, predictor: Predictor) -> None:
        self._tell(Serves(self._name, predictor))

    def _tell(self, message: Tries | Serves) -> None:
        """Tell the front what nobody asked for; multi-model-server's protocol has no place for it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(encode(message), self._description.news)

    def _load(self, message: dict[str, bytes]) -> None:
        name, path = (message[key].decode() for key in ("modelName", "modelPath"))
        loaded = Service(name, path, None, service.handle, None, 1)
        code, text = 200, f"loaded model {name}. [PID]:{os.getpid()}"
        try:
            service.handle(None, loaded.context)
            self._service = loaded
        except MemoryError as error:
            code, text = _OUT_OF_MEMORY, str(error)
        except ManyModelsError as error:
            code, text = _FAILED, str(error)
        # Made no sooner, so that a model which ends its process while it is loaded leaves none behind.
        fifos = [Path(self._folder, f"{message['ioFileDescriptor'].decode()}-{end}") for end in ("stdout", "stderr")]
        for fifo in fifos:
            os.mkfifo(fifo)
        self._connection.sendall(create_load_model_response(code, text))
        for fifo in fifos:
            fd = self._open(fifo)
            fifo.unlink()
            if fd is not None:
                os.close(fd)
        if (model := service.transformer.bound) is not None:
            self._trials.loaded(_MODEL, model, allowed=self._description.trial)

    def _open(self, fifo: Path) -> int | None:
        """Open a FIFO once the Java side has; None if it has closed it again, as after a failed load."""
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody has it open
                    raise
            # Something to read, be it the end: then the Java side is past opening it.
            if select.select([self._connection], [], [], _POLL)[0]:
                return None


def run(argv: Sequence[str]) -> None:
    """Turn this process into the one multi-model-server asked for, and serve.

    Standard output and error are the launcher's, which the Java side reads, and then the front's: through Java would
    pass some ten megabytes a second.
    """
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WorkerFormatter())
    handler.addFilter(lambda record: record.module != retrieve_msg.__module__.rpartition(".")[2])  # each end of a model
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)
    # If memory is short, the kernel is to end a model, which comes back, not the front.
    Path("/proc/self/oom_score_adj").write_text("500")
    arguments = ArgParser.model_service_worker_args().parse_args(argv)
    description = Description.read(Path(arguments.model_path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments.sock_name)
        listener.listen(1)
        # Both are looked for by the Java side.
        print(f"[PID] {os.getpid()}\nMMS worker started.", flush=True)  # noqa: T201
        connection, _ = listener.accept()
    output = os.open(description.output, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    # One that is gone cannot be connected to again; it is loaded anew, under another name.
    Path(arguments.sock_name).unlink()
    with connection:
        Worker(connection, arguments.tmp_dir, arguments.model_name, description).serve()

"""Send answers that are made part by part, as fast as the front has them read."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import ManyModelsError
from ..invocation import Answer, Streaming
from .messages import WINDOW, Begins, Part, Pull, Stop, ToFront


class Outlet:
    """The worker's end of streams, of which there is one at a time."""

    def __init__(self, send: Callable[[ToFront], None], receive: Callable[[bool], bool]) -> None:
        """Send nothing yet.

        :param receive: reads what the front said, after waiting for it if so told; False once the front is gone.
        """
        self._send = send
        self._receive = receive
        #: Job and index of the answer being sent.
        self._current = (0, 0)
        #: Bytes that may be sent.
        self._room = 0
        self._stopped = False
        self._waited = 0.0

    def waited(self) -> float:
        """Return the seconds spent waiting for readers since this was last asked."""
        seconds, self._waited = self._waited, 0.0
        return seconds

    def take(self, message: Pull | Stop) -> None:
        """Act on what the front says of a stream."""
        if (message.job, message.index) != self._current:
            return  # it has ended meanwhile
        if isinstance(message, Pull):
            self._room += message.bytes
        else:
            self._stopped = True

    def send(self, job: int, index: int, answer: Streaming) -> Answer | ManyModelsError:
        """Send an answer to its end; return what is sent last: an error, if it broke off.

        :param index: of the invocation in its job.
        :raises ConnectionError: if the front is gone.
        """
        self._current = (job, index)
        self._room = WINDOW
        self._stopped = False
        self._send(
            Begins(job, index, Answer(answer.body, answer.content_type, answer.status, answer.headers, answer.timings))
        )
        try:
            for part in answer.rest:
                self._wait()
                if self._stopped:
                    break
                self._send(Part(job, index, part))
                self._room -= len(part)
        except ManyModelsError as error:
            return error
        finally:
            self._current = (0, 0)
            answer.rest.close()
        return Answer(b"", "", timings=answer.timings)

    def _wait(self) -> None:
        """Read what the front said meanwhile, and wait until the reader has room."""
        start = time.perf_counter()
        wait = False
        while True:
            if not self._receive(wait):
                raise ConnectionResetError("the front is gone")
            wait = self._room <= 0 and not self._stopped
            if not wait:
                break
        self._waited += time.perf_counter() - start

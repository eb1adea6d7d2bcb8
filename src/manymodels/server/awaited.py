"""An invocation that waits for its answer, as every model server keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvocationTimeout, ManyModelsError
from ..invocation import Answer, Invocation
from .messages import Failure
from .streams import Stream, discard


@dataclass(eq=False, slots=True)
class Awaited:
    """One invocation that somebody waits for."""

    invocation: Invocation
    future: asyncio.Future[Answer]
    #: Instants of the monotonic clock: when it was asked for, when its answer is given up, and when it began.
    asked: float
    deadline: float
    began: float = field(default=0.0, kw_only=True)
    #: What is still to come of its answer, where that is streamed.
    stream: Stream | None = field(default=None, kw_only=True)

    @property
    def over(self) -> bool:
        """Whether nobody waits for its answer any more, nor for the rest of it."""
        return self.future.done() if self.stream is None else self.stream.ended

    def settle(self, outcome: Answer | Failure) -> None:
        """Hand over what the model answered, if it is still waited for."""
        if isinstance(outcome, Failure):
            self.fail(outcome.error())
        elif self.stream is not None:
            self.stream.finish()
        elif not self.future.done():
            outcome.timings["queue"] = self.began - self.asked
            self.future.set_result(outcome)

    def fail(self, error: ManyModelsError) -> None:
        """Answer with an error, which may be that of others too, if it is still waited for."""
        if self.stream is not None:
            self.stream.finish(error)
        elif not self.future.done():
            self.future.set_exception(error.again())

    def overdue(self, name: str, state: str) -> InvocationTimeout:
        """Return the error of one whose deadline has passed.

        :param name: of its model.
        :param state: what the invocation did when that happened.
        """
        seconds = round(self.deadline - self.asked, 3)
        return InvocationTimeout(f"{name!r} did not answer within {seconds:g} s: the invocation {state}")


@dataclass(eq=False, slots=True)
class Asked:
    """One invocation of a model that is not loaded yet, which a model server may send along with the load.

    Who asked waits for the load, and then for `answer`, or invokes the model if there is none; or drops it.
    """

    invocation: Invocation
    #: When its answer is given up, by the monotonic clock.
    limit: float
    #: Waits for the answer; None: it was not sent.
    answer: Callable[[], Coroutine[Any, Any, Answer]] | None = None
    #: Whether nobody waits for it any more.
    dropped: bool = False
    _future: asyncio.Future[Answer] | None = None

    def sent(self, awaited: Awaited, answer: Callable[[], Coroutine[Any, Any, Answer]]) -> None:
        """Take note that it is sent along."""
        self._future = awaited.future
        self.answer = answer

    def drop(self) -> None:
        """Take note that nobody waits for it any more."""
        self.dropped = True
        future = self._future
        if future is None or future.cancel() or future.cancelled():
            return
        if future.exception() is None:
            discard(future.result())

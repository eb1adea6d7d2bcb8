"""What models, invocations and orders to workers are to the front."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ManyModelsError, ModelNotFound
from ..invocation import Answer
from .awaited import Awaited
from .held import Held
from .messages import Begins, Failure, Load, Part, Pull, Run, Stop, ToWorker, Unload
from .streams import Stream, Streamed

if TYPE_CHECKING:
    from .slot import Slot

#: Invocations of one model in a frame while other models are asked too: the front's time for them is what
#: those wait for.
SHARE = 8
#: Seconds of the front for each invocation, about.
FRONT_COST = 0.0001
#: Seconds that invocations which cannot be joined may hold a worker together, while other models are asked too.
SLICE = 0.005
#: Seconds a worker has to end a stream that is over its deadline.
CLOSING = 2.0

_numbers = itertools.count(1)


@dataclass(eq=False, slots=True)
class Resident(Held):
    """A model in worker processes; `bytes` are those of one copy."""

    #: Shared slots by preference; the first is its home.
    ranking: list[Slot] = field(default_factory=list)
    #: Slots beside its home that hold it too.
    copies: list[Slot] = field(default_factory=list)
    #: The slot it has for itself, once it has shown that it is no good neighbour.
    own: Slot | None = None
    #: Whether a faster predictor may be tried.
    trial: bool = True
    #: Invocations answered since somebody looked.
    answered: int = 0
    #: Most invocations in one frame while other models are asked too.
    share: int = SHARE
    #: The slot of each of its sessions, by id, the oldest first.
    sessions: dict[str, Slot] = field(default_factory=dict)
    #: Whether an answer of it was streamed: then invocations are sent one by one.
    streams: bool = False
    #: What workers know it by: a name may come back for another model before the worker let go of the first.
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def home(self) -> Slot:
        """The slot it is to be held by."""
        return self.ranking[0]

    def learn(self, outcomes: Sequence[Answer | Failure], elapsed: float) -> None:
        """Set how many invocations a frame may have, after a group that took a worker `elapsed` seconds."""
        self.answered += len(outcomes)
        seconds = next(
            (outcome.timings.get("predict", 0.0) for outcome in outcomes if isinstance(outcome, Answer)), 0.0
        )
        # Joined, they take the time of one: then as many as the front takes in meanwhile.
        self.share = max(SHARE, int(seconds / FRONT_COST))
        if len(outcomes) > 1 and 2 * seconds < elapsed and seconds * self.share > SLICE:
            self.share = max(1, int(SLICE / seconds))  # each ran alone


@dataclass(eq=False, slots=True)
class Call(Awaited):
    """An invocation of a model in worker processes; its deadline is the client's, if that is sooner."""

    resident: Resident
    #: When the server gives it up at the latest, by the monotonic clock.
    limit: float
    #: Where it was queued.
    slot: Slot | None = None
    #: Whether it belongs there, and to no other worker.
    bound: bool = False

    def expire(self, state: str) -> None:
        """Answer that the deadline has passed."""
        error = self.overdue(self.resident.name, state)
        if self.stream is None:
            self.fail(error)
        elif self.stream.close(error):
            self.limit += CLOSING


@dataclass(eq=False, slots=True)
class Job:
    """Something a worker was told to do."""

    resident: Resident
    #: The invocations of a `Run`; empty for a load or unload, and when they were moved elsewhere.
    calls: list[Call] = field(default_factory=list)
    kind: type[Run] | type[Load] | type[Unload] = Run
    #: Bytes that an unload frees.
    bytes: int = 0
    #: Whether it was given up, and the worker asked to leave it out.
    moved: bool = False
    #: Done when a load or unload that somebody waits for is.
    done: asyncio.Future[None] | None = None
    number: int = field(default_factory=lambda: next(_numbers))

    def message(self) -> ToWorker:
        """Return what the worker is sent."""
        if self.kind is Run:
            return Run(self.number, self.resident.number, [call.invocation for call in self.calls])
        if self.kind is Load:
            resident = self.resident
            return Load(self.number, resident.number, resident.name, resident.path, resident.binding, resident.trial)
        return Unload(self.number, self.resident.number)

    def stream(self, message: Begins | Part, send: Callable[[ToWorker], None]) -> None:
        """Pass on a part of a streamed answer.

        :param send: says something to the worker that sent it.
        :raises LookupError: if it is more than was asked for.
        """
        number, index = self.number, message.index
        call = self.calls[index] if index < len(self.calls) else None
        if isinstance(message, Part):
            if call is not None and call.stream is not None:
                call.stream.feed(message.body)
            return
        self.resident.streams = True
        if call is None or call.future.done():  # it was moved elsewhere, or nobody waits for it
            send(Stop(number, index))
            return
        head = message.answer
        stream = Stream(lambda count: send(Pull(number, index, count)), lambda: send(Stop(number, index)))
        call.settle(Streamed(head.body, head.content_type, head.status, head.headers, head.timings, stream=stream))
        call.stream = stream

    def finish(self) -> None:
        """Tell who waits that it is done."""
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: ManyModelsError) -> None:
        """Answer all who wait for it with an error."""
        for call in self.calls:
            call.fail(error)
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)


def unloaded(calls: Iterable[Call]) -> None:
    """Answer invocations of a model that was unloaded meanwhile."""
    for call in calls:
        call.fail(ModelNotFound(f"{call.resident.name!r} was unloaded"))

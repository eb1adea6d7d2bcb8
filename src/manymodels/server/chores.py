"""Work of a worker that nobody waits for, in short steps between the jobs."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable, Hashable, Iterator

logger = logging.getLogger(__name__)

Chore = Callable[[], Iterator[None]]

#: Under load, chores rest after a step for this many times as long as it took: they slow requests by at
#: most a quarter, and the hottest model has its chores done too.
REST = 3.0
#: Seconds after a job in which chores wait, since a client that has its answer often asks again at once; and
#: seconds for which each lets itself be put off so before it begins.
QUIET = 0.005
PATIENCE = 0.05
#: Seconds for which a chore is hastened; seconds without a job before the others begin, and how long these rest while
#: the worker has jobs or the server is busy: they would take processors, and what these share, from the hot models.
CALM = 1.0
LONG_REST = 50.0


class _Queue:
    """Chores whose time has come, in order; the first may have begun."""

    def __init__(self, rest: float) -> None:
        """Begin with none.

        :param rest: how many times as long as a step took they rest after it, under load.
        """
        self.chores: dict[Hashable, Chore | Iterator[None]] = {}
        #: Since when a step waits.
        self.waiting = 0.0
        #: When the last step was done.
        self.ended = 0.0
        self._rest = rest
        self._rest_until = 0.0

    def push(self, key: Hashable, chore: Chore | Iterator[None], now: float) -> None:
        """Take on a chore."""
        if not self.chores:
            self.waiting = now
        self.chores[key] = chore

    def pause(self, now: float, worked: float) -> float:
        """Return for how many seconds the next step is put off under load.

        :param worked: when the last job was done.
        """
        quiet = min(worked + QUIET, self.waiting + PATIENCE)
        return max(0.0, self._rest_until - now, quiet - now)

    def step(self, clock: Callable[[], float]) -> Hashable | None:
        """Do one step of the first, and return its key if that was its last."""
        key, chore = next(iter(self.chores.items()))
        start = clock()
        try:
            if callable(chore):
                chore = self.chores[key] = chore()
            next(chore)
        except StopIteration:
            self.chores.pop(key, None)
        except Exception:
            logger.exception("a chore failed")
            self.chores.pop(key, None)
        now = self.ended = clock()
        self._rest_until = now + self._rest * (now - start)
        if key in self.chores:
            return None
        self.waiting = now  # the next is put off anew; the steps of one that has begun are not
        return key


class Chores:
    """Does chores one after the other, a step each time it is asked to."""

    def __init__(self, busy: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none.

        :param busy: says whether the server is, be it with what other workers do.
        :param clock: tells the time, in seconds.
        """
        self._server_busy = busy
        self._clock = clock
        self._due = _Queue(REST)
        #: What nobody has hastened for a while, and when the others were.
        self._unhurried = _Queue(LONG_REST)
        self._hastened: dict[Hashable, float] = {}
        #: What is not due yet, and when it will be; what was dropped is left in the heap until then.
        self._later: dict[Hashable, Chore] = {}
        self._times: list[tuple[float, int, Hashable]] = []
        self._numbers = itertools.count()
        self._worked = 0.0

    def add(self, key: Hashable, chore: Chore, delay: float = 0.0) -> None:
        """Take on a chore, unless one of that key waits already.

        :param chore: returns an iterator whose every ``next`` is a step, the first with the call itself. What has
            one step returns an empty iterator: with another to come, it could not be taken on anew in between.
        :param delay: seconds before it may begin.
        """
        if key not in self._due.chores and key not in self._later:
            self._later[key] = chore
            heapq.heappush(self._times, (self._clock() + delay, next(self._numbers), key))

    def add_unhurried(self, key: Hashable, chore: Chore) -> None:
        """Take on a chore that, unless hastened, waits until the worker is idle, and rests while the server is not.

        Between its steps those of other chores may be done.
        """
        self._unhurried.push(key, chore, self._clock())

    def hasten(self, key: Hashable) -> None:
        """Let an unhurried chore go on as others do, or begin as they do within the next `CALM` seconds."""
        now = self._clock()
        if (chore := self._unhurried.chores.pop(key, None)) is not None:
            self._due.push(key, chore, now)
        if key in self._due.chores:
            self._hastened[key] = now

    def _calm_down(self, now: float) -> None:
        """Let what was hastened too long ago, and has not begun, be unhurried again."""
        due = self._due.chores
        while due and callable(next(iter(due.values()))):
            key = next(iter(due))
            if self._hastened.get(key, now) >= now - CALM:
                break
            del self._hastened[key]
            self._unhurried.push(key, due.pop(key), now)

    def drop(self, key: Hashable) -> None:
        """Forget a chore."""
        for chores in (self._later, self._due.chores, self._unhurried.chores, self._hastened):
            chores.pop(key, None)

    def worked(self) -> None:
        """Take note that a job was done: the worker is not idle."""
        self._worked = self._clock()

    def wait(self) -> float | None:
        """Return the seconds until there is a step to do; None if there are no chores."""
        now = self._clock()
        while self._times and (self._times[0][0] <= now or self._times[0][2] not in self._later):
            key = heapq.heappop(self._times)[2]
            if (chore := self._later.pop(key, None)) is not None:
                self._due.push(key, chore, now)
        self._calm_down(now)
        if self._due.chores:
            return 0.0 if self._worked < self._due.ended else self._due.pause(now, self._worked)
        waits = [self._times[0][0] - now] if self._times else []
        if self._unhurried.chores:
            waits.append(self._wait_unhurried(now))
        return min(waits, default=None)

    def _wait_unhurried(self, now: float) -> float:
        calm = self._worked + CALM - now
        if calm <= 0.0 and not self._server_busy():
            return 0.0
        pause = self._unhurried.pause(now, self._worked)
        if callable(next(iter(self._unhurried.chores.values()))):
            pause = max(pause, calm)
        return min(pause, CALM)  # then it is looked again whether it is busy

    def work(self, interrupted: Callable[[float], object]) -> None:
        """Do chores until there is something else to do, or none is left.

        :param interrupted: waits for so many seconds at most, and says whether something came meanwhile.
        """
        while (seconds := self.wait()) is not None:
            if interrupted(seconds):
                return
            if not seconds:
                self.step()

    def step(self) -> None:
        """Do one step of the first chore whose time has come."""
        if not self._due.chores:
            self._unhurried.step(self._clock)
        elif (done := self._due.step(self._clock)) is not None:
            self._hastened.pop(done, None)

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


class Chores:
    """Does chores one after the other, a step each time it is asked to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Chores whose time has come, in order; the first may have begun.
        self._due: dict[Hashable, Chore | Iterator[None]] = {}
        #: The others, and their times; what is no longer among the others is left in the heap until then.
        self._later: dict[Hashable, Chore] = {}
        self._times: list[tuple[float, int, Hashable, float]] = []
        self._numbers = itertools.count()
        self._rest_until = 0.0
        self._busy = False
        self._worked = 0.0
        #: Since when a step waits.
        self._waiting = 0.0

    def add(self, key: Hashable, chore: Chore, delay: float = 0.0, quiet: float = 0.0) -> None:
        """Take on a chore, unless one of that key waits already.

        :param chore: returns an iterator whose every ``next`` is a step, the first with the call itself. What has
            one step returns an empty iterator: with another to come, it could not be taken on anew in between.
        :param delay: seconds before it may begin.
        :param quiet: seconds since the last job before it may begin, unless it is hastened.
        """
        if key not in self._due and key not in self._later:
            self._later[key] = chore
            heapq.heappush(self._times, (self._clock() + delay, next(self._numbers), key, quiet))

    def hasten(self, key: Hashable) -> None:
        """Let a chore begin now."""
        if (chore := self._later.pop(key, None)) is not None:
            if not self._due:
                self._waiting = self._clock()
            self._due[key] = chore

    def drop(self, key: Hashable) -> None:
        """Forget a chore."""
        self._later.pop(key, None)
        self._due.pop(key, None)

    def worked(self) -> None:
        """Take note that a job was done: the worker is not idle."""
        self._busy = True
        self._worked = self._clock()

    def wait(self) -> float | None:
        """Return the seconds until there is a step to do; None if there are no chores."""
        now = self._clock()
        while self._times and (self._times[0][0] <= now or self._times[0][2] not in self._later):
            due, number, key, quiet = heapq.heappop(self._times)
            if key in self._later and now < (calm := self._worked + quiet):
                heapq.heappush(self._times, (calm, number, key, quiet))
            elif quiet and self._due:  # one at a time: once that is done it may be calm no more
                heapq.heappush(self._times, (due, number, key, quiet))
                break
            else:
                self.hasten(key)
        if not self._due:
            return self._times[0][0] - now if self._times else None
        if not self._busy:
            return 0.0
        pause = min(self._worked + QUIET, self._waiting + PATIENCE)
        return max(0.0, self._rest_until - now, pause - now)

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
        """Do one step of the first chore that is due."""
        key, chore = next(iter(self._due.items()))
        start = self._clock()
        self._busy = False
        try:
            if callable(chore):
                chore = self._due[key] = chore()
            next(chore)
        except StopIteration:
            self._due.pop(key, None)
        except Exception:
            logger.exception("a chore failed")
            self._due.pop(key, None)
        now = self._clock()
        if key not in self._due:  # the next is put off anew; the steps of one that has begun are not
            self._waiting = now
        self._rest_until = now + REST * (now - start)

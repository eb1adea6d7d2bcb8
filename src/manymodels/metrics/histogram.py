"""Counts of values by size: plain integers, so that noting one costs well under a microsecond."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence

#: Upper bounds in seconds, from a prediction's time to the longest that SageMaker waits for one.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: Upper bounds of numbers of invocations.
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """How many values were how large."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        #: The largest value of each bucket; the last bucket has none.
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Take note of a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Histogram) -> None:
        """Take note of all values of another with the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def since(self, earlier: Histogram | None) -> Histogram:
        """Return what came after an earlier `copy`; all, where there is none."""
        new = self.copy()
        if earlier is not None:
            new.counts = [now - then for now, then in zip(self.counts, earlier.counts, strict=True)]
            new.sum -= earlier.sum
        return new

    def copy(self) -> Histogram:
        """Return the counts as they are now."""
        copy = Histogram(self.bounds)
        copy.add(self)
        return copy

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, the last of which is infinite, and how many values are not above it."""
        return zip((*self.bounds, float("inf")), itertools.accumulate(self.counts), strict=True)

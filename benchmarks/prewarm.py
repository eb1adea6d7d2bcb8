"""Whether it pays to load what was asked for next the last time: replays of all kinds of synthetic traces.

A model's successor is the one that was asked for right after it, twice in a row; where it is not loaded, it is loaded
as soon as the model is asked for. Prints, by kind of trace, the loads that a request waited for, as a ratio to those
without this, and all loads, those in advance included.

    python -m benchmarks.prewarm --requests 200000
"""

from __future__ import annotations

import argparse

from benchmarks.traces import KINDS, generate
from manymodels.endpoint.eviction import POLICIES, Candidate, Policy, choose
from manymodels.endpoint.trace import Trace


class Memory:
    """Models that are loaded, and how many were."""

    def __init__(self, trace: Trace, policy: Policy, room: int) -> None:
        """Begin with none, and `room` bytes."""
        self.loads = 0
        self._trace = trace
        self._policy = policy
        self._size = self._room = room
        self._models: dict[int, Candidate] = {}

    def use(self, number: int) -> bool:
        """Use a model; return whether it is loaded."""
        model = self._models.get(number)
        if model is not None:
            self._policy.use(model)
        return model is not None

    def load(self, number: int) -> None:
        """Load a model that is not, if there is or can be made room for it."""
        size = self._trace.sizes[number]
        if number in self._models or size > self._size:
            return
        if size > self._room:
            for victim in choose(self._policy, size - self._room):
                self._policy.remove(victim)
                del self._models[int(victim.name)]
                self._room += victim.size
        self._room -= size
        self.loads += 1
        model = self._models[number] = Candidate(str(number), size, self._trace.loads[number])
        self._policy.add(model)


def waits(trace: Trace, room: int, *, ahead: bool) -> tuple[int, int]:
    """Return how many loads a request waited for, and how many there were.

    :param ahead: whether the successor of each model is loaded when that is asked for.
    """
    memory = Memory(trace, POLICIES["lhd"](), room)
    successors: dict[int, tuple[int, bool]] = {}
    waited = 0
    last = -1
    for number in trace.models:
        if not memory.use(number):
            waited += 1
            memory.load(number)
        before = successors.get(last)
        successors[last] = (number, before is not None and before[0] == number)
        last = number
        following, sure = successors.get(number, (number, False))
        if ahead and sure:
            memory.load(following)
    return waited, memory.loads


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| memory for a quarter | waited for | all loads |\n|---|--:|--:|")
    for kind in KINDS:
        trace = generate(kind, arguments.models, arguments.requests, arguments.seed)
        room = sum(trace.sizes) // 4
        without, loads = waits(trace, room, ahead=False)
        ahead, more = waits(trace, room, ahead=True)
        print(f"| {kind} | {ahead / without:.2f} | {more / loads:.2f} |", flush=True)


if __name__ == "__main__":
    main()

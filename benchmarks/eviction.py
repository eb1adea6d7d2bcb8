"""Which model to evict: the policies of the platform beside others, on all kinds of synthetic traces.

Prints a table for each share of memory: the seconds spent on loading models again, as a ratio to least recently
used, by kind of trace and policy, and the geometric mean over the kinds.

    python -m benchmarks.eviction --requests 200000
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator

from benchmarks.traces import KINDS, generate
from manymodels.endpoint.eviction import POLICIES, Candidate, Policy
from manymodels.endpoint.replay import replay


class Scored:
    """Keeps models by a score that only grows; what grew is noticed at the head of the line."""

    def __init__(self) -> None:
        self._line: list[tuple[float, int, Candidate]] = []
        self._left: set[Candidate] = set()
        self._number = 0
        self.resident = 0

    def score(self, model: Candidate) -> None:
        """Set `heat` after a use."""
        raise NotImplementedError

    def add(self, model: Candidate) -> None:
        """Take in a model."""
        self.resident += 1
        self.score(model)
        self._push(model)

    def use(self, model: Candidate) -> None:
        """Take note of a use."""
        self.score(model)

    def remove(self, model: Candidate) -> None:
        """Forget a model."""
        self.resident -= 1
        self._left.add(model)

    def _push(self, model: Candidate) -> None:
        self._number += 1
        heapq.heappush(self._line, (model.heat, self._number, model))

    def victims(self) -> Iterator[Candidate]:
        """Yield models, the lowest score first."""
        shown: list[Candidate] = []
        try:
            while self._line:
                score, _, model = heapq.heappop(self._line)
                if model in self._left:
                    self._left.discard(model)
                elif model.heat > score:
                    self._push(model)
                else:
                    shown.append(model)
                    yield model
        finally:
            for model in shown:
                self._push(model)


class GreedyDualSizeFrequency(Scored):
    """GDSF (Cherkasova 1998): uses times cost by size, above what the last victim had."""

    def __init__(self) -> None:
        super().__init__()
        self._base = 0.0

    def score(self, model: Candidate) -> None:
        """Count a use."""
        model.used += 1
        model.heat = self._base + model.used * model.cost / model.size

    def remove(self, model: Candidate) -> None:
        """Raise the base."""
        super().remove(model)
        self._base = max(self._base, model.heat)


class Decayed(Scored):
    """LRFU (Lee et al. 2001) by size and cost, with the past of models that left: close to W-TinyLFU's sketch."""

    def __init__(self, half_life: float) -> None:
        super().__init__()
        self._half_life = half_life
        self._aged = 0.0
        self._past: OrderedDict[str, float] = OrderedDict()

    def score(self, model: Candidate) -> None:
        """Count a use."""
        self._aged += 1 / (self._half_life * max(self.resident, 32))
        weight = math.log2(model.cost / model.size)
        old = model.heat - weight - self._aged if model.used else -60.0
        model.heat = self._aged + weight + math.log2(1 + math.pow(2, max(old, -60.0)))
        model.used += 1

    def add(self, model: Candidate) -> None:
        """Remember its past."""
        if (past := self._past.pop(model.name, None)) is not None:
            model.heat = past
            model.used = 1
        super().add(model)

    def remove(self, model: Candidate) -> None:
        """Keep its past for a while."""
        super().remove(model)
        self._past[model.name] = model.heat
        if len(self._past) > max(1000, 4 * self.resident):
            self._past.popitem(last=False)


class Clock:
    """Second chance: first in, first out, unless used meanwhile; SIEVE and S3-FIFO's main queue are its kin."""

    def __init__(self) -> None:
        self._queue: OrderedDict[Candidate, None] = OrderedDict()

    def add(self, model: Candidate) -> None:
        """Take in a model."""
        self._queue[model] = None

    def use(self, model: Candidate) -> None:
        """Mark it."""
        model.used = min(model.used + 1, 3)

    def remove(self, model: Candidate) -> None:
        """Forget a model."""
        self._queue.pop(model, None)

    def victims(self) -> Iterator[Candidate]:
        """Yield models."""
        while any(model.used for model in self._queue):
            model = next(iter(self._queue))
            if not model.used:
                break
            model.used -= 1
            self._queue.move_to_end(model)
        yield from list(self._queue)


class S3Fifo:
    """S3-FIFO (Yang et al. 2023), its small queue a tenth of the bytes."""

    def __init__(self) -> None:
        self._small: OrderedDict[Candidate, None] = OrderedDict()
        self._main = Clock()
        self._bytes = [0, 0]
        self._ghosts: OrderedDict[str, None] = OrderedDict()

    def add(self, model: Candidate) -> None:
        """Take in a model; one that left lately goes to the main queue."""
        known = model.name in self._ghosts
        self._ghosts.pop(model.name, None)
        self._bytes[known] += model.size
        if known:
            self._main.add(model)
        else:
            self._small[model] = None

    def use(self, model: Candidate) -> None:
        """Count up to three."""
        self._main.use(model)

    def remove(self, model: Candidate) -> None:
        """Forget a model."""
        if model in self._small:
            del self._small[model]
            self._bytes[0] -= model.size
            self._ghosts[model.name] = None
        else:
            self._main.remove(model)
            self._bytes[1] -= model.size
        if len(self._ghosts) > 5000:
            self._ghosts.popitem(last=False)

    def victims(self) -> Iterator[Candidate]:
        """Yield models."""
        for model in list(self._small):
            if self._bytes[0] <= sum(self._bytes) / 10:
                break
            if model.used:
                del self._small[model]
                self._main.add(model)
                self._bytes[0] -= model.size
                self._bytes[1] += model.size
                model.used = 0
            else:
                yield model
        yield from self._main.victims()
        yield from list(self._small)


OTHERS: dict[str, Callable[[], Policy]] = {
    "gdsf": GreedyDualSizeFrequency,
    "lrfu-8": lambda: Decayed(8),
    "s3-fifo": S3Fifo,
}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.25, 0.5])
    arguments = parser.parse_args()
    policies = {"lru": POLICIES["lru"], **{name: POLICIES[name] for name in POLICIES if name != "lru"}, **OTHERS}
    for share in arguments.shares:
        print(f"\n| memory for {share:.0%} | {' | '.join(policies)} |\n|---|{'--:|' * len(policies)}")
        sums = dict.fromkeys(policies, 0.0)
        for kind in arguments.kinds:
            trace = generate(kind, arguments.models, arguments.requests, arguments.seed)
            memory = int(share * sum(trace.sizes))
            row = []
            base = 0.0
            for name, policy in policies.items():
                result = replay(trace, policy(), memory, 2)
                base = base or result.reload_seconds
                row.append(f"{result.reload_seconds / base:.2f} ({result.hits / result.requests:.0%})")
                sums[name] += math.log(result.reload_seconds / base)
            print(f"| {kind} | {' | '.join(row)} |", flush=True)
        means = [f"{math.exp(value / len(arguments.kinds)):.2f}" for value in sums.values()]
        print(f"| geometric mean | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    main()

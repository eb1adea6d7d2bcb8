"""Which model leaves first when there is no room: pure policies, without clock, disk or event loop."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol


class Candidate:
    """A resident model, as a policy sees it."""

    __slots__ = ("cost", "heat", "in_use", "kind", "name", "place", "size", "used")

    def __init__(self, name: str, size: int, cost: float) -> None:
        """Describe a model.

        :param size: bytes it takes.
        :param cost: seconds to load it again.
        """
        self.name = name
        self.size = max(size, 1)
        self.cost = max(cost, 1e-6)
        #: Invocations that run, as the caller counts them; while there are any it is no victim.
        self.in_use = 0
        # The rest is the policy's.
        self.place = -1
        self.used = 0
        self.heat = 0.0
        self.kind = 0


class Policy(Protocol):
    """Ranks the resident models; no call takes longer the more models there are."""

    def add(self, model: Candidate) -> None:
        """Take in a model that was loaded, which is its first use."""

    def use(self, model: Candidate) -> None:
        """Take note of a use."""

    def remove(self, model: Candidate) -> None:
        """Forget a model that left."""

    def victims(self) -> Iterator[Candidate]:
        """Yield models that are not in use, the one to leave first at first.

        None may be added or removed while this is iterated over.
        """


class LeastRecentlyUsed:
    """What was not used for longest leaves first."""

    def __init__(self) -> None:
        self._models: OrderedDict[Candidate, None] = OrderedDict()

    def add(self, model: Candidate) -> None:
        """Take in a model that was loaded."""
        self._models[model] = None

    def use(self, model: Candidate) -> None:
        """Take note of a use."""
        self._models.move_to_end(model)

    def remove(self, model: Candidate) -> None:
        """Forget a model that left."""
        self._models.pop(model, None)

    def victims(self) -> Iterator[Candidate]:
        """Yield models that are not in use."""
        return _free(self._models)


#: Classes of models by how often they were used lately, and of ages by how long ago that was.
KINDS = 24
AGES = 64
#: A use loses half its weight over so many uses per resident model.
HALF_LIFE = 8
#: How much of what was learned is kept each time the densities are computed anew.
KEEP = 0.9
#: What one use counts at most; then all counts begin small anew.
MOST = 1e100
#: Uses between that, at least; beyond, as many as there are models.
LEARN = 500
#: Models whose present age is counted each time, out of all.
COUNTED = 500
#: Models that left whose past is remembered, at least; beyond, as many as are resident.
REMEMBERED = 1000
#: Where each class of ages ends, in uses, and how wide it is; two of them double the age.
_ENDS: list[float] = [2.0 ** (age / 2) for age in range(AGES)]
_WIDTHS = [1.0, *(end - start for start, end in itertools.pairwise(_ENDS))]


class HitDensity:
    """What saves the fewest seconds of loading, for its bytes and the time it will keep them, leaves first.

    After LHD (Beckmann, Chen, Cidon: "LHD: Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018): it is
    counted after how long models are used again, apart for each class of models, and from that follows how
    many uses per time a model of such a class and age may still be expected to have. Here the class is how often
    a model was used lately, also before it last left, and a use is worth the seconds that loading takes. Time is
    counted in uses. Models do not have to be drawn at random: those of a class that are worth about as much per
    byte stand in a queue, and only the heads of queues are compared.
    """

    def __init__(self) -> None:
        #: Models by class and by the logarithm of seconds per byte; the one not used for longest first.
        self._queues: dict[tuple[int, int], OrderedDict[Candidate, None]] = {}
        self._resident = 0
        #: Of models that left: when they were used, how often, their class. Oldest first.
        self._past: dict[str, tuple[int, float, int]] = {}
        self._uses = 0
        #: The same, but counted in half-lives.
        self._aged = 0.0
        self._again = [[0.0] * AGES for _ in range(KINDS)]
        self._never = [[0.0] * AGES for _ in range(KINDS)]
        #: What one use counts: what was counted before weighs less by what is new weighing more.
        self._one = 1.0
        #: Expected uses per time; until something is learned, the older the fewer.
        self._density = [[1.0 / end for end in _ENDS]] * KINDS
        #: When they are due to be computed anew; whether anybody has asked for them since they were; whether that
        #: was put off until somebody does.
        self._learn_at = LEARN
        self._wanted = self._due = False

    def add(self, model: Candidate) -> None:
        """Take in a model that was loaded."""
        self._resident += 1
        model.place = math.frexp(model.cost / model.size)[1]
        past = self._past.pop(model.name, None)
        if past is None:
            self._uses += 1
            model.used, model.heat, model.kind = self._uses, self._aged, 0
        else:
            model.used, model.heat, model.kind = past
            self._count(model)
        self._queue(model)[model] = None

    def use(self, model: Candidate) -> None:
        """Take note of a use."""
        kind = model.kind
        queue = self._queues[kind, model.place]
        self._count(model)
        if model.kind == kind:
            queue.move_to_end(model)
        else:
            del queue[model]
            self._queue(model)[model] = None

    def remove(self, model: Candidate) -> None:
        """Forget a model that left."""
        self._resident -= 1
        del self._queues[model.kind, model.place][model]
        self._past[model.name] = (model.used, model.heat, model.kind)
        if len(self._past) > max(REMEMBERED, self._resident):
            used, _, kind = self._past.pop(next(iter(self._past)))
            self._never[kind][_age(self._uses - used)] += self._one

    def victims(self) -> Iterator[Candidate]:
        """Yield models that are not in use."""
        self._wanted = True
        if self._due:
            self._learn()
        # Each eviction looks at every head, hundreds of them: hence no function is called for one.
        heads: list[tuple[float, int, Candidate, Iterator[Candidate]]] = []
        density, uses, oldest = self._density, self._uses, AGES - 1
        for number, queue in enumerate(self._queues.values()):
            rest = iter(queue)
            model = next(rest, None)
            if model is not None and model.in_use:
                rest = _free(queue)
                model = next(rest, None)
            if model is not None:
                unused = uses - model.used
                age = (unused * unused).bit_length()
                worth = density[model.kind][age if age < oldest else oldest] * model.cost / model.size
                heads.append((worth, number, model, rest))
        heapq.heapify(heads)
        while heads:
            _, number, model, rest = heads[0]
            yield model
            following = next((other for other in rest if not other.in_use), None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (self._worth(following), number, following, rest))

    def _queue(self, model: Candidate) -> OrderedDict[Candidate, None]:
        return self._queues.setdefault((model.kind, model.place), OrderedDict())

    def _worth(self, model: Candidate) -> float:
        return self._density[model.kind][_age(self._uses - model.used)] * model.cost / model.size

    def _count(self, model: Candidate) -> None:
        uses = self._uses = self._uses + 1
        self._again[model.kind][_age(uses - model.used)] += self._one
        self._aged += 1.0 / (HALF_LIFE * self._resident)
        # Heat is the logarithm of a decaying count, to which decay, the same for all, is not applied.
        heat = math.log2(1.0 + math.pow(2.0, max(model.heat - self._aged, -60.0)))
        model.heat = self._aged + heat
        model.used = uses
        model.kind = min(1 + int(heat * 1.5), KINDS - 1)
        if uses >= self._learn_at:
            self._learn_at = uses + max(LEARN, self._resident)
            if self._wanted:
                self._learn()
            else:  # it takes 0.4 ms, for which no request is to wait while nothing has to leave
                self._due = True
                self._fade()

    def _learn(self) -> None:
        self._wanted = self._due = False
        # Models that still wait for their next use count with the age they have.
        waiting = [[0.0] * AGES for _ in range(KINDS)]
        step = self._resident // COUNTED + 1
        one = self._one
        for queue in self._queues.values():
            for model in itertools.islice(queue, 0, None, step):
                waiting[model.kind][_age(self._uses - model.used)] += step * one
        density = []
        for again, never, wait in zip(self._again, self._never, waiting, strict=True):
            # From the oldest age down: the uses that models of this age or older had, and the time they took.
            uses = time = models = 0.0
            row = [0.0] * AGES
            for age in range(AGES - 1, -1, -1):
                ended = again[age] + never[age] + wait[age]
                time += models * _WIDTHS[age] + ended * _WIDTHS[age] / 2
                models += ended
                uses += again[age]
                row[age] = (uses + 1e-3 * one) / (time + 1e-3 * one * _ENDS[age])
            density.append(row)
        self._density = density
        self._fade()

    def _fade(self) -> None:
        """Let what was counted weigh less than what is counted from now on."""
        self._one /= KEEP
        if self._one > MOST:
            for counts in (self._again, self._never):
                counts[:] = [[count / self._one for count in row] for row in counts]
            self._one = 1.0


def _free(queue: OrderedDict[Candidate, None]) -> Iterator[Candidate]:
    """Return the models of a queue that are not in use."""
    busy = list(itertools.takewhile(lambda model: model.in_use, queue))
    for model in busy:  # in use is used now; and it is not met again by the next who looks
        queue.move_to_end(model)
    return (model for model in queue if not model.in_use)


def _age(uses: int) -> int:
    """Return the class of an age, which is twice its logarithm."""
    return min((uses * uses).bit_length(), AGES - 1)


#: Policies by the names the settings have for them, the default first.
POLICIES: dict[str, Callable[[], Policy]] = {"lhd": HitDensity, "lru": LeastRecentlyUsed}


def choose(policy: Policy, room: int) -> list[Candidate]:
    """Return the models to evict for so many bytes, or all that may be evicted where that is less.

    No more than needed: what was chosen first is spared where the others are enough without it.
    """
    chosen: list[Candidate] = []
    size = 0
    for model in policy.victims():
        chosen.append(model)
        size += model.size
        if size >= room:
            break
    spare = size - room
    needed: list[Candidate] = []
    for model in reversed(chosen):  # the most worthy first; without the last it would not be enough
        if 0 < model.size <= spare:
            spare -= model.size
        else:
            needed.append(model)
    return needed[::-1]

"""What a policy would have done with the requests of a trace."""

from __future__ import annotations

import heapq
from array import array

import msgspec

from .eviction import Candidate, Policy, choose
from .trace import Trace


class Replayed(msgspec.Struct, frozen=True):
    """How a policy did."""

    requests: int
    #: Requests, and bytes of the models they were for, that found the model loaded.
    hits: int
    hit_bytes: int
    bytes: int
    loads: int
    #: Seconds of all loads, and of those of models that had been loaded before.
    load_seconds: float
    reload_seconds: float
    evictions: int
    #: Requests for models larger than the memory.
    refused: int
    #: Seconds that 99 of 100 requests did not wait longer than, for a load or for others' loads before it.
    wait_p99: float


def replay(trace: Trace, policy: Policy, memory: int, loaders: int) -> Replayed:
    """Return how a policy does with a trace.

    :param memory: bytes for models.
    :param loaders: models that are loaded at a time; others wait.
    """
    resident: dict[int, Candidate] = {}
    sizes, loads = trace.sizes, trace.loads
    seen = bytearray(len(trace.names))
    #: When each model's last load was done.
    ready = array("d", [0.0]) * len(trace.names)
    waits = array("d")
    free = [float("-inf")] * loaders
    used = hits = hit_bytes = evictions = refused = count = 0
    load_seconds = reload_seconds = 0.0
    for now, number in zip(trace.times, trace.models, strict=True):
        model = resident.get(number)
        if model is not None:
            policy.use(model)
            hits += 1
            hit_bytes += model.size
            if ready[number] > now:
                waits.append(ready[number] - now)
            continue
        size, seconds = sizes[number], loads[number]
        if size > memory:
            refused += 1
            continue
        if used + size > memory:
            for victim in choose(policy, used + size - memory):
                policy.remove(victim)
                del resident[int(victim.name)]
                used -= victim.size
                evictions += 1
        done = ready[number] = max(now, heapq.heappop(free)) + seconds
        heapq.heappush(free, done)
        waits.append(done - now)
        count += 1
        load_seconds += seconds
        if seen[number]:
            reload_seconds += seconds
        seen[number] = 1
        model = resident[number] = Candidate(str(number), size, seconds)
        used += size
        policy.add(model)
    return Replayed(
        requests=len(trace.times),
        hits=hits,
        hit_bytes=hit_bytes,
        bytes=sum(map(sizes.__getitem__, trace.models)),
        loads=count,
        load_seconds=load_seconds,
        reload_seconds=reload_seconds,
        evictions=evictions,
        refused=refused,
        wait_p99=_quantile(waits, len(trace.times), 0.99),
    )


def _quantile(waits: array[float], requests: int, share: float) -> float:
    """Return a quantile of waiting; requests that are not among `waits` did not wait."""
    rank = int(requests * share) - (requests - len(waits))
    return sorted(waits)[min(rank, len(waits) - 1)] if rank >= 0 and waits else 0.0

"""Synthetic traces for ``manymodels replay``, the same for the same seed.

    python -m benchmarks.traces drift drift.trace --models 5000 --requests 200000
    manymodels replay drift.trace

Sizes are log-normal about 150 kB, from 2 kB to 500 MB; the seconds a load takes grow with the square
root of the size, about as they do for a LogisticRegression of 2 kB (2 ms), a GradientBoostingClassifier of
160 kB (14 ms) and a RandomForestClassifier of 3 MB (50 ms), times log-normal noise.
"""

from __future__ import annotations

import argparse
import gzip
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manymodels.endpoint.trace import Trace

Numbers = NDArray[np.int64]
Kind = Callable[[int, int, np.random.Generator], Numbers]

#: Requests a second.
RATE = 50.0


def ranks(models: int, requests: int, exponent: float, rng: np.random.Generator) -> Numbers:
    """Return popularity ranks drawn by Zipf's law."""
    shares = np.cumsum(1.0 / np.arange(1, models + 1) ** exponent)
    drawn: Numbers = np.searchsorted(shares, rng.random(requests) * shares[-1]).astype(np.int64)
    return drawn


def zipf(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf with exponent 0.9: independent requests."""
    return ranks(models, requests, 0.9, rng)


def steep(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf with exponent 1.2."""
    return ranks(models, requests, 1.2, rng)


def drift(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf whose ranks move on, through all models once."""
    return (zipf(models, requests, rng) + np.arange(requests) * models // requests) % models


def scan(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf, and four times somebody asks every model in turn, as often as all others ask."""
    numbers = zipf(models, requests, rng)
    for start in range(requests // 8, requests, requests // 4):
        room = numbers[start : start + 2 * models : 2]
        room[:] = np.arange(len(room))
    return numbers


def daily(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf over four days, each model mostly at its own time of the day."""
    numbers = zipf(models, 4 * requests, rng)
    day = np.arange(len(numbers)) / len(numbers) * 4
    phase = rng.random(models)
    likely = np.exp(2.5 * (np.cos(2 * np.pi * (day - phase[numbers])) - 1))
    kept: Numbers = numbers[rng.random(len(numbers)) < likely][:requests]
    return kept


def once(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Zipf, and three of ten requests for models that are hardly ever asked for again."""
    rare = models + rng.integers(0, 20 * models, requests)
    return np.where(rng.random(requests) < 0.3, rare, zipf(models, requests, rng))


def together(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Groups of eight models that are asked one after the other."""
    groups = ranks(models // 8, requests // 8, 0.9, rng)
    return (groups[:, None] * 8 + np.arange(8)).reshape(-1)


def sessions(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """Users who ask one model five times within a while, about 400 of them at a time."""
    users = ranks(models, requests // 5, 0.7, rng)
    times = np.arange(len(users))[:, None] * 5 + rng.integers(0, 2000, (len(users), 5))
    return np.repeat(users, 5)[np.argsort(times.reshape(-1), kind="stable")]


def mixed(models: int, requests: int, rng: np.random.Generator) -> Numbers:
    """A quarter each of drift, sessions, groups and one scan, one request of each in turn."""
    quarter = requests // 4
    parts = [kind(models // 4, quarter, rng) for kind in (drift, sessions, together, scan)]
    shortest = min(map(len, parts))
    stacked = np.stack([part[:shortest] + models // 4 * number for number, part in enumerate(parts)], axis=1)
    return stacked.reshape(-1)


KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (zipf, steep, drift, scan, daily, once, together, sessions, mixed)
}


def generate(kind: str, models: int, requests: int, seed: int) -> Trace:
    """Return a trace; its models are named by numbers that tell nothing of their popularity."""
    rng = np.random.default_rng(seed)
    numbers = KINDS[kind](models, requests, rng)
    used, numbers = np.unique(rng.permutation(int(numbers.max()) + 1)[numbers], return_inverse=True)
    sizes = np.exp(rng.normal(np.log(150e3), 2.0, len(used))).clip(2e3, 500e6).astype(np.int64)
    loads = (0.002 + 0.012 * np.sqrt(sizes / 160e3)) * np.exp(rng.normal(0, 0.4, len(used)))
    trace = Trace()
    trace.times = array("d", np.cumsum(rng.exponential(1 / RATE, len(numbers))).tobytes())
    trace.models = array("I", numbers.astype(np.uint32).tobytes())
    trace.names = [f"model-{number:07}" for number in used]
    trace.sizes = array("q", sizes.tobytes())
    trace.loads = array("d", loads.tobytes())
    return trace


def write(trace: Trace, path: Path) -> None:
    """Write a trace; what a model takes stands where it is asked for first."""
    seen: set[int] = set()
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        for time, model in zip(trace.times, trace.models, strict=True):
            more = "" if model in seen else f"\t{trace.sizes[model]}\t{trace.loads[model]:.6f}"
            seen.add(model)
            file.write(f"{time:.3f}\t{trace.names[model]}{more}\n")


def main() -> None:
    """Write a trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path, help="file to write, compressed if its name ends in .gz")
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(generate(arguments.kind, arguments.models, arguments.requests, arguments.seed), arguments.path)


if __name__ == "__main__":
    main()

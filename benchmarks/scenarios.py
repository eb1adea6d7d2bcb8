"""What is measured. A scenario yields cells: a name, and measures by name."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from .bench import Bench, require
from .load import Load, is_right
from .models import KINDS, Model, forget_pages
from .servers import NotSupported, Running, Server
from .servers.base import ask

Cells = Iterator[tuple[str, dict[str, Any]]]
#: Bytes of a model alone, for budgets; `memory` measures them.
OWN_BYTES = {"lr": 2 << 10, "gb": 163 << 10, "rf": 2900 << 10}
#: A server that holds no more has a process for each model, and takes seconds to load one.
FEW = 100
#: Of the Zipf traffic: models of each kind, exponent, requests before those that count, and those.
ZIPF = {"lr": 3500, "gb": 1400, "rf": 100}
EXPONENT = 1.0
ZIPF_WARM, ZIPF_COUNTED = 5000, 5000
RESIDENT = {"lr": 10_000, "gb": 1000}
#: Further models whose memory is measured, by kind: the first one's number, and how many.
FURTHER = {"lr": (2000, 1000), "gb": (100, 60), "rf": (40, 30)}
#: Models that were there before them, so that each process of a server has answered: what it takes for its first models
#: is not what a further one takes.
BEFORE = 20


def startup(bench: Bench, server: Server) -> Cells:
    """Time from the command to the first 200, and memory before the first model."""
    bench.leave()
    with bench.serving(server, bench.store.get("lr", 1) if server.most == 1 else []) as running:
        time.sleep(1)
        yield "start", {"seconds": running.startup, "mib": running.memory() / 2**20}


def cold(bench: Bench, server: Server) -> Cells:
    """Time of a model's first call, load included, others of its kind having been there before."""
    for kind in ("lr", "gb", "rf"):
        known = bench.store.get(kind, 1)
        with _only(server, 2), bench.serving(server, known) as running:
            bench.prime(running, known)
            for number, pages in enumerate(bench.selection.pages):
                count = 10 if server.most > FEW else 2
                models = bench.store.get(kind, count, first=1000 + 10 * number if kind == "lr" else 10 + 10 * number)
                times = [_first_call(running, model, dropped=pages == "dropped") for model in models]
                running.unload(models)
                yield f"{kind}/{pages}", {"ms": statistics.median(times), "longest": max(times)}


def _first_call(running: Running, model: Model, dropped: bool) -> float:
    """Return the milliseconds of a model's first call."""
    if dropped:
        forget_pages(model)
    else:
        (model.path / "model.joblib").read_bytes()
    question = running.server.question(model, 0)
    time.sleep(0.05)
    with contextlib.closing(running.connect()) as sock:
        start = time.perf_counter()
        running.load([model])
        head, body = ask(sock, question)
        elapsed = time.perf_counter() - start
    if not is_right(body, running.server.where, question.expected):
        raise RuntimeError(f"{model.name} answered {head[:60]!r} {body[:200]!r}, not {question.expected}")
    return elapsed * 1e3


def memory(bench: Bench, server: Server) -> Cells:
    """Memory per further model, each asked until every worker has it."""
    for kind, (first, most) in FURTHER.items():
        count = 2 if server.most <= FEW else min(most // bench.selection.divisor, most if server.thousands else 200)
        known = bench.store.get(kind, 1 if server.most <= FEW else BEFORE)
        models = bench.store.get(kind, count, first)
        with _only(server, 2), bench.serving(server, known) as running:
            bench.prime(running, known)
            before = running.memory(files=False)
            running.load(models)
            bench.prime(running, models)
            time.sleep(1)
            yield kind, {"kib": (running.memory(files=False) - before) / count / 2**10}
            running.unload(models)


def throughput(bench: Bench, server: Server) -> Cells:
    """Answers per second and latency of one model, by connections."""
    for kind, numbers in bench.selection.throughput.items():
        models = bench.store.get(kind, 1)
        with bench.serving(server, models) as running:
            bench.prime(running, models)
            for connections in numbers:
                yield f"{kind}/{connections}", bench.measure(running, models, connections)


def many(bench: Bench, server: Server) -> Cells:
    """Answers per second of many models in turn, over 16 connections."""
    for count in bench.selection.many:
        if count <= server.most:
            models = bench.store.get("lr", count)
            with bench.serving(server, models) as running:
                bench.prime(running, models, rows=4)  # as often as ours waits for before it tries a faster predictor
                yield str(count), bench.measure(running, models, 16, rows=2)


def neighbour(bench: Bench, server: Server) -> Cells:
    """Latency of quiet models, alone and beside one that 64 connections ask without a pause."""
    quiet, flooding = bench.store.get("lr", 4, first=1), bench.store.get("gb", 1)
    with _only(server, 5), bench.serving(server, [*quiet, *flooding]) as running:
        bench.prime(running, [*quiet, *flooding])
        plan = bench.plan(running, quiet, connections=1)
        plan.pause, plan.seconds = 0.005, bench.seconds * 1.5
        yield "alone", asdict(Load(plan).outcome())
        flood = bench.plan(running, flooding, connections=64)
        flood.warm, flood.seconds = 0, plan.seconds + plan.warm + 1
        load = Load(flood)
        time.sleep(0.5)
        yield "beside", asdict(Load(plan).outcome())
        yield "flood", asdict(load.outcome())


def overload(bench: Bench, server: Server) -> Cells:
    """Right answers per second when many more connections ask than can be served."""
    models = bench.store.get("lr", 1)
    with bench.serving(server, models) as running:
        bench.prime(running, models)
        for connections in bench.selection.overload:
            yield str(connections), bench.measure(running, models, connections)


def zipf(bench: Bench, server: Server) -> Cells:
    """Hit rate and latency of skewed traffic over 5,000 models, with room for a part of them."""
    if not server.evicts:
        raise NotSupported("it has no limit on how many models it holds, or is not asked to")
    divided = bench.selection.divisor
    models = [model for kind, count in ZIPF.items() for model in bench.store.get(kind, count // divided)]
    size = sum(OWN_BYTES[model.kind] for model in models)
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, len(models) + 1) ** EXPONENT
    ranked = random.permutation(len(models))
    order = ranked[random.choice(len(models), (ZIPF_WARM + ZIPF_COUNTED) // divided, p=weights / weights.sum())]
    for share in bench.selection.shares if server.thousands else (0.25,):
        bench.leave()
        with bench.start(server, models, share, size) as running:
            plan = bench.plan(running, models, connections=8, rows=1)
            plan.order, plan.counted = order.tolist(), True
            plan.warm, plan.seconds = ZIPF_WARM // divided, ZIPF_COUNTED // divided
            outcome = Load(plan).outcome()
            hits = 1 - outcome.loaded / max(1, outcome.good)
            yield f"{share:.0%}", {**asdict(outcome), "hits": hits, "mib": running.memory() / 2**20}


def resident(bench: Bench, server: Server) -> Cells:
    """Memory with 10,000 LogisticRegression and 1,000 GradientBoosting models, which all answer twice."""
    if not server.thousands:
        raise NotSupported("it would take minutes")
    divided = bench.selection.divisor
    models = [model for kind, count in RESIDENT.items() for model in bench.store.get(kind, count // divided)]
    bench.leave()
    with bench.start(server, models) as running:
        plan = bench.plan(running, models, connections=8, rows=1)
        plan.warm, plan.seconds, plan.counted = 0, len(models), True
        first = require(Load(plan).outcome(), len(models))
        time.sleep(1)
        second = require(Load(plan).outcome())
        measures = {"models": len(models), "mib": running.memory() / 2**20, "again": second.loaded}
        yield "all", {**measures, "first p50": first.p50, "rate": second.rate, "p50": second.p50, "p99": second.p99}


@contextlib.contextmanager
def _only(server: Server, least: int) -> Iterator[None]:
    """Refuse servers of too few models."""
    if server.most < least:
        raise NotSupported("it serves one model, which it loads when it starts")
    yield


#: In the order that they run in.
SCENARIOS: dict[str, Callable[[Bench, Server], Cells]] = {
    "startup": startup,
    "cold": cold,
    "memory": memory,
    "throughput": throughput,
    "many": many,
    "neighbour": neighbour,
    "overload": overload,
    "zipf": zipf,
    "resident": resident,
}
__all__ = ["KINDS", "SCENARIOS", "Cells"]

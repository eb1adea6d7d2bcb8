"""The limit of any server: the same models in a bare loop, without one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import joblib

from .bench import Bench
from .models import Model, forget_pages, table
from .scenarios import FURTHER, Cells


def predict(bench: Bench) -> Cells:
    """Answers per second of one row at a time, from the parsed row to a list."""
    for kind in bench.selection.throughput:
        (known,) = bench.store.get(kind, 1)
        model = joblib.load(known.path / "model.joblib")
        data = [table([row]) for row in known.rows]
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + bench.seconds / 2:
            model.predict(data[count % len(data)]).tolist()
            count += 1
        yield f"{kind}/1", {"rate": count / (time.perf_counter() - start)}


def load(bench: Bench) -> Cells:
    """Time of ``joblib.load`` alone, all imports done."""
    for kind in ("lr", "gb", "rf"):
        joblib.load(bench.store.get(kind, 1)[0].path / "model.joblib")
        for pages in bench.selection.pages:
            times = []
            for model in bench.store.get(kind, 10, first=10):
                if pages == "dropped":
                    forget_pages(model)
                else:
                    (model.path / "model.joblib").read_bytes()
                time.sleep(0.05)
                start = time.perf_counter()
                joblib.load(model.path / "model.joblib")
                times.append(time.perf_counter() - start)
            yield f"{kind}/{pages}", {"ms": statistics.median(times) * 1e3, "longest": max(times) * 1e3}


def memory(bench: Bench) -> Cells:
    """Memory of a further model in one process."""
    for kind, (first, most) in FURTHER.items():
        models = bench.store.get(kind, most // bench.selection.divisor, first)
        # A process of its own: freed memory of this one would take them in.
        with get_context("spawn").Pool(1) as pool:
            yield kind, {"kib": pool.apply(_growth, (models,)) / len(models) / 2**10}


def _growth(models: list[Model]) -> int:
    held: list[Any] = [joblib.load(models[0].path / "model.joblib")]
    held[0].predict(table(models[0].rows[:1]))
    before = _private()
    held += [joblib.load(model.path / "model.joblib") for model in models]
    return _private() - before


def _private() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024


def run(bench: Bench, scenario: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cells of a scenario that has a bare loop."""
    loops = {"throughput": predict, "cold": load, "memory": memory}
    if scenario in loops:
        yield from loops[scenario](bench)

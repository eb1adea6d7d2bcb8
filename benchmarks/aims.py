"""What the project sets out to show, and whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import Results
from .tables import KIND, number, rival

#: Of the best other peer, in every row of answers per second: with one connection, and with several.
RIVAL_ONE, RIVAL_MANY = 1.7, 3.0


@dataclass(frozen=True)
class Aim:
    """One row: what is measured, and what it is held to."""

    title: str
    aim: str
    scenario: str
    cell: str
    measure: str
    #: Says whether it is met, by our value and the value of a server in the same cell.
    met: Callable[[Results, float], bool | None]
    more_is_better: bool = True
    digits: int = 0
    ours: str = "ours"


def _times_mms(scenario: str, cell: str, measure: str, factor: float) -> Callable[[Results, float], bool | None]:
    def met(results: Results, ours: float) -> bool | None:
        mms = results.value("mms", scenario, cell, measure)
        return None if mms is None else ours >= factor * mms if factor >= 1 else ours <= factor * mms

    return met


def _rate(title: str, scenario: str, cell: str, factor: float) -> Aim:
    met = _times_mms(scenario, cell, "rate", factor)
    return Aim(f"{title}, answers/s", f"{factor:.0f} x MMS", scenario, cell, "rate", met)


def _cold(kind: str) -> Aim:
    cell = f"{kind}/warm"

    def met(results: Results, ours: float) -> bool | None:
        alone = results.value("loop", "cold", cell, "ms")
        return None if alone is None else ours <= alone + 3

    title = f"cold first call, {KIND[kind]}, ms"
    return Aim(title, "`joblib.load` + 3 ms", "cold", cell, "ms", met, more_is_better=False, digits=1)


def _memory(kind: str) -> Aim:
    def met(results: Results, ours: float) -> bool | None:
        own = results.value("loop", "memory", kind, "kib")
        return None if own is None else ours <= 1.3 * own + 8

    title = f"memory of a further {KIND[kind]}, not accelerated, KiB"
    aim = "1.3 x its own bytes + 8 KiB"
    return Aim(title, aim, "memory", kind, "kib", met, more_is_better=False, digits=1, ours="ours-plain")


def _overload(results: Results, ours: float) -> bool | None:
    usual = results.value("ours", "throughput", "lr/32", "rate")
    return None if usual is None else ours >= 0.95 * usual


def _neighbour(results: Results, ours: float) -> bool | None:
    alone = results.value("ours", "neighbour", "alone", "p99")
    return None if alone is None else ours <= 3 * alone


def _resident(results: Results, ours: float) -> bool | None:
    return ours < 2048 and results.value("ours", "resident", "all", "again") == 0


def _above_lru(measure: str, more: bool) -> Callable[[Results, float], bool | None]:
    def met(results: Results, ours: float) -> bool | None:
        lru = results.value("fastapi", "zipf", "25%", measure)
        return None if lru is None else ours > lru if more else ours < lru

    return met


AIMS = (
    _rate("LogisticRegression, 1 connection", "throughput", "lr/1", 3),
    _rate("LogisticRegression, 32 connections", "throughput", "lr/32", 12),
    _rate("GradientBoosting, 32 connections", "throughput", "gb/32", 12),
    _rate("RandomForest, 32 connections", "throughput", "rf/32", 90),
    _rate("20 models round robin, 16 connections", "many", "20", 8),
    Aim(
        "LogisticRegression, 8 connections, p99, ms",
        "under half of MMS",
        "throughput",
        "lr/8",
        "p99",
        _times_mms("throughput", "lr/8", "p99", 0.5),
        more_is_better=False,
        digits=2,
    ),
    *map(_cold, ("lr", "gb", "rf")),
    *map(_memory, ("lr", "gb", "rf")),
    Aim(
        "10,000 LogisticRegression and 1,000 GradientBoosting models resident, MiB",
        "under 2 GiB, all answering",
        "resident",
        "all",
        "mib",
        _resident,
        more_is_better=False,
    ),
    Aim(
        "overload: 256 connections on one model, good answers/s",
        "95 % of those at 32 connections",
        "overload",
        "256",
        "rate",
        _overload,
    ),
    Aim(
        "quiet tenants beside a flooding one, p99, ms",
        "3 x their p99 alone",
        "neighbour",
        "beside",
        "p99",
        _neighbour,
        more_is_better=False,
        digits=1,
    ),
    Aim(
        "Zipf over 5,000 models, room for a quarter, hit rate",
        "above LRU by hand",
        "zipf",
        "25%",
        "hits",
        _above_lru("hits", more=True),
        digits=3,
    ),
    Aim(
        "the same, p99, ms",
        "below LRU by hand",
        "zipf",
        "25%",
        "p99",
        _above_lru("p99", more=False),
        more_is_better=False,
        digits=1,
    ),
)


def table(results: Results) -> list[str]:
    """Return the table of aims as lines of Markdown."""
    lines = [
        "| | aim | ours | MMS | ours : MMS | best other peer | ours : it | |",
        "|---|---|--:|--:|--:|---|--:|---|",
    ]
    for aim in AIMS:
        ours = results.value(aim.ours, aim.scenario, aim.cell, aim.measure)
        if ours is None:
            continue
        mms = results.value("mms", aim.scenario, aim.cell, aim.measure)
        peer, best = rival(results, aim.scenario, aim.cell, aim.measure, aim.more_is_better)
        cells = [aim.title, aim.aim, number(ours, aim.digits), number(mms, aim.digits), ratio(ours, mms)]
        cells += ["-" if best is None else f"{peer}: {number(best, aim.digits)}", ratio(ours, best)]
        lines.append(f"| {' | '.join([*cells, _verdict(results, aim, ours, best)])} |")
    return lines


def _verdict(results: Results, aim: Aim, ours: float, best: float | None) -> str:
    met = aim.met(results, ours)
    words = ["-" if met is None else "met" if met else "**missed**"]
    if best is not None and aim.measure == "rate" and aim.scenario in ("throughput", "many"):
        factor = RIVAL_ONE if aim.cell.endswith("/1") else RIVAL_MANY
        if ours < factor * best:
            words.append(f"**under {factor:g} x the best other peer**")
    elif best is not None and (ours < best if aim.more_is_better else ours > best):
        words.append("**the peer wins**")
    return ", ".join(words)


def ratio(ours: float | None, other: float | None) -> str:
    """Return how many times the other our value is."""
    if ours is None or not other:
        return "-"
    value = ours / other
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"

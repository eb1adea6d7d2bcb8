"""Tables of the page: servers as rows, cells as columns, ratios below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .models import KINDS
from .results import Results
from .servers import OURS, SERVERS

#: Not peers: the limits, and what the aims are ratios to.
NO_PEERS = ("loop", "bare", "mms", *OURS)
KIND = {kind: title for kind, (title, _) in KINDS.items()}


@dataclass(frozen=True)
class Column:
    """A measure of some cells; which is better."""

    measure: str
    title: str
    digits: int = 0
    more_is_better: bool = True


def title(server: str) -> str:
    """Return a server's name for the page."""
    return "bare loop, no server" if server == "loop" else SERVERS[server].name


def number(value: float | None, digits: int) -> str:
    """Return a number with thousands apart."""
    return "-" if value is None else f"{value:,.{digits}f}"


def rival(results: Results, scenario: str, cell: str, measure: str, more: bool) -> tuple[str, float | None]:
    """Return the peer, other than MMS, that is best in a cell, and its value."""
    values = {
        server: value
        for server in results.servers()
        if server not in NO_PEERS and (value := results.value(server, scenario, cell, measure)) is not None
    }
    if not values:
        return "-", None
    best = (max if more else min)(values, key=values.__getitem__)
    return title(best), values[best]


def table(
    results: Results, scenario: str, cells: list[str], columns: list[Column], name: Callable[[str], str] = str
) -> list[str]:
    """Return a table as lines of Markdown."""
    pairs = [(cell, column) for column in columns for cell in cells]
    rows = [
        (server, [results.value(server, scenario, cell, column.measure) for cell, column in pairs])
        for server in results.servers()
    ]
    heads = [", ".join(part for part in (name(cell), column.title) if part) for cell, column in pairs]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'--:|' * len(pairs)}"]
    for server, values in rows:
        if any(value is not None for value in values):
            shown = [number(value, column.digits) for value, (_, column) in zip(values, pairs, strict=True)]
            lines.append(f"| {title(server)} | {' | '.join(shown)} |")
    against: list[tuple[str, Callable[[str, Column], float | None]]] = [
        ("ours : MMS", lambda cell, column: results.value("mms", scenario, cell, column.measure)),
        (
            "ours : best other peer",
            lambda cell, column: rival(results, scenario, cell, column.measure, column.more_is_better)[1],
        ),
    ]
    for label, other in against:
        ratios = [
            _ratio(results.value("ours", scenario, cell, column.measure), other(cell, column)) for cell, column in pairs
        ]
        if any(ratio != "-" for ratio in ratios):
            lines.append(f"| *{label}* | {' | '.join(ratios)} |")
    reasons = {
        server: results.why_not(server, scenario) for server in dict.fromkeys(run.server for run in results.runs)
    }
    lines += ["", *(f"- {title(server)}: {reason}" for server, reason in reasons.items() if reason)]
    return lines


def _ratio(ours: float | None, other: float | None) -> str:
    if ours is None or not other:
        return "-"
    return f"*{ours / other:.2f}*" if ours / other < 10 else f"*{ours / other:.0f}*"

"""The result page."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from . import aims
from .results import Results
from .servers import SERVERS
from .tables import KIND, Column, rival, table, title

RATE = Column("rate", "/s")
MIDDLE = Column("p50", "p50 ms", 2, more_is_better=False)
LONG = Column("p99", "p99 ms", 2, more_is_better=False)
MIB = Column("mib", "MiB", more_is_better=False)

#: By scenario, besides throughput: the heading, what it says, and the columns.
SECTIONS = {
    "many": (
        "Many models in turn",
        "Different LogisticRegression models, one after another, over 16 connections; all loaded before.",
        [RATE, MIDDLE, LONG],
    ),
    "cold": (
        "Cold first call",
        "Milliseconds from the request to the answer of a model that is not loaded, median; others of its kind were "
        "there before. `dropped`: the model's file is not in the page cache. MMS is told to load by `POST /models`, "
        "which counts. The loop is `joblib.load` alone.",
        [Column("ms", "ms", 1, more_is_better=False)],
    ),
    "memory": (
        "Memory of a further model",
        "KiB (PSS of all processes without mapped files), after every model was asked eight times over 16 "
        "connections. The loop is one process that holds them in a list.",
        [Column("kib", "KiB", 1, more_is_better=False)],
    ),
    "startup": (
        "Start",
        "From the command to the first 200, and memory (PSS of all processes) before the first model.",
        [Column("seconds", "s", 2, more_is_better=False), MIB],
    ),
    "neighbour": (
        "A quiet tenant beside a flooding one",
        "One connection asks four LogisticRegression models in turn, with 5 ms between; alone, then beside 64 "
        "connections that ask a GradientBoosting model without a pause (`flood`).",
        [MIDDLE, LONG, RATE],
    ),
    "overload": (
        "Overload",
        "Right answers per second of one LogisticRegression model. Whoever is refused asks again at once.",
        [RATE, LONG, Column("refused", "refused"), Column("failed", "lost")],
    ),
    "zipf": (
        "More models than fit",
        "Zipf traffic (exponent 1) over 5,000 models, 70 % LogisticRegression, 28 % GradientBoosting, 2 % "
        "RandomForest, over 8 connections; the server may hold a tenth, a quarter, half of them. Ours has that share "
        "of their bytes as `--memory`, the others that share of their number, least recently used first.",
        [Column("hits", "hit rate", 3), MIDDLE, LONG, RATE, MIB],
    ),
    "resident": (
        "Everything resident",
        "10,000 LogisticRegression and 1,000 GradientBoosting models in one server; each is asked twice. `loaded "
        "again` has to be 0.",
        [
            Column("models", "models"),
            MIB,
            Column("again", "loaded again"),
            Column("first p50", "first call p50 ms", 1, more_is_better=False),
            RATE,
            LONG,
        ],
    ),
}


def about(python: Path, seconds: float) -> dict[str, str]:
    """Return what the page says of this run."""
    # The build of the interpreter as well: one without optimizations takes twice as long for the same.
    code = "import sys, sklearn, manymodels; print(sklearn.__version__, manymodels.__version__, sys.version)"
    versions = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/").stdout.split(maxsplit=2)
    folder = subprocess.run(
        [python, "-c", "import manymodels; print(manymodels.__file__)"], capture_output=True, text=True, cwd="/"
    ).stdout.strip()
    commit = subprocess.run(
        ["git", "-C", str(Path(folder).parent), "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": f"{datetime.date.today()}",
        "machine": f"{platform.platform()}, {os.cpu_count()} processors",
        "ours": f"manymodels {versions[1] if len(versions) > 1 else '?'} ({commit or 'no commit'})",
        "Python": " ".join(versions[2].split()) if len(versions) > 2 else "?",
        "scikit-learn": versions[0] if versions else "?",
        "seconds for each cell": f"{seconds:g}",
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


def write(results: Results, page: Path) -> None:
    """Write the page and its plots."""
    said = {key: value for key, value in results.about.items() if ": " not in key}
    lines = ["# Side by side", "", *(f"- {key}: {value}" for key, value in said.items()), ""]
    lines += [
        "Each server in turn on this machine, with the same models and the same requests of one row of JSON; medians "
        "over the rounds. The load generator is a process of its own, which checks every answer: those that are wrong "
        "or refused do not count. Ratios travel, absolute times do not.",
        "",
        "## Aims",
        "",
        *aims.table(results),
        "",
    ]
    drawn: dict[str, Path] = {}
    if find_spec("matplotlib"):  # it comes with the extra `bench`
        from . import plots

        drawn = {path.stem.rpartition("-")[2]: path for path in plots.draw(results, page)}
    lines += _throughput(results, drawn)
    for scenario, (heading, text, columns) in SECTIONS.items():
        if cells := results.cells(scenario):
            lines += [f"## {heading}", "", text, ""]
            if scenario in drawn:
                lines += [f"![{heading}]({drawn[scenario].name})", ""]
            lines += [*table(results, scenario, cells, columns, _cell), ""]
    lines += [*_losses(results), *_servers(results)]
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    page.write_text(f"{text.strip()}\n")


def _throughput(results: Results, drawn: dict[str, Path]) -> list[str]:
    cells = results.cells("throughput")
    lines = ["## One model, by connections", ""] if cells else []
    if "throughput" in drawn:
        lines += [f"![right answers per second by connections]({drawn['throughput'].name})", ""]
    for kind in dict.fromkeys(cell.partition("/")[0] for cell in cells):
        mine = [cell for cell in cells if cell.startswith(f"{kind}/")]
        columns = [RATE, MIDDLE, LONG]
        lines += [f"### {KIND[kind]}", "", *table(results, "throughput", mine, columns, _connections), ""]
    return lines


def _connections(cell: str) -> str:
    return cell.partition("/")[2]


def _cell(cell: str) -> str:
    kind, _, rest = cell.partition("/")
    return " ".join(part for part in (KIND.get(kind, "" if kind in ("start", "all") else kind), rest) if part)


def _losses(results: Results) -> list[str]:
    """List where a peer is ahead of ours."""
    lines = []
    shown = {
        "throughput": [RATE, MIDDLE, LONG],
        **{scenario: columns for scenario, (_, _, columns) in SECTIONS.items()},
    }
    for scenario, columns in shown.items():
        for cell in results.cells(scenario):
            for column in columns:
                if column.measure in ("refused", "failed", "models", "again") or cell == "flood":
                    continue
                ours = results.value("ours", scenario, cell, column.measure)
                rivals = [rival(results, scenario, cell, column.measure, column.more_is_better)]
                rivals.append((title("mms"), results.value("mms", scenario, cell, column.measure)))
                for name, best in rivals:
                    if ours is None or best is None:
                        continue
                    if ours < best if column.more_is_better else ours > best:
                        digits = max(column.digits, 2 if best < 10 else 0)
                        values = f"{best:,.{digits}f} against {ours:,.{digits}f}"
                        lines.append(f"- {scenario}, {_cell(cell) or cell}, {column.title}: {name}, {values}")
    return ["## Where a peer is ahead of ours", "", *(lines or ["Nowhere."]), ""]


def _servers(results: Results) -> list[str]:
    lines = ["## How each was run", ""]
    for name in results.servers():
        if name in SERVERS:
            versions = results.about.get(f"versions: {name}")
            lines.append(f"- {title(name)}: {SERVERS[name].note}{f' ({versions})' if versions else ''}")
    for key, value in results.about.items():
        if key.startswith("left out: "):
            lines.append(f"- {title(key.partition(': ')[2])}: left out: {value}")
    return [*lines, "", "Every prediction runs on one thread, in all of them."]

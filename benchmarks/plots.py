"""Plots of the page, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .results import Results
from .tables import KIND, title

LINES = ("-", "--", ":", "-.")


def draw(results: Results, page: Path) -> list[Path]:
    """Draw throughput by connections and cold first calls beside the page."""
    mpl.rcParams["svg.fonttype"] = "none"
    # The same results are the same file.
    mpl.rcParams["svg.hashsalt"] = "manymodels"
    return [path for path in (_throughput(results, page), _cold(results, page)) if path is not None]


def _save(figure: Figure, page: Path, name: str) -> Path:
    path = page.with_name(f"{page.stem}-{name}.svg")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    return path


def _throughput(results: Results, page: Path) -> Path | None:
    kinds = list(dict.fromkeys(cell.partition("/")[0] for cell in results.cells("throughput")))
    if not kinds:
        return None
    figure = Figure(figsize=(4.2 * len(kinds), 4))
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        numbers = sorted(int(cell.split("/")[1]) for cell in results.cells("throughput") if cell.split("/")[0] == kind)
        for place, server in enumerate(server for server in results.servers() if server != "loop"):
            rates = [results.value(server, "throughput", f"{kind}/{number}", "rate") for number in numbers]
            points = [(number, rate) for number, rate in zip(numbers, rates, strict=True) if rate]
            if points:
                style = LINES[place // 10 % len(LINES)]
                axis.plot(
                    *zip(*points, strict=True), style, marker="o", markersize=3, color=f"C{place}", label=title(server)
                )
        axis.set(title=KIND[kind], xlabel="connections", xscale="log", yscale="log", xticks=numbers)
        axis.set_xticklabels([str(number) for number in numbers])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("right answers per second")
    labels = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="center left", bbox_to_anchor=(0.92, 0.5), fontsize="small")
    return _save(figure, page, "throughput")


def _cold(results: Results, page: Path) -> Path | None:
    cells = [cell for cell in results.cells("cold") if cell.endswith("/warm")]
    servers = [one for one in results.servers() if any(results.value(one, "cold", cell, "ms") for cell in cells)]
    if not servers:
        return None
    figure = Figure(figsize=(7, 0.4 * len(servers) * max(1, len(cells)) / 2 + 1))
    axis = figure.subplots()
    height = 0.8 / len(cells)
    for place, cell in enumerate(cells):
        values = [results.value(server, "cold", cell, "ms") or 0.0 for server in servers]
        positions = [number + place * height for number in range(len(servers))]
        axis.barh(positions, values, height, label=KIND[cell.partition("/")[0]])
    axis.set_yticks([number + 0.4 - height / 2 for number in range(len(servers))], [title(one) for one in servers])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="milliseconds from request to answer, load included")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize="small")
    return _save(figure, page, "cold")

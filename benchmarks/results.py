"""Measured cells, kept in a JSON file beside the page as they come."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """One scenario of one server in one round."""

    round: int
    server: str
    scenario: str
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Why it did not end; a scenario that the server does not take part in is `left_out`.
    error: str = ""
    left_out: str = ""


class Results:
    """All runs of a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.about: dict[str, str] = {}
        self.runs: list[Run] = []

    def read(self) -> None:
        """Read what an earlier run of the benchmark left; its errors are tried again."""
        content = json.loads(self.file.read_text())
        self.about = content["about"]
        self.runs = [run for run in (Run(**run) for run in content["runs"]) if not run.error]

    def has(self, number: int, server: str, scenario: str) -> bool:
        """Say whether a scenario is done."""
        return any((run.round, run.server, run.scenario) == (number, server, scenario) for run in self.runs)

    def add(self, run: Run) -> None:
        """Keep a run."""
        self.runs.append(run)
        content = {"about": self.about, "runs": [asdict(run) for run in self.runs]}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self.file)

    def servers(self) -> list[str]:
        """Return the names of servers that have cells."""
        return list(dict.fromkeys(run.server for run in self.runs if run.cells))

    def value(self, server: str, scenario: str, cell: str, measure: str) -> float | None:
        """Return the median over rounds of a measure."""
        cells = [run.cells[cell] for run in self._of(server, scenario) if cell in run.cells]
        values = [found[measure] for found in cells if measure in found and not math.isnan(found[measure])]
        return statistics.median(values) if values else None

    def cells(self, scenario: str) -> list[str]:
        """Return the names of a scenario's cells, of all servers."""
        return list(dict.fromkeys(cell for run in self.runs if run.scenario == scenario for cell in run.cells))

    def why_not(self, server: str, scenario: str) -> str:
        """Return why a server has no cells in a scenario."""
        return next((run.left_out or run.error for run in self._of(server, scenario) if run.left_out or run.error), "")

    def _of(self, server: str, scenario: str) -> list[Run]:
        return [run for run in self.runs if run.server == server and run.scenario == scenario]

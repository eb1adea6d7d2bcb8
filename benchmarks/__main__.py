"""``python -m benchmarks``: measure servers side by side and write a page."""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from . import loop, report
from .bench import AIMS, ALL, QUICK, Bench
from .environments import NotInstalled
from .models import Store
from .results import Results, Run
from .scenarios import SCENARIOS
from .servers import SERVERS, NotSupported
from .servers.base import ROOT, interrupt_on_term

#: What `--table aims` compares: ours, the server that the aims are ratios to, and the strongest peer.
AIMED = ("loop", "ours", "ours-plain", "mms", "fastapi")
#: Scenarios that measure states rather than times, and take long: once is enough.
ONCE = ("resident", "memory")


@dataclass
class Options:
    """The command line."""

    servers: list[str]
    scenarios: list[str]
    rounds: int
    seconds: float
    cache: Path
    python: Path
    out: Path
    resume: bool
    quick: bool
    table: str
    install: bool


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ["loop", *SERVERS]
    parser.add_argument("--server", dest="servers", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--scenario", dest="scenarios", action="append", choices=[*SCENARIOS], help="only this one")
    parser.add_argument("--table", choices=["all", "aims"], default="all", help="only the rows of the table of aims")
    parser.add_argument("--quick", action="store_true", help="a look: one short round of the servers installed already")
    parser.add_argument("--rounds", type=int, help="over all servers; medians are shown (5, or 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="that a cell is measured (2, or 1 with --quick)")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="an interpreter with manymodels")
    cache = Path(platformdirs.user_cache_dir("manymodels-benchmarks"))
    parser.add_argument("--cache", type=Path, default=cache, help=f"for environments and models ({cache})")
    today = ROOT / "benchmarks" / "results" / f"{datetime.date.today()}.md"
    parser.add_argument("--out", type=Path, default=today, help="the page (benchmarks/results/DATE.md)")
    parser.add_argument("--resume", action="store_true", help="go on with the page that is there")
    given = parser.parse_args(arguments)
    aimed = given.table == "aims"
    return Options(
        servers=given.servers or [*AIMED] if aimed else given.servers or names,
        scenarios=given.scenarios or [*SCENARIOS],
        rounds=given.rounds or (1 if given.quick else 5),
        seconds=given.seconds or (1.0 if given.quick else 2.0),
        cache=given.cache.expanduser().resolve(),
        python=given.python.absolute(),
        out=given.out.resolve(),
        resume=given.resume,
        quick=given.quick,
        table=given.table,
        install=not given.quick or bool(given.servers),
    )


def turn(bench: Bench, results: Results, number: int, name: str, scenarios: list[str]) -> None:
    """Measure one server."""
    for scenario in scenarios:
        if results.has(number, name, scenario) or (number and scenario in ONCE):
            continue
        if bench.selection is AIMS and name == "ours-plain" and scenario != "memory":
            continue
        run, start = Run(number, name, scenario), time.monotonic()
        try:
            if name == "loop":
                cells = loop.run(bench, scenario)
            elif SERVERS[name].scenarios and scenario not in SERVERS[name].scenarios:
                continue
            else:
                cells = SCENARIOS[scenario](bench, SERVERS[name])
            for cell, measures in cells:
                run.cells[cell] = measures
        except NotSupported as reason:
            run.left_out = str(reason)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            run.error = f"{error}"
            bench.leave()
        if name == "loop" and not run.cells and not run.error:
            continue
        results.add(run)
        outcome = run.error or run.left_out or f"{len(run.cells)} cells"
        took = time.monotonic() - start
        print(f"round {number + 1}: {name}: {scenario}: {outcome} ({took:.0f} s)", file=sys.stderr, flush=True)
    bench.leave()


def main() -> None:
    """Run the benchmark."""
    options = parse()
    interrupt_on_term()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(options.out.with_suffix(".json"))
    if options.resume and results.file.exists():
        results.read()
    selection = AIMS if options.table == "aims" else QUICK if options.quick else ALL
    bench = Bench(Store(options.cache), options.cache, options.python, options.seconds, selection)
    names = []
    for name in options.servers:
        environment = SERVERS[name].environment if name in SERVERS else None
        if environment is not None:
            if not options.install and not environment.is_installed(options.cache):
                results.about[f"left out: {name}"] = "not installed, and a quick look installs nothing"
                continue
            try:
                environment.python(options.cache)
            except NotInstalled as reason:
                results.about[f"left out: {name}"] = f"cannot be installed: {reason}"
                continue
            results.about[f"versions: {name}"] = environment.versions(options.cache)
        names.append(name)
    results.about |= report.about(options.python, options.seconds)
    try:
        for number in range(options.rounds):
            for name in names:
                turn(bench, results, number, name, options.scenarios)
            results.about["rounds"] = str(number + 1)
    except KeyboardInterrupt:
        print("stopped; --resume goes on", file=sys.stderr)
    finally:
        bench.leave()
        if results.runs:
            report.write(results, options.out)
            print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()

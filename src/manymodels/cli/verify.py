"""The command that checks a plugin."""

from __future__ import annotations

import contextlib
import platform
import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import click

from .. import __version__
from ..plugins import Plugins
from ..settings import load
from .output import print_table

if TYPE_CHECKING:
    from ..testing.outcome import Outcome

#: Characters of a reason that are shown.
_WHY = 150
_STATUSES = ("passed", "failed", "skipped")


@click.command("verify-plugin")
@click.argument("name")
def verify_plugin(name: str) -> None:
    """Check an installed plugin by its sample artifact.

    Each check runs in a process of its own; docs/conformance.md says what each is for. The exit code is 1 if one
    fails, and what it printed goes to standard error.
    """
    from ..testing.lab import Lab  # what only this command needs
    from ..testing.suite import CHECKS

    lab = Lab(name)
    outcomes: dict[str, Outcome] = {}
    try:
        for check in CHECKS:
            outcomes[check] = lab.run(check)
            if sys.stderr.isatty():
                click.echo(f"{check}: {outcomes[check].status}", err=True)
    finally:
        lab.close()
    for check, outcome in outcomes.items():
        if outcome.status == "failed" and outcome.output:
            click.echo(f"--- {check}\n{outcome.output}", err=True)
    click.echo(_versions(name))
    rows = [
        (check, outcome.status, f"{outcome.seconds:.1f}", _short(outcome.why)) for check, outcome in outcomes.items()
    ]
    print_table(("Check", "Outcome", "Seconds", "Why"), rows)
    counts = {status: sum(outcome.status == status for outcome in outcomes.values()) for status in _STATUSES}
    click.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["failed"]:
        sys.exit(1)


def _short(text: str) -> str:
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= _WHY else f"{line[: _WHY - 3]}..."


def _versions(name: str) -> str:
    """Return the versions that the outcome depends on."""
    (plugin,) = (plugin for plugin in Plugins.installed(load().block_plugins).describe() if plugin.name == name)
    parts = [
        f"plugin {name} ({plugin.distribution or 'no distribution'} {plugin.version})",
        f"manymodels {__version__}",
    ]
    for line in (metadata.requires(plugin.distribution) or []) if plugin.distribution else []:
        required = re.match(r"[\w.-]+", line)
        if required is None or required[0].lower() == "manymodels" or "extra ==" in line:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):  # it is for other systems
            parts.append(f"{required[0]} {metadata.version(required[0])}")
    parts.append(f"Python {platform.python_version()}")
    parts.append(platform.platform(terse=True))
    return ", ".join(parts)

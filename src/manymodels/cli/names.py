"""Commands for the file of names above artifacts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from .. import log
from ..endpoint.rules import Rules, read
from ..errors import ManyModelsError
from ..plugins import Plugins
from ..settings import load
from .client import pages, url_option
from .output import as_json_option, print_json, print_table
from .parts import Location, open_cache, open_store


@click.group()
def names() -> None:
    """Check names above artifacts, and show what they lead to.

    They are versions, aliases, canaries and shadows, in a file that serve is given with --names.
    """


@names.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("store", type=Location(exists=True), required=False)
@as_json_option
def check(file: Path, store: str | Path | None, *, as_json: bool) -> None:
    """Check a file of names before a server reads it.

    With STORE, a folder or an address, the exit code is 1 if it lacks an artifact that the file names.
    """
    rules = read(file)
    found = [msgspec.to_builtins(rule) for rule in rules]
    if as_json:
        print_json(found)
    else:
        _print(found, counts=False)
    missing = 0 if store is None else _missing(rules, store)
    if missing:
        raise click.ClickException(f"{missing} of the artifacts cannot be had from the store")


def _missing(rules: Rules, location: str | Path) -> int:
    """Return the number of artifacts that a store does not have, having said which."""
    settings = load()
    log.configure("error", "text")
    missing = 0
    with tempfile.TemporaryDirectory(prefix="manymodels-") as cache:
        store = open_store(
            location, open_cache(Path(cache), settings), settings, Plugins.installed(settings.block_plugins)
        )
        for artifact, name in {artifact: rule.name for rule in rules for artifact in rule.artifacts}.items():
            try:
                store.find(artifact)
            except ManyModelsError as error:
                click.echo(f"{name}: {error}", err=True)
                missing += 1
    return missing


@names.command()
@url_option
@as_json_option
def show(url: str, *, as_json: bool) -> None:
    """Show the names of a running server.

    Of each shadow also how often it agreed with what was served, differed, failed, or was not asked because too many
    were under way.
    """
    fault = ""
    found: list[dict[str, Any]] = []
    for page in pages(url, "/names", "names"):
        found += page["names"]
        fault = page.get("fault", "")
    if as_json:
        print_json(found)
    else:
        _print(found, counts=True)
    if fault:
        raise click.ClickException(f"the file is not in force as it is now: {fault}")


def _print(described: list[dict[str, Any]], *, counts: bool) -> None:
    titles = ["Name", "Serves", "Sticky", "Shadow"]
    if counts:
        titles += ["Agreed", "Differed", "Failed", "Dropped", "Last"]
    rows = []
    for name in described:
        shadow = name.get("shadow", {})
        row = [name["name"], _shares(name["serve"]), name.get("sticky", ""), shadow.get("model", "")]
        if counts:
            row += [str(shadow.get(count, "")) for count in ("agreed", "differed", "failed", "dropped", "last")]
        rows.append(row)
    print_table(titles, rows)


def _shares(weights: dict[str, float]) -> str:
    if len(weights) == 1:
        return next(iter(weights))
    total = sum(weights.values())
    return "\n".join(f"{weight / total:.1%} {artifact}" for artifact, weight in weights.items())

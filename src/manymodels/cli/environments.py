"""Commands for the environments of artifacts that bring a requirements.txt."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .. import log
from ..artifact import Artifact
from ..environments import Environments, Requirements, read
from ..errors import ManyModelsError
from ..plugins import Binding, Plugins
from ..settings import Settings, load
from .options import options_of
from .output import as_json_option, print_json, print_table, size
from .parts import Location, open_cache, open_store

_DAY = 86400.0


@click.group()
def environments() -> None:
    """Build, list and remove environments of models.

    They are in the cache folder: --cache-dir, otherwise that of the user.
    """


@environments.command()
@click.argument("store", type=Location(exists=True))
@options_of("cache_dir", "environment_wheels", "environment_timeout", "environment_size")
def build(store: str | Path, **flags: Any) -> None:
    """Build what the artifacts of STORE, a folder or an address, need, ahead of time.

    A server with --environments built then uses them and builds none itself.
    """
    settings = load(**flags, environments="build")
    log.configure("error", "text")
    plugins = Plugins.installed(settings.block_plugins)
    failed = asyncio.run(_build(store, settings, plugins))
    if failed:
        raise click.ClickException(f"{failed} of the artifacts cannot have what they need")


async def _build(location: str | Path, settings: Settings, plugins: Plugins) -> int:
    """Build all environments of a store; return the number of artifacts that cannot be helped."""
    kept = Environments(settings, plugins)
    failed = 0
    try:
        for name, found in _needs(location, settings, plugins):
            if isinstance(found, ManyModelsError):
                click.echo(f"{name}: {found}", err=True)
                failed += 1
                continue
            try:
                built = await kept.build(name, *found)
            except ManyModelsError as error:
                click.echo(str(error), err=True)
                failed += 1
                continue
            if built is None:
                click.echo(f"{name}: the server's own packages will do")
            else:
                click.echo(f"{name}: {built.name}, {size(built.bytes)}")
    finally:
        await kept.close()
    return failed


def _needs(
    location: str | Path, settings: Settings, plugins: Plugins
) -> Iterator[tuple[str, tuple[Requirements, Binding] | ManyModelsError]]:
    """Yield the artifacts that need something, or cannot be looked at."""
    with tempfile.TemporaryDirectory(prefix="manymodels-") as folder:
        store = open_store(location, open_cache(Path(folder), settings), settings, plugins)
        for name in store.list():
            try:
                artifact = Artifact(store.open(store.find(name)), name)
                requirements = read(artifact, parse=True)
                if requirements is not None:
                    yield name, (requirements, plugins.bind(artifact, settings.model_settings()))
                store.cache.release(artifact.path)
            except ManyModelsError as error:
                yield name, error


@environments.command("list")
@options_of("cache_dir")
@as_json_option
def list_(*, as_json: bool, **flags: Any) -> None:
    """Show the environments there are, the last used first."""
    found = _environments(flags).list()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "bytes": one.bytes,
                    "seconds": round(one.seconds, 3),
                    "lastUsed": round(last),
                    "inUse": used,
                    "asked": one.asked,
                    "requirements": one.requirements,
                    "packages": one.packages,
                }
                for one, last, used in found
            ]
        )
        return
    rows = [
        (
            one.name,
            size(one.bytes),
            "now" if used else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last)),
            ", ".join(one.asked),
        )
        for one, last, used in found
    ]
    print_table(("Environment", "Size", "Last used", "For"), rows)


@environments.command()
@click.argument("names", nargs=-1, metavar="[NAMES]...")
@click.option("--unused", type=click.FloatRange(0), metavar="DAYS", help="All that were not used for so many days.")
@options_of("cache_dir")
def remove(names: tuple[str, ...], unused: float | None, **flags: Any) -> None:
    """Delete environments that no server uses.

    NAMES are those of 'manymodels environments list'.
    """
    if bool(names) == (unused is not None):
        raise click.UsageError("name the environments, or say --unused DAYS")
    kept = _environments(flags)
    found = {one.name: (last, used) for one, last, used in kept.list()}
    if unused is not None:
        names = tuple(name for name, (last, used) in found.items() if not used and time.time() - last >= unused * _DAY)
    for name in names:
        if name not in found:
            raise click.ClickException(f"there is no environment {name!r}; see manymodels environments list")
        if not kept.remove(name):
            raise click.ClickException(f"{name} is in use; stop the server that uses it")
        click.echo(f"removed {name}")


def _environments(flags: dict[str, Any]) -> Environments:
    settings = load(**flags, environments="off")
    return Environments(settings, Plugins())

"""Commands that work on one artifact, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .. import log
from ..artifact import Artifact
from ..errors import LoadFailed
from ..invocation import Answer, Invocation
from ..plugins import Binding, Plugins
from ..server import ModelDescription
from ..settings import Settings, load
from ..store import pack
from ..store.base import ARCHIVES
from .output import as_json_option, print_json, print_table, size
from .parts import create_server, open_store
from .samples import find_sample, guess_content_type

#: Characters of a sample answer that are shown.
SHOWN = 2000

existing = click.Path(exists=True, path_type=Path, resolve_path=True)


@click.command()
@click.argument("folder", type=existing)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Archive; FOLDER.tar.gz here.")
def package(folder: Path, output: Path | None) -> None:
    """Pack a model folder, or file, for a model store."""
    output = output or Path(f"{folder.name}.tar.gz")
    if not output.name.endswith(ARCHIVES):
        raise click.BadParameter(f"{output.name!r} must end with {' or '.join(ARCHIVES)}", param_hint="--output")
    try:
        names = pack(folder, output)
    except OSError as error:
        raise click.ClickException(f"{str(output)!r} cannot be packed: {error.strerror or error}") from error
    click.echo(f"{output} ({size(output.stat().st_size)}) holds {', '.join(names[:10])}{_more(len(names) - 10)}")
    settings = load()
    try:
        with _opened(output.resolve(), settings, Plugins.installed(settings.block_plugins)) as (_, binding):
            click.echo(f"it is served by the plugin {_plugin(binding)}")
    except LoadFailed as error:
        click.echo(f"Warning: it cannot be served here: {error}", err=True)


@click.command()
@click.argument("artifact", type=existing)
@as_json_option
def check(artifact: Path, *, as_json: bool) -> None:
    """Load an artifact and ask it its sample.

    ARTIFACT is a .tar.gz, a folder or a model file; it is loaded as the server would. The sample is
    a request in the artifact: sample.json, sample.csv, sample.jsonl, sample.npy, sample.npz,
    sample.libsvm or sample.txt.
    """
    settings = load(workers=1)
    log.configure("error", "text")
    with _opened(artifact, settings, Plugins.installed(settings.block_plugins)) as (folder, binding):
        sample = find_sample(folder)
        request = None if sample is None else Invocation(sample.read_bytes(), guess_content_type(b"", sample.name))
        description, answer = asyncio.run(_try(artifact.name, folder, binding, request, settings))
    if as_json:
        print_json(_as_json(artifact, description, sample, answer))
        return
    rows = [
        ("plugin", _plugin(binding)),
        ("loaded in", f"{description.load_seconds * 1e3:.0f} ms"),
        ("memory", size(description.bytes)),
        *(("note", note) for note in description.notes),
    ]
    if sample is None or answer is None:
        rows.append(("sample", "none; add sample.json or the like to see it answer"))
    else:
        rows.append((sample.name, _text(answer)))
    print_table((artifact.name, "can be served"), rows)


@contextlib.contextmanager
def _opened(path: Path, settings: Settings, plugins: Plugins) -> Iterator[tuple[Path, Binding]]:
    """Unpack an artifact as a store does, and bind it; yield its files."""
    with tempfile.TemporaryDirectory(prefix="manymodels-") as cache:
        store = open_store(path.parent, Path(cache), settings, plugins)
        folder = store.open(store.find(path.name))
        yield folder, plugins.bind(Artifact(folder, path.name), settings.model_settings())


async def _try(
    name: str, folder: Path, binding: Binding, request: Invocation | None, settings: Settings
) -> tuple[ModelDescription, Answer | None]:
    server = create_server(settings, {})
    frameworks = [plugin for plugin in (binding.plugin, binding.framework) if plugin is not None]
    try:
        await server.start(frameworks)
        description = await server.load(name, folder, binding)
        answer = None if request is None else await server.invoke(name, request, settings.invocation_timeout)
        return description, answer
    finally:
        await server.stop()


def _as_json(path: Path, model: ModelDescription, sample: Path | None, answer: Answer | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "artifact": str(path),
        "plugin": model.plugin,
        "framework": model.framework,
        "load_seconds": model.load_seconds,
        "bytes": model.bytes,
        "notes": list(model.notes),
        "sample": None,
    }
    if sample is not None and answer is not None:
        content["sample"] = {
            "file": sample.name,
            "status": answer.status,
            "content_type": answer.content_type,
            "answer": _text(answer),
        }
    return content


def _text(answer: Answer) -> str:
    text = answer.body.decode("utf-8", "replace")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}{_more(len(text) - SHOWN)}"


def _plugin(binding: Binding) -> str:
    return binding.plugin if binding.framework is None else f"{binding.plugin}, on top of {binding.framework}"


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""

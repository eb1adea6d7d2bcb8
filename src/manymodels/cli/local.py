"""Commands that work on one artifact, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .. import golden, log
from ..artifact import GOLDEN, SIGNATURE, Artifact
from ..endpoint.patience import patience, patiently
from ..errors import LoadFailed, ManyModelsError
from ..invocation import Answer, Invocation
from ..plugins import Binding, Plugins
from ..server import ModelDescription
from ..server.streams import collected
from ..settings import Settings, load
from ..store import pack, verify
from ..store.base import ARCHIVES
from ..store.pack import digests
from ..store.signatures import Locked, read_private_key, sign
from .output import as_json_option, print_json, print_table, size
from .parts import Location, create_server, open_cache, open_store, split
from .samples import find_sample, guess_content_type

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Characters of a sample answer that are shown.
SHOWN = 2000

existing = click.Path(exists=True, path_type=Path, resolve_path=True)


@click.command()
@click.argument("folder", type=existing)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Archive; FOLDER.tar.gz here.")
@click.option(
    "--golden",
    "requests",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="REQUESTS",
    help=f"Requests to record in the archive's {GOLDEN}.",
)
@click.option(
    "--sign",
    "key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEY",
    help=f"Private Ed25519 key, of ssh-keygen or openssl, to sign the archive with, in {SIGNATURE}.",
)
def package(folder: Path, output: Path | None, requests: Path | None, key: Path | None) -> None:
    """Pack a model folder, or file, for a model store.

    With --golden the model is loaded and asked what the file REQUESTS holds, a request a line as in golden.jsonl.
    What it answers now is what it has to answer from then on, whenever it is loaded.
    """
    output = output or Path(f"{folder.name}.tar.gz")
    if not output.name.endswith(ARCHIVES):
        raise click.BadParameter(f"{output.name!r} must end with {' or '.join(ARCHIVES)}", param_hint="--output")
    signing = None if key is None else _private(key)
    beside = {} if requests is None else {GOLDEN: _recorded(folder, requests)}
    try:
        if signing is not None:
            beside[SIGNATURE] = sign(digests(folder, output, beside), signing)
        names = pack(folder, output, beside)
    except OSError as error:
        raise click.ClickException(f"{str(output)!r} cannot be packed: {error.strerror or error}") from error
    click.echo(f"{output} ({size(output.stat().st_size)}) holds {', '.join(names[:10])}{_more(len(names) - 10)}")
    settings = load()
    try:
        with _opened(output.resolve(), settings, Plugins.installed(settings.block_plugins)) as (files, binding):
            if signing is not None:  # a file may have changed since its digest was made
                verify(files, output.name, [signing.public_key()])
            click.echo(f"it is served by the plugin {_plugin(binding)}")
    except LoadFailed as error:
        click.echo(f"Warning: it cannot be served here: {error}", err=True)


def _private(path: Path) -> Ed25519PrivateKey:
    """Return a private key, whose passphrase is asked for if it has one."""
    try:
        return read_private_key(path)
    except Locked:
        text = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
        return read_private_key(path, text.encode())


def _recorded(folder: Path, requests: Path) -> bytes:
    """Return the golden requests of a model, with what it answers now.

    :param requests: a file of them, whose answers may be left out.
    """
    try:
        content = requests.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{str(requests)!r} cannot be read: {error.strerror}") from error
    asked = golden.parse(content, str(requests), answers=False)
    # The original's answers, which a faster predictor has to agree with; and whatever was recorded before.
    settings = load(workers=1, accelerate="off", golden="off")
    log.configure("error", "text")
    with _opened(folder, settings, Plugins.installed(settings.block_plugins)) as (files, binding):
        invocations = [request.invocation() for request in asked.values()]
        _, outcomes = asyncio.run(_try(folder.name, files, binding, invocations, settings))
    recorded = []
    for (line, request), outcome in zip(asked.items(), outcomes, strict=True):
        if isinstance(outcome, ManyModelsError) or outcome.status != 200:
            why = str(outcome) if isinstance(outcome, ManyModelsError) else f"status {outcome.status}: {_text(outcome)}"
            raise click.ClickException(f"{requests}, line {line}, is not answered: {why}")
        fields = {"answer": outcome.body, "answer_content_type": outcome.content_type}
        recorded.append(msgspec.structs.replace(request, **fields))
    written = golden.write(recorded)
    golden.parse(written, GOLDEN)  # with the answers it may be too large
    return written


@click.command()
@click.argument("artifact", type=Location(exists=True))
@as_json_option
def check(artifact: str | Path, *, as_json: bool) -> None:
    """Load an artifact, and ask it its own requests.

    ARTIFACT is a .tar.gz, a folder or a model file, or the address of one; it is loaded as the server would. Golden
    requests are those in golden.jsonl; the exit code is 1 if one is answered wrongly. The sample is a request in the
    artifact:
    sample.json, sample.csv, sample.jsonl, sample.npy, sample.npz, sample.libsvm or sample.txt.
    """
    settings = load(workers=1, golden="flag")
    log.configure("error", "text")
    with _opened(artifact, settings, Plugins.installed(settings.block_plugins)) as (folder, binding):
        sample = find_sample(folder)
        requests = [] if sample is None else [Invocation(sample.read_bytes(), guess_content_type(b"", sample.name))]
        description, outcomes = asyncio.run(_try(split(artifact)[1], folder, binding, requests, settings))
    answer = outcomes[0] if outcomes else None
    if isinstance(answer, ManyModelsError):
        raise answer
    result = description.golden
    failed = result is not None and result.failed > 0
    if as_json:
        print_json(_as_json(artifact, description, sample, answer))
    else:
        rows = [
            ("plugin", _plugin(binding)),
            ("loaded in", f"{description.load_seconds * 1e3:.0f} ms"),
            ("memory", size(description.bytes)),
            *(("note", note) for note in description.notes),
        ]
        if result is not None:
            rows.append((GOLDEN, f"{result.requests - result.failed} of {result.requests} answered as they must be"))
        if sample is None or answer is None:
            rows.append(("sample", "none; add sample.json or the like to see it answer"))
        else:
            rows.append((sample.name, _text(answer)))
        print_table((split(artifact)[1], "fails golden requests" if failed else "can be served"), rows)
    if failed:
        sys.exit(1)


@contextlib.contextmanager
def _opened(location: str | Path, settings: Settings, plugins: Plugins) -> Iterator[tuple[Path, Binding]]:
    """Unpack an artifact as a store does, and bind it; yield its files."""
    parent, name = split(location)
    with tempfile.TemporaryDirectory(prefix="manymodels-") as cache:
        store = open_store(parent, open_cache(Path(cache), settings), settings, plugins)
        folder = store.open(store.find(name))
        yield folder, plugins.bind(Artifact(folder, name), settings.model_settings())


async def _try(
    name: str, folder: Path, binding: Binding, requests: Sequence[Invocation], settings: Settings
) -> tuple[ModelDescription, list[Answer | ManyModelsError]]:
    """Load a model and ask it one request after the other."""
    server = create_server(settings, {})
    outcomes: list[Answer | ManyModelsError] = []
    try:
        await server.start(binding.plugins)
        description = await patiently(lambda: server.load(name, folder, binding), patience(settings))
        for request in requests:
            try:
                answer = await server.invoke(name, request, settings.invocation_timeout)
                outcomes.append(await collected(answer, int(settings.max_body)))
            except ManyModelsError as error:
                outcomes.append(error)
        return description, outcomes
    finally:
        await server.stop()


def _as_json(
    location: str | Path, model: ModelDescription, sample: Path | None, answer: Answer | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "artifact": str(location),
        "plugin": model.plugin,
        "framework": model.framework,
        "load_seconds": model.load_seconds,
        "bytes": model.bytes,
        "notes": list(model.notes),
        "golden": None if model.golden is None else msgspec.to_builtins(model.golden),
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

"""The command that serves."""

from __future__ import annotations

import functools
import itertools
import logging
import shlex
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from .. import log
from ..artifact import Artifact
from ..context import ModelSettings
from ..endpoint import Container, Endpoint, Role, Routes, SingleModel
from ..errors import ManyModelsError, NotListed, SettingsError, StoreUnavailable
from ..http.serve import run
from ..plugins import Plugins, installed
from ..sagemaker import MODEL_DIR, MODELS_DIR
from ..settings import Settings, load, mistyped, unsupported
from ..store import DiskCache, Store
from .options import settings_options
from .parts import Location, create_runner, create_server, keep_apart, open_cache, open_store
from .samples import find_sample, guess_content_type

logger = logging.getLogger(__name__)

#: Artifacts of the store that are counted for the first message.
COUNTED = 1000
#: The artifact of the sample store that the first message asks for.
FAVOURITE = "iris.tar.gz"
#: Artifacts that are tried for an example.
TRIED = 5
#: Bytes of the largest artifact that is opened for a sample request, and of the longest one shown.
SMALL = 1 << 20
SHORT = 300


@click.command()
@click.argument("store", required=False, type=Location())
@settings_options
def serve(store: str | Path | None, **flags: Any) -> None:
    """Serve the model store STORE, a folder or s3://bucket/prefix.

    Its artifacts are .tar.gz archives, model folders and model files. Without STORE, be a SageMaker
    container: a multi-model one if SAGEMAKER_MULTI_MODEL is true, otherwise one for the single model in /opt/ml/model,
    or where that is missing one that serves the store in /opt/ml/models. With --endpoints, serve the stores that a file
    maps EndpointNames to; with --emulate-sagemaker, those of the endpoints that boto3 creates.
    """
    # Until `run` has its own handlers: end as Ctrl-C does, so that the temporary cache is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = load(**flags)
    log.configure(settings.log_level, settings.log_format)
    for name, meant in mistyped().items():
        logger.warning("%s is no setting and is not read: did you mean %s?", name, meant)
    own = store is not None or settings.endpoints is not None or settings.emulate_sagemaker
    host = settings.host or ("127.0.0.1" if own else "0.0.0.0")  # noqa: S104
    if not own:
        for name, remedy in unsupported().items():
            logger.warning("%s is not supported: %s", name, remedy)
        store = _mounted(settings)
        own = store is not None
    if settings.names is not None and not own:
        raise SettingsError("names are for the artifacts of a store; name one: serve STORE, or leave --names out")
    if own:
        settings = settings.model_copy(update={"multi_model": True})
    plugins = Plugins.installed(settings.block_plugins)
    there = [entry.name for entry in installed()]
    for name in sorted({*settings.block_plugins} - {*there}):
        logger.warning("there is no plugin %r to leave out; installed are %s", name, ", ".join(there) or "none")
    server = create_server(settings, flags)
    runner = create_runner(settings, server.metrics)
    with ExitStack() as stack:
        role: Role
        plane = None
        example = ""
        if not own:
            role = (Container if settings.multi_model else SingleModel)(server, plugins, settings)
            what = "models named by POST /models" if settings.multi_model else str(settings.base_dir / MODEL_DIR)
        else:
            if isinstance(store, Path):
                keep_apart(store, settings.cache_dir)  # before there is anything in it
            folder = settings.cache_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="manymodels-"))
            cache = open_cache(Path(folder), settings)
            open_ = functools.partial(open_store, cache=cache, settings=settings, plugins=plugins)
            if settings.emulate_sagemaker:
                from .emulation import emulate  # which few servers need

                role, plane = emulate(store, cache, open_, server, plugins, settings)
                what = "the endpoints that boto3 makes"
            else:
                opened, routes = _opened(store, settings.endpoints, cache, open_)
                role = Endpoint(opened, server, plugins, settings, routes)
                artifacts: list[str] = []
                try:
                    artifacts += itertools.islice(opened.list(), COUNTED)
                    count = _count(artifacts)
                except NotListed:
                    count = "artifacts by their names"
                except StoreUnavailable as error:
                    logger.error("%s; until it can be, only what the disk cache has is served", error)
                    count = "what the disk cache has of the artifacts"
                what = f"{count} in {store or settings.endpoints}"
                example = _example(opened, artifacts, plugins, settings.model_settings())

        def ready(port: int) -> None:
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            click.echo(f"serving {what} with the plugins {', '.join(plugins.names) or '(none installed)'}")
            click.echo(f"listening on {address}")
            if example:
                click.echo(f"try: curl {address}/invocations {example}")
            if plane is not None:
                click.echo(
                    f"try: export AWS_ENDPOINT_URL_SAGEMAKER={address} AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME={address}"
                )

        logger.info("starting the model server %r ...", settings.backend)
        run(role, runner, settings, host, ready, plane)
    logger.info("stopped")


def _opened(
    store: str | Path | None, endpoints: Path | None, cache: DiskCache, open_: Callable[[str | Path], Store]
) -> tuple[Store, Routes | None]:
    """Return the store, and where endpoints are mapped what each is in it."""
    if endpoints is None:
        assert store is not None
        return open_(store), None
    if store is not None:
        raise SettingsError("the endpoints' stores are those of --endpoints; leave STORE out, or name it there")
    from .endpoints import open_endpoints  # which few servers need

    return open_endpoints(endpoints, cache, open_)


def _mounted(settings: Settings) -> Path | None:
    """Return the store that a container was given, if SageMaker gave it no model."""
    models = settings.base_dir / MODELS_DIR
    alone = settings.multi_model or (settings.base_dir / MODEL_DIR).is_dir() or not models.is_dir()
    return None if alone else models


def _count(artifacts: list[str]) -> str:
    number = f"{COUNTED} or more" if len(artifacts) == COUNTED else str(len(artifacts))
    return f"{number} artifact{'' if len(artifacts) == 1 else 's'}"


def _example(store: Store, artifacts: list[str], plugins: Plugins, settings: ModelSettings) -> str:
    """Return what curl is to be told to ask one of the artifacts, with its sample request if that is short."""
    for name in sorted(artifacts, key=lambda name: name != FAVOURITE)[:TRIED]:
        body, content_type = "[[...]]", "application/json"
        try:
            found = store.find(name)
            if found.size <= SMALL:
                folder = store.open(found)
                try:
                    plugins.bind(Artifact(folder, name), settings)
                    sample = find_sample(folder)
                    if sample is not None and sample.stat().st_size <= SHORT:
                        body = sample.read_text().strip()
                        content_type = guess_content_type(b"", sample.name)
                finally:
                    store.cache.release(folder)
        except (ManyModelsError, OSError, UnicodeDecodeError) as error:
            logger.debug("no example: %s", error, extra={"model": name})
            continue
        headers = (f"X-Amzn-SageMaker-Target-Model: {name}", f"Content-Type: {content_type}")
        return " ".join([*(f"-H {shlex.quote(header)}" for header in headers), f"-d {shlex.quote(body)}"])
    return ""

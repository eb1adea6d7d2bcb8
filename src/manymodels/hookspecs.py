"""The hooks: the whole contract between the platform and a plugin.

A plugin is a module (or any object) whose functions carry ``@manymodels.hookimpl`` and have the
names below; it is found through the entry-point group ``manymodels`` and may take fewer
arguments than a hook offers. The platform decides once, at load, which plugin serves an
artifact. From then on it calls that plugin's functions alone, plus the wrappers
(``@hookimpl(wrapper=True)``) of any other plugin, so None is an answer like any other.

From ``load`` to ``unload`` the hooks of a model are called in the same thread of one worker process, one
call at a time, with contexts that share ``context.state``. A busy model may be loaded in several workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from .acceleration import Accelerated
    from .artifact import Artifact
    from .batching import Batch
    from .context import Context, ModelSettings
    from .golden import Golden
    from .schema import Schema

PROJECT = "manymodels"
hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks a function of a plugin as the implementation of the hook of that name.
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def claim(artifact: Artifact) -> str | None:
    """Say whether this framework plugin serves the artifact.

    Called in the front process, once per artifact whose manifest names no framework. Look at
    names and bytes only: nothing of the artifact may be executed or unpickled, and no framework
    imported. Exactly one plugin may claim an artifact.

    :param artifact: the unpacked model directory.
    :returns: the plugin's own name, or None.
    """


@hookspec
def claim_code(artifact: Artifact, settings: ModelSettings) -> str | None:
    """Say whether this plugin runs code that the artifact (or the operator) brings.

    Such a plugin is bound on top of the framework plugin that claims the rest of the artifact,
    and reaches it as ``context.framework`` (None where no framework claims the artifact). Called
    in the front process; look, execute nothing. At most one plugin may claim an artifact's code.

    :param artifact: the unpacked model directory.
    :param settings: the operator's settings (`program`, `submit_directory`).
    :returns: the plugin's own name, or None.
    """


@hookspec(firstresult=True)
def load(artifact: Artifact, context: Context) -> Any:
    """Load the artifact and return the model object, which the other hooks are given.

    Called once per load, in a worker process that other models share. Tell the reader of the
    model's description what matters with ``context.note``.

    :param artifact: the unpacked model directory; read only.
    :param context: the model and its settings, without a request.
    :raises manymodels.errors.LoadFailed: with a sentence for the client. Any other exception
        becomes one; a MemoryError becomes ``OutOfMemory``.
    """


@hookspec(firstresult=True)
def input_fn(body: bytes, content_type: str | None, model: Any, context: Context) -> Any:
    """Turn a request's body into what ``predict_fn`` takes.

    Left out, the platform decodes by content type (``manymodels.codecs.decode``).

    :param body: the raw body, at most the configured limit long.
    :param content_type: the header as the client sent it, parameters included; None if absent.
    :param model: what ``load`` returned.
    :param context: the model and this request.
    :raises manymodels.errors.BadInput: answered with 400.
    :raises manymodels.errors.UnsupportedContentType: answered with 415.
    """


@hookspec(firstresult=True)
def predict_fn(data: Any, model: Any, context: Context) -> Any:
    """Run the model.

    :param data: what ``input_fn`` returned, or several joined by the plugin's ``batch``.
    :param model: what ``load`` returned.
    :param context: the model and this request; of a joined call, the first request's.
    :returns: what ``output_fn`` takes. Without an ``output_fn``, an iterator of bytes and str is streamed.
    :raises manymodels.errors.BadInput: where the model refuses the data (width, NaN, dtype).
        Any other exception is answered with 500 and logged with its traceback.
    """


@hookspec(firstresult=True)
def output_fn(prediction: Any, model: Any, accept: str, context: Context) -> Any:
    """Turn a prediction into the reply.

    Left out, the platform encodes by Accept (``manymodels.codecs.encode``).

    :param prediction: what ``predict_fn`` returned, or this request's share of it.
    :param model: what ``load`` returned.
    :param accept: the Accept header; the operator's default where it is absent or ``*/*``.
    :param context: the model and this request.
    :returns: a pair of body (bytes or str) and content type. An iterator of bytes and str as the body, such as
        a generator, is streamed: each part is sent as it comes, no faster than the client reads. What is set of the
        reply in the context until the first part is heeded, and an error until then is answered as any other. When
        nobody reads on, the generator is closed.
    :raises manymodels.errors.UnsupportedAccept: answered with 406.
    """


@hookspec(firstresult=True)
def batch(model: Any, context: Context) -> Batch | None:
    """Say how invocations of this model that wait at the same time may be joined into one call.

    :param model: what ``load`` returned.
    :param context: the model, without a request.
    :returns: for instance ``manymodels.batching.RowBatch()``; None: each runs alone.
    """


@hookspec(firstresult=True)
def accelerate(model: Any, context: Context) -> Accelerated | None:
    """Offer a faster way to the same predictions.

    Called after the model has answered a few times, or once its worker had nothing to do for a second, and
    while it has nothing else to do, so that no cold call waits for it. The platform compares it with ``predict_fn`` on
    the probes it comes with, times both, and uses it only where it agrees within the operator's tolerance
    and is faster.

    :param model: what ``load`` returned.
    :param context: the model, without a request.
    :returns: a ``manymodels.Accelerated``, whose predictor raises ``manymodels.LeftToOriginal`` for data it
        does not take; None: the original serves.
    """


@hookspec(firstresult=True)
def schema(model: Any, context: Context) -> Schema | None:
    """Say what the model takes and gives, as far as it knows that of itself.

    Called once per load. It is shown with the model in ``GET /models/{name}`` and in ``/docs``, where the artifact's
    manifest declares no other. Nothing is checked by it: refuse in ``input_fn`` what the model does not take.

    :param model: what ``load`` returned.
    :param context: the model, without a request.
    :returns: for instance ``Schema(inputs=(Field(name="age", type="number"),))``; None: it does not know.
    """


@hookspec(firstresult=True)
def unload(model: Any, context: Context) -> None:
    """Let go of what the garbage collector cannot, such as files or native handles.

    :param model: what ``load`` returned.
    :param context: the model, without a request.
    """


@hookspec
def warm_up_imports() -> Sequence[str]:  # type: ignore[empty-body]
    """Name the modules worth importing once, before workers are forked.

    They are imported in the process all workers are forks of, so their memory and import time
    are paid once. Imports only: that process never predicts, and a module that starts threads
    at import is imported in each worker instead.

    :returns: importable module names, in order.
    """


@hookspec(firstresult=True)
def train(channels: Mapping[str, Path], hyperparameters: Mapping[str, str], model_dir: Path) -> None:
    """Train a model from files, in ``manymodels train`` without a script of the user's.

    One plugin is asked: the only one that has this hook, or the one that the hyperparameter
    `manymodels_plugin` names. It may be stopped at any moment, so a file gets its name in
    `model_dir` only when it is whole. Tell of progress by ``logging``.

    :param channels: the folder of each input channel (``train``, ``test`` ...) by name.
    :param hyperparameters: the user's, as text (``"200"``); those SageMaker adds are left out.
        Refuse a name that is not known: it is misspelt.
    :param model_dir: an existing folder; what is in it afterwards has to be what ``load`` takes.
    :raises manymodels.errors.TrainingFailed: with a sentence for the user. Any other exception
        becomes one, with its traceback.
    """


@hookspec(firstresult=True)
def sample_artifact(path: Path) -> Sequence[Golden]:  # type: ignore[empty-body]
    """Write a small artifact of the plugin's own kind, for whoever checks the plugin.

    Seconds at most, and nothing from the network. The requests show each Content-Type that the plugin says
    it takes, and each Accept.

    :param path: an existing empty folder.
    :returns: requests, and the answers that the model must give to them.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to ``manymodels``.

    :param cli: the command group; use ``cli.add_command`` or ``@cli.command``.
    """

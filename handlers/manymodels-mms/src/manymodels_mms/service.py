"""The handler service: multi-model-server calls `handle`, sagemaker-inference's Transformer answers by the hooks.

A function rather than a class, since multi-model-server reports a model as loaded whose class handler
failed to load it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mms.context import Context
from sagemaker_inference.transformer import Transformer

from manymodels import Artifact, Plugins
from manymodels.errors import LoadFailed, ManyModelsError, OutOfMemory
from manymodels.model import Model
from manymodels.server.messages import Answered, Failure, outcome, sendable
from manymodels.server.worker import limit_memory

from . import toolkit
from .messages import Description, Report, decode_invocations, encode
from .toolkit import ScriptError

_NAME = "sagemaker-inference"


@functools.cache
def installed(blocked: tuple[str, ...]) -> Plugins:
    """Return the plugins, with what scripts written for sagemaker-inference expect of it."""
    plugins = Plugins.installed(blocked)
    plugins.register(toolkit, _NAME)
    return plugins


class HookTransformer(Transformer):  # type: ignore[misc]  # untyped
    """A Transformer whose functions are the hooks of the plugin that the artifact is bound to.

    Its own way through a request answers a batch with the headers of its first request, sends tracebacks
    to clients, unpickles npy bodies and knows no parameters of content types.
    """

    bound: Model | None = None

    def validate_and_initialize(self, model_dir: str, context: Context) -> None:
        """Load the model.

        :raises ManyModelsError: if it cannot be loaded; the report in its folder says why.
        :raises MemoryError: if memory ran out, so that multi-model-server answers 507.
        """
        folder = Path(model_dir)
        description = Description.read(folder)
        start = time.perf_counter()
        try:
            self.bound = _load(description)
        except ManyModelsError as error:
            Report(pid=os.getpid(), failure=Failure.of(error)).write(folder)
            if isinstance(error, OutOfMemory):
                raise MemoryError(str(error)) from error
            raise
        model = self.bound
        notes = [sendable(note) for note in model.notes]
        seconds = time.perf_counter() - start
        Report(pid=os.getpid(), seconds=seconds, notes=notes, golden=model.golden, schema=model.schema).write(folder)

    def transform(self, data: Sequence[dict[str, Any]], context: Context) -> list[bytes]:
        """Answer requests that each hold one or more invocations, each with the outcomes of its own."""
        assert self.bound is not None  # multi-model-server loads before it invokes
        requests = [decode_invocations(request["body"]) for request in data]
        results = self.bound.invoke([invocation for request in requests for invocation in request])
        self.bound.asked += len(results)
        outcomes = (outcome(result.answer() if isinstance(result, ScriptError) else result) for result in results)
        return [encode(Answered(0, [next(outcomes) for _ in request])) for request in requests]

    def close(self) -> None:
        """Let the plugin release what the model holds."""
        if self.bound is not None:
            self.bound.unload()


def _load(description: Description) -> Model:
    artifact = Artifact(Path(description.path), description.name)
    limit_memory(description.memory)
    try:
        return Model(artifact, description.binding, installed(description.blocked), description.settings)
    except OSError as error:
        raise LoadFailed(f"{description.name!r} cannot be read: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(f"memory ran out while loading {description.name!r}") from error


transformer = HookTransformer()


def handle(data: Sequence[dict[str, Any]] | None, context: Context) -> list[bytes] | None:
    """Answer requests; without data, load the model."""
    if data is None:
        transformer.validate_and_initialize(context.system_properties["model_dir"], context)
        return None
    return transformer.transform(data, context)

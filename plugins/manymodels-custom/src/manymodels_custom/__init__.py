"""Models that bring their own script, with SageMaker's functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manymodels import Accelerated, Artifact, Batch, Context, Golden, ModelSettings, Schema, hookimpl

from . import sample
from .location import own_script
from .model import ScriptModel

__version__ = "0.1.0"


@hookimpl
def claim_code(artifact: Artifact, settings: ModelSettings) -> str | None:
    """Claim an artifact with a script, and every artifact where one script is shared by all."""
    if settings.submit_directory is None and own_script(artifact, settings) is None:
        return None
    return "custom"


@hookimpl
def load(artifact: Artifact, context: Context) -> ScriptModel:
    """Import the script and load its model."""
    return ScriptModel(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: ScriptModel, context: Context) -> Any:
    """Decode by the script, the framework or the platform."""
    return model.decode(body, content_type, context)


@hookimpl
def predict_fn(data: Any, model: ScriptModel, context: Context) -> Any:
    """Predict by the script, the framework or the model's own method."""
    return model.predict(data, context)


@hookimpl
def output_fn(prediction: Any, model: ScriptModel, accept: str, context: Context) -> Any:
    """Encode by the script, the framework or the platform."""
    return model.encode(prediction, accept, context)


@hookimpl
def batch(model: ScriptModel, context: Context) -> Batch | None:
    """Join invocations as the framework does, where it answers them alone."""
    return model.batch(context)


@hookimpl
def accelerate(model: ScriptModel, context: Context) -> Accelerated | None:
    """Predict as fast as the framework can, where it is the framework that predicts."""
    return model.accelerate(context)


@hookimpl
def schema(model: ScriptModel, context: Context) -> Schema | None:
    """Tell what the framework takes and gives, where the script leaves that to it."""
    return model.schema(context)


@hookimpl
def unload(model: ScriptModel, context: Context) -> None:
    """Unload the framework's model and forget the script."""
    model.close(context)


@hookimpl
def sample_artifact(path: Path) -> list[Golden]:
    """Write a script and what it reads."""
    return sample.write(path)

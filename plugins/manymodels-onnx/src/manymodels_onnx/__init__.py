"""The ONNX plugin: models in ONNX's format, run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymodels import Artifact, Batch, Context, Golden, Schema, hookimpl

if TYPE_CHECKING:
    from ._model import OnnxModel

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "batch",
    "claim",
    "input_fn",
    "load",
    "predict_fn",
    "sample_artifact",
    "schema",
    "warm_up_imports",
]

# ONNX Runtime tells Microsoft what it is used for, from a thread that it starts when it is imported, unless a variable
# that says so is set before (as CI is on most machines that test). Workers are forks of a process without threads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim artifacts with an ONNX file at the top, be it one or several."""
    return "onnx" if artifact.match("*.onnx") else None


@hookimpl
def load(artifact: Artifact, context: Context) -> OnnxModel:
    """Load the artifact's one model.

    :raises manymodels.errors.LoadFailed: if it holds none or several, or one that cannot be run.
    """
    from . import _model  # imports onnxruntime, which the front process must not

    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: OnnxModel) -> Any:
    """Decode the body into an array for each input of the model, by the input's name."""
    from . import _inputs

    return _inputs.decode(body, content_type, model.inputs)


@hookimpl
def predict_fn(data: Any, model: OnnxModel) -> Any:
    """Return the model's only output as it is, or a dict of its outputs by name."""
    return model.predict(data)


@hookimpl
def batch(model: OnnxModel) -> Batch | None:
    """Join by rows where the model leaves their number open, in all inputs and outputs alike."""
    from . import _batch

    return _batch.FeedBatch() if model.by_rows else None


@hookimpl
def schema(model: OnnxModel) -> Schema:
    """Tell the model's inputs and the outputs that are answered."""
    from . import _schema

    return _schema.tell(model)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name ONNX Runtime."""
    return ("onnxruntime",)


@hookimpl
def sample_artifact(path: Path) -> Sequence[Golden]:
    """Write a logistic regression of two inputs."""
    from . import _sample

    return _sample.write(path)

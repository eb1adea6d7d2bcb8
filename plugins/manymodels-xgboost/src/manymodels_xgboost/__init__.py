"""The XGBoost plugin: native model files and pickled Boosters or scikit-learn wrappers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manymodels import Accelerated, Artifact, Batch, Context, Golden, RowBatch, Schema, hookimpl

from . import _files, _replies, _rows

if TYPE_CHECKING:
    from pathlib import Path

    from ._model import XGBoostModel

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accelerate",
    "batch",
    "claim",
    "input_fn",
    "load",
    "output_fn",
    "predict_fn",
    "sample_artifact",
    "schema",
    "warm_up_imports",
]


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim artifacts with an XGBoost model at the top, be it one or several."""
    return "xgboost" if _files.models(artifact) else None


@hookimpl
def load(artifact: Artifact, context: Context) -> XGBoostModel:
    """Load the artifact's one model.

    :raises manymodels.errors.LoadFailed: if it holds none or several, or XGBoost cannot read it.
    """
    from . import _model  # imports xgboost, which the front process must not

    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: XGBoostModel) -> Any:
    """Decode the body into float32 rows as wide as the model: a 2-D array, or a csr_matrix."""
    return _rows.decode(body, content_type, model.feature_names, model.num_features)


@hookimpl
def predict_fn(data: Any, model: XGBoostModel) -> Any:
    """Return what XGBoost's own ``predict`` would, or the selected output as one dict per row."""
    return model.predict(data)


@hookimpl
def output_fn(prediction: Any, accept: str, context: Context) -> tuple[bytes, str]:
    """Encode the prediction in the forms of SageMaker's XGBoost container."""
    settings = context.settings
    return _replies.encode(prediction, accept, multi_model=settings.multi_model, batch=settings.batch_transform)


@hookimpl
def batch() -> Batch:
    """Join by rows: XGBoost predicts each by itself."""
    return RowBatch()


@hookimpl
def schema(model: XGBoostModel) -> Schema:
    """Tell the features, and what a row is answered with."""
    from . import _schema

    return _schema.tell(model)


@hookimpl
def accelerate(model: XGBoostModel) -> Accelerated | None:
    """Offer the same compiled prediction without the Python around it."""
    from . import _direct

    return _direct.accelerate(model)


@hookimpl
def sample_artifact(path: Path) -> list[Golden]:
    """Write a small regression."""
    from . import _sample

    return _sample.write(path)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name XGBoost, which brings scipy and scikit-learn."""
    return ("xgboost",)

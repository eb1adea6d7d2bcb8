"""The LightGBM plugin: model files in text, and pickled Boosters or scikit-learn wrappers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymodels import Accelerated, Artifact, Batch, Context, Golden, RowBatch, Schema, hookimpl

from . import _files, _rows

if TYPE_CHECKING:
    from ._model import LightGBMModel

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accelerate",
    "batch",
    "claim",
    "input_fn",
    "load",
    "predict_fn",
    "sample_artifact",
    "schema",
    "warm_up_imports",
]


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim artifacts with a LightGBM model at the top, be it one or several."""
    return "lightgbm" if _files.models(artifact) else None


@hookimpl
def load(artifact: Artifact, context: Context) -> LightGBMModel:
    """Load the artifact's one model.

    :raises manymodels.errors.LoadFailed: if it holds none or several, or LightGBM cannot read it.
    """
    from . import _model  # imports lightgbm, which the front process must not

    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: LightGBMModel) -> Any:
    """Decode the body into float64 rows as wide as the model: a 2-D array, or a csr_matrix."""
    return _rows.decode(body, content_type, model.feature_names, model.num_features, model.categories)


@hookimpl
def predict_fn(data: Any, model: LightGBMModel) -> Any:
    """Return what LightGBM's own ``predict`` would."""
    return model.predict(data)


@hookimpl
def batch() -> Batch:
    """Join by rows: LightGBM predicts each by itself."""
    return RowBatch()


@hookimpl
def schema(model: LightGBMModel) -> Schema:
    """Tell the features, and what a row is answered with."""
    from . import _schema

    return _schema.tell(model)


@hookimpl
def accelerate(model: LightGBMModel) -> Accelerated | None:
    """Offer the same compiled prediction without the Python around it."""
    from . import _direct

    return _direct.accelerate(model)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name LightGBM, which brings scipy, scikit-learn and pandas."""
    return ("lightgbm",)


@hookimpl
def sample_artifact(path: Path) -> Sequence[Golden]:
    """Train a classifier on numbers and a category, and save it as text."""
    from . import _sample

    return _sample.write(path)

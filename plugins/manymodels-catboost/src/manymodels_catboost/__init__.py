"""The CatBoost plugin: models in CatBoost's own format, and pickled models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymodels import Artifact, Batch, Context, Golden, RowBatch, Schema, hookimpl

from . import _files, _rows

if TYPE_CHECKING:
    from ._model import CatBoostModel

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


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim artifacts with a CatBoost model at the top, be it one or several."""
    return "catboost" if _files.models(artifact) else None


@hookimpl
def load(artifact: Artifact, context: Context) -> CatBoostModel:
    """Load the artifact's one model.

    :raises manymodels.errors.LoadFailed: if it holds none or several, or CatBoost cannot read it.
    """
    from . import _model  # imports catboost, which the front process must not

    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: CatBoostModel) -> Any:
    """Decode the body into rows as wide as the model: float64, objects where it has categories, or a csr_matrix."""
    return _rows.decode(body, content_type, model.columns)


@hookimpl
def predict_fn(data: Any, model: CatBoostModel) -> Any:
    """Return what CatBoost's ``predict`` would, of the model's prediction type."""
    return model.predict(data)


@hookimpl
def batch() -> Batch:
    """Join by rows: CatBoost predicts each by itself."""
    return RowBatch()


@hookimpl
def schema(model: CatBoostModel) -> Schema:
    """Tell the columns, and what a row is answered with."""
    from . import _schema

    return _schema.tell(model)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name CatBoost, which brings pandas."""
    return ("catboost",)


@hookimpl
def sample_artifact(path: Path) -> Sequence[Golden]:
    """Train a classifier on numbers and a category, and save it in CatBoost's format."""
    from . import _sample

    return _sample.write(path)

"""The scikit-learn plugin of manymodels."""

# scikit-learn, joblib and pandas are imported inside functions: `claim` runs in the front process,
# which imports this module and never needs them.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manymodels import hookimpl

from . import _claim, _input, _model, _predict, _schema, _train
from ._model import model_of
from ._unpickle import noting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from manymodels import Accelerated, Artifact, Batch, Context, Golden, Schema

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accelerate",
    "batch",
    "claim",
    "input_fn",
    "load",
    "model_of",
    "noting",
    "output_fn",
    "predict_fn",
    "sample_artifact",
    "schema",
    "train",
    "warm_up_imports",
]


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim an artifact whose model file is a pickle of no other framework."""
    return "sklearn" if _claim.is_ours(artifact) else None


@hookimpl
def load(artifact: Artifact, context: Context) -> Any:
    """Load the estimator and its ``metadata.json``."""
    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: Any) -> Any:
    """Decode the body and put it in the shape, dtype and column order of the model."""
    return _input.read(body, content_type, model)


@hookimpl
def predict_fn(data: Any, model: Any) -> Any:
    """Predict; asked in the ``{"features": ...}`` form, give probabilities and metadata as well."""
    return _predict.predict(data, model)


@hookimpl
def output_fn(prediction: Any, accept: str) -> Any:
    """Encode the prediction in the form it was asked for."""
    return _predict.encode(prediction, accept)


@hookimpl
def batch() -> Batch:
    """Join by rows: scikit-learn's ``predict`` answers each row by itself."""
    return _predict.FormBatch()


@hookimpl
def schema(model: Any) -> Schema:
    """Tell the columns the estimator was trained on, and its classes."""
    return _schema.tell(model)


@hookimpl
def accelerate(model: Any) -> Accelerated | None:
    """Offer the estimator's arithmetic without scikit-learn's checks, where it has that form."""
    from . import _accelerate

    return _accelerate.accelerate(model)


@hookimpl
def train(channels: Mapping[str, Path], hyperparameters: Mapping[str, str], model_dir: Path) -> None:
    """Train a GradientBoostingClassifier on the CSV files of the channel ``train``."""
    _train.train(channels, hyperparameters, model_dir)


@hookimpl
def sample_artifact(path: Path) -> list[Golden]:
    """Write a classifier of flowers."""
    from . import _sample

    return _sample.write(path)


@hookimpl
def warm_up_imports() -> list[str]:
    """Name what most models need."""
    return [
        "joblib",
        "pandas",
        "sklearn.compose",
        "sklearn.ensemble",
        "sklearn.feature_extraction.text",
        "sklearn.impute",
        "sklearn.linear_model",
        "sklearn.neighbors",
        "sklearn.pipeline",
        "sklearn.preprocessing",
        "sklearn.svm",
        "sklearn.tree",
    ]

"""The MLflow plugin: any model folder with the flavor ``python_function``, asked as MLflow's server is."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from manymodels import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from manymodels import Artifact, Batch, Context, Golden, Schema

    from ._model import MlflowModel
    from ._request import Request

__version__ = "0.1.0"

__all__ = [
    "__version__",
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

# MLflow takes seconds to import, so that what needs it is imported inside the hooks.

#: Modules that models of a framework need; left to the first load, they would take it seconds.
_FLAVORS = {
    "sklearn": ("mlflow.sklearn", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline"),
    "skops": ("skops.io",),
    "xgboost": ("mlflow.xgboost", "xgboost"),
}


@hookimpl(wrapper=True)
def claim(artifact: Artifact) -> Generator[None, list[str], list[str]]:
    """Claim a folder with a file MLmodel, also where it holds files that other plugins know, as ``model.ubj``."""
    others = yield
    return ["mlflow"] if artifact.match("MLmodel") else others


@hookimpl
def load(artifact: Artifact, context: Context) -> MlflowModel:
    """Load the model as ``mlflow.pyfunc.load_model`` does.

    :raises manymodels.errors.LoadFailed: if it has no such flavor, or what it needs is not installed.
    """
    from . import _model

    return _model.load(artifact, context)


@hookimpl
def input_fn(body: bytes, content_type: str | None, model: MlflowModel) -> Request:
    """Read what MLflow's scoring server takes, typed by the model's signature."""
    from . import _request

    return _request.read(body, content_type, model)


@hookimpl
def predict_fn(data: Request, model: MlflowModel) -> Any:
    """Check the input against the signature, and predict."""
    return model.predict(data)


@hookimpl
def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Write ``{"predictions": ...}``; formats other than JSON carry the predictions alone."""
    from . import _reply

    return _reply.encode(prediction, accept)


@hookimpl
def batch(model: MlflowModel) -> Batch | None:
    """Join by rows where the flavor is known to answer each row by itself; a function of the user's may not."""
    from . import _request

    return _request.RequestBatch() if model.row_wise else None


@hookimpl
def schema(model: MlflowModel) -> Schema:
    """Tell what the signature does."""
    from . import _schema

    return _schema.tell(model)


@hookimpl
def sample_artifact(path: Path) -> Sequence[Golden]:
    """Write a Python model with a signature, parameters and an input example."""
    from . import _sample

    return _sample.write(path)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name MLflow, and the frameworks that most of its models need, where they are installed."""
    flavors = [modules for framework, modules in _FLAVORS.items() if find_spec(framework) is not None]
    return ("mlflow.pyfunc", "mlflow.pyfunc.scoring_server", *chain.from_iterable(flavors))

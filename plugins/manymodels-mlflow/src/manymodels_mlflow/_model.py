"""The loaded model: a folder that MLflow wrote, as a function of tables or tensors."""

from __future__ import annotations

import pickle
import platform
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from packaging.requirements import InvalidRequirement, Requirement

from manymodels.errors import BadArtifact, BadInput, LoadFailed

if TYPE_CHECKING:
    from manymodels import Artifact, Context

    from ._request import Request

FLAVOR = "python_function"
#: Loaders of frameworks whose predictions of a row do not depend on the other rows, and the methods that is true of.
_ROW_WISE = {"mlflow.catboost", "mlflow.lightgbm", "mlflow.sklearn", "mlflow.xgboost"}
_METHODS = {"predict", "predict_proba"}
#: MLflow's codes of errors that are the caller's.
_INPUT_ERRORS = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE"}
#: What MLflow tells the author of any Python model, each time that it is loaded.
_ADVICE = "Add type hints to the `predict` method"
#: Longest text of MLflow's that a client is shown.
_LONGEST = 300


@dataclass(frozen=True)
class MlflowModel:
    """What `load` returns, and the other hooks are given."""

    pyfunc: Any
    #: The signature's input schema; None if the model has no signature.
    schema: Any
    #: Whether the signature came from the type hints of ``predict``, which then checks the input itself.
    typed: bool
    row_wise: bool

    def predict(self, request: Request) -> Any:
        """Predict.

        :raises BadInput: if the input is not what the signature says, or a framework refuses it.
        """
        try:
            return self.pyfunc.predict(request.data, params=request.params)
        except MlflowException as error:
            if error.error_code not in _INPUT_ERRORS:
                raise
            raise BadInput(reason(error)) from error
        except (TypeError, ValueError) as error:
            if not self.row_wise:  # code of the user's, whose errors are not the client's
                raise
            raise BadInput(f"the model refuses the data: {_line(str(error) or type(error).__name__)}") from error


def load(artifact: Artifact, context: Context) -> MlflowModel:
    """Load an artifact by its file MLmodel.

    :raises BadArtifact: if a file is missing or damaged.
    :raises LoadFailed: if MLflow cannot serve it here; the text names what is missing.
    """
    path = str(artifact.path)
    if "%" in path or "#" in path:
        raise LoadFailed(f"{artifact.name!r} has '%' or '#' in its path, which MLflow takes for a URL's; rename it")
    flavor = _flavor(artifact)
    if flavor.get("code") and not artifact.manifest.isolated and context.settings.multi_model:
        raise LoadFailed(
            f"{artifact.name!r} brings modules of its own (code_paths), which other models of the same process would "
            'import instead of theirs; give it a process: {"isolated": true} in a manymodels.json beside its MLmodel'
        )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # What it would warn of are the notes below.
            pyfunc = mlflow.pyfunc.load_model(path, suppress_warnings=True)
    except OSError as error:
        what = Path(error.filename or "").name
        raise BadArtifact(f"{what!r} of {artifact.name!r} cannot be read: {error.strerror or error}") from error
    except (EOFError, pickle.UnpicklingError) as error:
        raise BadArtifact(f"a pickle in {artifact.name!r} is corrupt or truncated: {_line(str(error))}") from error
    except (ModuleNotFoundError, MlflowException) as error:
        if (module := _missing_module(error)) is not None:
            raise LoadFailed(
                f"{artifact.name!r} needs the module {module!r}; install it in the server's environment"
                f"{_saved_with(artifact)}"
            ) from error
        if not isinstance(error, MlflowException):
            raise
        text = str(error.message).replace(path, artifact.name)
        raise LoadFailed(f"MLflow cannot load {artifact.name!r}: {_line(text)}") from error
    texts = [f"{warning.category.__name__}: {_line(str(warning.message))}" for warning in caught]
    for text in dict.fromkeys(_differences(artifact, flavor) + [text for text in texts if _ADVICE not in text]):
        context.note(text)
    return MlflowModel(
        pyfunc=pyfunc,
        schema=pyfunc.metadata.get_input_schema(),
        typed=bool(pyfunc.metadata.to_dict().get("is_signature_from_type_hint")),
        row_wise=flavor.get("loader_module") in _ROW_WISE and flavor.get("predict_fn", "predict") in _METHODS,
    )


def reason(error: MlflowException) -> str:
    """Return what MLflow says is wrong with an input, without the input."""
    text = str(error.message)
    if text.startswith("Failed to enforce schema"):
        text = text.rpartition("Error: ")[2]
    return f"the input is not what the model takes: {_line(text.removeprefix('Invalid input. '))}"


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def _flavor(artifact: Artifact) -> dict[str, Any]:
    """Return what MLmodel says of the flavor that is served."""
    try:
        flavors = Model.load(str(artifact.path)).flavors
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError, MlflowException) as error:
        raise BadArtifact(f"MLmodel of {artifact.name!r} is not one of MLflow's: {_line(str(error))}") from error
    flavor = flavors.get(FLAVOR) if isinstance(flavors, dict) else None
    if not isinstance(flavor, dict) or not isinstance(flavor.get("loader_module"), str):
        there = ", ".join(map(str, flavors)) if isinstance(flavors, dict) and flavors else "none"
        raise LoadFailed(
            f"{artifact.name!r} has no flavor {FLAVOR}, the one that any MLflow model is asked by (flavors: {there})"
        )
    return flavor


def _missing_module(error: BaseException | None) -> str | None:
    """Return the module whose lack led to an error; MLflow wraps what a model's own code raises."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name
        error = error.__cause__ or error.__context__
    return None


def _differences(artifact: Artifact, flavor: dict[str, Any]) -> list[str]:
    """Return in what the server differs from what the model was saved with; nothing is installed for it."""
    found = []
    trained = str(flavor.get("python_version") or platform.python_version())
    if trained.split(".")[:2] != platform.python_version().split(".")[:2]:
        found.append(f"saved with Python {trained}, served with {platform.python_version()}")
    for requirement in _requirements(artifact):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            # The whole of MLflow is not needed to load a model.
            if requirement.name != "mlflow":
                found.append(f"requires {requirement}; no distribution of that name is installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"requires {requirement}, served with {version}")
    return found


def _requirements(artifact: Artifact) -> list[Requirement]:
    path = artifact.path / "requirements.txt"
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            requirement = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:  # an option or a comment: it says nothing of a version
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def _saved_with(artifact: Artifact) -> str:
    wanted = ", ".join(map(str, _requirements(artifact)))
    return f" (the model was saved with {wanted})" if wanted else ""

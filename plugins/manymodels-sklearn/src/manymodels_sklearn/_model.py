"""The loaded model and what requests need to know of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from manymodels.errors import LoadFailed

from ._claim import model_file
from ._texts import text_columns
from ._unpickle import unpickle

if TYPE_CHECKING:
    from manymodels import Artifact, Context

METADATA = "metadata.json"

#: Containers longer than this hold vocabularies or training data, not estimators.
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class SklearnModel:
    """An estimator; its own attributes are reached through it, so that a script can use it as one."""

    estimator: Any
    #: The content of ``metadata.json``, or None.
    metadata: Any
    #: Names of the columns it was trained on, in their order; None if they had none.
    feature_names: tuple[str, ...] | None
    #: Columns it takes; None if it does not say, as text pipelines do not.
    width: int | None
    #: Whether it looks columns up by name, so that only a DataFrame will do.
    needs_frame: bool
    #: Whether it takes texts instead of rows.
    takes_documents: bool
    #: Whether all columns are numbers; False where that cannot be told.
    numeric: bool
    #: Places and names of columns that hold text, whatever it looks like.
    texts: frozenset[int | str]
    #: Places of those that vectorizers tell the words of.
    documents: tuple[int, ...]

    @cached_property
    def columns(self) -> Any:
        """The feature names as pandas' Index, which to make takes longer than a DataFrame of one row."""
        import pandas as pd

        return pd.Index(self.feature_names or ())

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the estimator."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.estimator, name)


def load(artifact: Artifact, context: Context) -> SklearnModel:
    """Load an artifact's model file and metadata.

    :raises LoadFailed: with the file and what is wrong with it.
    """
    name = model_file(artifact)
    if name is None:
        raise LoadFailed(
            f"{artifact.name!r} holds neither model.joblib nor exactly one *.joblib, *.pkl or *.pickle; "
            "name its model model.joblib"
        )
    return model_of(unpickle(artifact.path / name, context), artifact, name)


def model_of(estimator: Any, artifact: Artifact, name: str) -> SklearnModel:
    """Return what the hooks of this plugin serve an estimator as, whatever file it was read from.

    :param name: the file, for messages.
    :raises LoadFailed: if it cannot predict, or ``metadata.json`` is not valid.
    """
    if not callable(getattr(estimator, "predict", None)):
        raise LoadFailed(
            f"{name} of {artifact.name!r} holds a {type(estimator).__name__}, which has no predict; "
            "save the fitted estimator itself"
        )
    # Rows that came without names are in the model's order by contract; a DataFrame made only to
    # say so would cost five times the prediction of a small model.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    parts = _parts(estimator)
    _forbid_parallel(parts)
    names = getattr(estimator, "feature_names_in_", None)
    width = getattr(estimator, "n_features_in_", None if names is None else len(names))
    feature_names = None if names is None else tuple(map(str, names))
    takes_documents = width is None and any(hasattr(part, "build_analyzer") for part in parts)
    columns = text_columns(estimator, width)
    texts = {0} if takes_documents else columns.categories | columns.documents
    return SklearnModel(
        estimator=estimator,
        metadata=_metadata(artifact),
        feature_names=feature_names,
        width=width,
        needs_frame=names is not None and any(map(_may_use_names, parts)),
        takes_documents=takes_documents,
        numeric=not any(map(_may_take_text, parts)),
        texts=frozenset(texts).union(feature_names[place] for place in texts if feature_names is not None),
        documents=tuple(sorted(columns.documents)),
    )


def _metadata(artifact: Artifact) -> Any:
    try:
        return msgspec.json.decode((artifact.path / METADATA).read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{METADATA} of {artifact.name!r} is not valid JSON: {error}") from error


def _parts(estimator: Any) -> list[Any]:
    """Return the estimator and all estimators inside it, fitted clones included.

    ``get_params`` would not do: it shows the unfitted originals of what a search, a vote or a column
    transformer fitted, and estimators of unusual constructors fail it.
    """
    parts: list[Any] = []
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            waiting.extend(item.values() if len(item) <= _MOST_PARTS else ())
        elif isinstance(item, np.ndarray):
            waiting.extend(item.ravel().tolist() if item.dtype == object and item.size <= _MOST_PARTS else ())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item if len(item) <= _MOST_PARTS else ())
        elif _is_estimator(item):
            parts.append(item)
            waiting.extend(vars(item).values())
    return parts


def _is_estimator(item: Any) -> bool:
    if isinstance(item, type) or not hasattr(item, "__dict__"):
        return False
    return any(hasattr(item, method) for method in ("get_params", "predict", "predict_proba", "transform"))


def _forbid_parallel(parts: list[Any]) -> None:
    """Set every ``n_jobs`` to 1.

    A worker serves many models on one core. With more jobs joblib starts processes or threads for
    each request, which costs more than most predictions and outlives the request.
    """
    for part in parts:
        if vars(part).get("n_jobs") in (None, 1):
            continue
        try:
            part.set_params(n_jobs=1)  # tells a native library below, as xgboost's, too
        except (AttributeError, RuntimeError, TypeError, ValueError):
            part.n_jobs = 1  # no estimator by scikit-learn's rules for constructors


def _may_take_text(part: Any) -> bool:
    return (
        _may_use_names(part)
        or hasattr(part, "categories_")
        or type(part).__name__ in ("SimpleImputer", "DummyClassifier", "DummyRegressor")
        or type(part).__name__.startswith("HistGradientBoosting")
    )


def _may_use_names(part: Any) -> bool:
    kind = type(part)
    return kind.__name__ in ("ColumnTransformer", "FunctionTransformer") or not kind.__module__.startswith("sklearn.")

"""A loaded CatBoost model. Importing this module imports catboost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import catboost
import numpy as np
import numpy.typing as npt

from manymodels import Artifact, Context
from manymodels.errors import LoadFailed

from . import _files
from ._rows import Columns

_RESAVE = 'save it again with model.save_model("model.cbm")'
#: What the setting ``prediction_type`` may be: of any model, and of classifiers.
_TYPES = ("RawFormulaVal", "Exponent")
_CLASSIFIERS = ("Class", "Probability", "LogProbability")


@dataclass(frozen=True)
class CatBoostModel:
    """A model of CatBoost's and how it predicts."""

    model: catboost.CatBoost
    columns: Columns
    prediction_type: str
    threads: int

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Predict rows; labels of a single target come as one a row."""
        # The class's own predict would take the wrapper's default, and has other parameters.
        answer = np.asarray(
            catboost.CatBoost.predict(self.model, rows, prediction_type=self.prediction_type, thread_count=self.threads)
        )
        return answer[:, 0] if self.prediction_type == "Class" and answer.shape[1:] == (1,) else answer


def load(artifact: Artifact, context: Context) -> CatBoostModel:
    """Load the artifact's one model.

    :raises LoadFailed: if it holds none or several, or CatBoost cannot read it.
    """
    found = _files.models(artifact)
    if not found:
        raise LoadFailed(f"{artifact.name!r} holds no CatBoost model; {_RESAVE}")
    if len(found) > 1:
        raise LoadFailed(f"{artifact.name!r} holds several CatBoost models ({', '.join(found)}); keep one")
    if _files.is_pickle(artifact, found[0]):
        model = context.unpickle(artifact.path / found[0], f"install it, or {_RESAVE}")
    else:
        model = _open_native(artifact, found[0])
    if not isinstance(model, catboost.CatBoost):
        raise LoadFailed(f"{artifact.name!r} is a pickled {type(model).__qualname__}, not a model of CatBoost's")
    if not model.is_fitted():
        raise LoadFailed(f"{artifact.name!r} is a {type(model).__name__} that was not fitted")
    if model.get_embedding_feature_indices():
        raise LoadFailed(f"{artifact.name!r} takes embeddings, which requests cannot hold")
    names = tuple(model.feature_names_)
    columns = Columns(
        width=len(names),
        names=None if names == tuple(map(str, range(len(names)))) else names,
        categories=frozenset(model.get_cat_feature_indices()),
        texts=frozenset(model.get_text_feature_indices()),
    )
    return CatBoostModel(model, columns, _prediction_type(model, context), context.settings.threads)


def _open_native(artifact: Artifact, name: str) -> catboost.CatBoost:
    try:
        return catboost.CatBoost().load_model(str(artifact.path / name), format="cbm")
    except catboost.CatBoostError as error:
        # The message begins with a file and line of CatBoost's sources.
        reason = re.sub(r"^\S+:\d+: ", "", " ".join(str(error).split()))
        raise LoadFailed(
            f"{name!r} of {artifact.name!r} is no CatBoost model, or a damaged one: {reason[:200]}; {_RESAVE}"
        ) from error


def _prediction_type(model: catboost.CatBoost, context: Context) -> str:
    classifies = len(model.classes_) > 0
    chosen = context.options.get("prediction_type")
    if chosen is None:
        if classifies:
            return "Class" if isinstance(model, catboost.CatBoostClassifier) else "Probability"
        loss = str(model.get_all_params().get("loss_function", ""))
        # As CatBoostRegressor.predict, which a model in CatBoost's format does not know it was.
        return "Exponent" if loss.startswith(("Poisson", "Tweedie")) else "RawFormulaVal"
    offered = (*_TYPES, *(_CLASSIFIERS if classifies else ()))
    if chosen not in offered:
        raise LoadFailed(
            f"the setting 'prediction_type' of {context.target_model!r} is {chosen!r}; it may be {', '.join(offered)}"
        )
    return str(chosen)

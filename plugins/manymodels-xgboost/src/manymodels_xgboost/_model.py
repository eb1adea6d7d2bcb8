"""A loaded XGBoost model. Importing this module imports xgboost."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost
from xgboost.core import XGBoostError

from manymodels import Artifact, Context
from manymodels.errors import BadInput, LoadFailed, PredictionFailed

from . import _files, _replies

_RESAVE = 'save it again with save_model("model.ubj")'


@dataclass(frozen=True)
class XGBoostModel:
    """A Booster and what predicting with it takes."""

    booster: xgboost.Booster
    #: The scikit-learn wrapper it was pickled in, or None.
    wrapper: xgboost.XGBModel | None
    feature_names: tuple[str, ...] | None
    num_features: int
    objective: str
    num_class: int
    #: Boosting rounds that predict, half open; (0, 0): all. Early stopping leaves those after the best out.
    rounds: tuple[int, int]
    #: The value that stands for a missing one, beside NaN in sparse rows.
    missing: float
    #: False for linear boosters, which predict from a DMatrix only.
    inplace: bool
    threads: int
    #: Keys of the selected output; empty: the plain prediction.
    output: tuple[str, ...]

    def predict(self, rows: Any) -> npt.NDArray[Any] | list[dict[str, Any]]:
        """Predict float32 rows as the wrapper's ``predict`` or the Booster's does.

        :raises BadInput: for infinite numbers, where there are no splits.
        :raises PredictionFailed: if XGBoost refuses, without its native stack.
        """
        try:
            raw = self._raw(rows)
        except XGBoostError as error:
            raise PredictionFailed(f"XGBoost cannot predict: {_sentence(error)}") from error
        return self.answer(raw)

    def answer(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any] | list[dict[str, Any]]:
        """Turn the Booster's predictions into what this model answers with."""
        if self.output:
            return _replies.select(raw, self.output, self.objective, self.num_class)
        return _labels(raw, self.wrapper) if isinstance(self.wrapper, xgboost.XGBClassifier) else raw

    def _raw(self, rows: Any) -> npt.NDArray[Any]:
        # One row takes 140 us in place, 200 us by way of a DMatrix, 230 us by the wrapper's predict.
        if self.inplace:
            raw: npt.NDArray[Any] = self.booster.inplace_predict(
                rows, iteration_range=self.rounds, missing=self.missing, validate_features=False
            )
            return raw
        numbers = rows.data if hasattr(rows, "tocsr") else rows
        if np.isinf(numbers).any() and not np.isinf(self.missing):
            raise BadInput("the model takes finite numbers of float32 only; one sent is infinite, or beyond 3.4e38")
        matrix = xgboost.DMatrix(rows, missing=self.missing, nthread=self.threads)
        return self.booster.predict(matrix, iteration_range=self.rounds, validate_features=False)


def load(artifact: Artifact, context: Context) -> XGBoostModel:
    """Load the artifact's one model.

    :raises LoadFailed: if it holds none or several, XGBoost cannot read it, or the option
        ``output`` asks for what it cannot answer.
    """
    name = _only(artifact)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = _describe(_open(artifact, name, context), context)
    except XGBoostError as error:
        raise LoadFailed(
            f"{name!r} of {artifact.name!r} is damaged, or not for XGBoost {xgboost.__version__}: "
            f"{_sentence(error)}; where it was trained, {_RESAVE}"
        ) from error
    for warning in caught:
        context.note(_sentence(warning.message))
    if model.rounds[1]:
        context.note(f"training was stopped early: the first {model.rounds[1]} rounds predict")
    return model


def _only(artifact: Artifact) -> str:
    found = _files.models(artifact)
    if not found:
        raise LoadFailed(f"{artifact.name!r} holds no XGBoost model; {_RESAVE}, or name the file {_files.STANDARD!r}")
    if len(found) > 1:
        raise LoadFailed(
            f"{artifact.name!r} holds several XGBoost models ({', '.join(found)}), and no ensemble is made of them, "
            f"as SageMaker's XGBoost container does; keep one, or name it {_files.STANDARD!r}"
        )
    return found[0]


def _open(artifact: Artifact, name: str, context: Context) -> Any:
    root = artifact.pickle_root(name)
    if root is None:
        return _open_native(artifact, name)
    if not _files.is_pickle(artifact, name):
        raise LoadFailed(f"{name!r} of {artifact.name!r} is a pickled {root}, not a model of XGBoost's")
    return context.unpickle(artifact.path / name, f"install it, or {_RESAVE}")


def _open_native(artifact: Artifact, name: str) -> xgboost.Booster:
    path = artifact.path / name
    content = bytearray(path.stat().st_size)
    with path.open("rb") as file:
        file.readinto(content)
    if not content:  # XGBoost 3.2 ends the process over an empty buffer
        raise LoadFailed(f"{name!r} of {artifact.name!r} is empty; {_RESAVE}")
    booster = xgboost.Booster()
    try:
        booster.load_model(content)
    except XGBoostError as error:
        if content.startswith(b"{"):
            raise
        raise LoadFailed(
            f"{name!r} of {artifact.name!r} is neither JSON nor UBJSON. If it is in XGBoost's older binary format, "
            f"which XGBoost 3.1 and later do not read, load it with XGBoost 3.0 and {_RESAVE}"
        ) from error
    return booster


def _describe(opened: Any, context: Context) -> XGBoostModel:
    wrapper = opened if isinstance(opened, xgboost.XGBModel) else None
    booster = wrapper.get_booster() if wrapper is not None else opened
    if not isinstance(booster, xgboost.Booster):
        raise LoadFailed(
            f"{context.target_model!r} is a pickled {type(booster).__qualname__}, not a model of XGBoost's"
        )
    booster.set_param({"nthread": context.settings.threads})
    learner = json.loads(booster.save_config())["learner"]
    shape, train = learner["learner_model_param"], learner["learner_train_param"]
    objective = train["objective"] if int(shape.get("num_target", 1)) < 2 else "several targets"
    linear = train["booster"] == "gblinear"
    best = booster.attr("best_iteration")
    names = booster.feature_names
    return XGBoostModel(
        booster=booster,
        wrapper=wrapper,
        feature_names=None if names is None else tuple(names),
        num_features=booster.num_features(),
        objective=objective,
        num_class=int(shape["num_class"]),
        rounds=(0, 0) if best is None or linear else (0, int(best) + 1),
        missing=np.nan if wrapper is None else wrapper.missing,
        inplace=not linear,
        threads=context.settings.threads,
        output=_output(context, objective),
    )


def _output(context: Context, objective: str) -> tuple[str, ...]:
    option = context.options.get("output", "")
    if not isinstance(option, str):
        raise LoadFailed(f"the setting 'output' of {context.target_model!r} must be a string of keys joined by commas")
    keys = tuple(option.replace(" ", "").lower().split(",")) if option else ()
    offered = _replies.selectable(objective)
    for key in keys:
        if key not in offered:
            raise LoadFailed(
                f"the setting 'output' of {context.target_model!r} names {key!r}; "
                f"a model of its objective ({objective}) answers with {', '.join(offered)}"
            )
    return keys


def _labels(raw: npt.NDArray[Any], classifier: xgboost.XGBClassifier) -> npt.NDArray[Any]:
    """Turn raw predictions into what ``XGBClassifier.predict`` returns, by its own rules."""
    if raw.ndim > 1 and classifier.n_classes_ != 2:
        return np.asarray(raw.argmax(axis=1))
    if raw.ndim > 1 and raw.shape[1] != 1:  # several labels at once
        return (raw > 0.5).astype(np.float64)
    if classifier.objective == "multi:softmax":
        return raw.astype(np.int32)
    return (raw > 0.5).astype(np.int64).reshape(len(raw))


def _sentence(error: object) -> str:
    """Return an error's message without XGBoost's time, source line and native stack, or Python's file names."""
    text = re.sub(r" from '[^']*'", "", str(error).partition("Stack trace:")[0])
    return " ".join(re.sub(r"^\[[\d:]+\] (WARNING: )?\S+:\d+: ", "", text).split())

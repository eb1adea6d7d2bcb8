"""A loaded LightGBM model. Importing this module imports lightgbm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.exceptions import NotFittedError

from manymodels import Artifact, Context
from manymodels.errors import LoadFailed

from . import _files, _text
from ._rows import Categories

_RESAVE = 'save it again with booster.save_model("model.txt")'


@dataclass(frozen=True)
class LightGBMModel:
    """A Booster and what predicting with it takes."""

    booster: lightgbm.Booster
    #: Labels of the classifier it was pickled in, by class; None: the Booster's values are the answer.
    classes: npt.NDArray[Any] | None
    feature_names: tuple[str, ...] | None
    num_features: int
    #: Of the columns that were pandas' categories in training, by index.
    categories: dict[int, Categories]
    #: Boosting rounds that predict; -1: all. Early stopping leaves those after the best out.
    rounds: int
    #: Of prediction, the number of threads among them.
    parameters: dict[str, Any]

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Predict float64 rows as the wrapper's ``predict`` or the Booster's does."""
        return self.answer(self.booster.predict(rows, num_iteration=self.rounds, **self.parameters))

    def answer(self, raw: Any) -> npt.NDArray[Any]:
        """Turn the Booster's predictions into what this model answers with."""
        if self.classes is None:
            return np.asarray(raw)
        return np.asarray(self.classes[raw.argmax(axis=1) if raw.ndim > 1 else (raw > 0.5).astype(int)])


def load(artifact: Artifact, context: Context) -> LightGBMModel:
    """Load the artifact's one model.

    :raises LoadFailed: if it holds none or several, or LightGBM cannot read it.
    """
    found = _files.models(artifact)
    if not found:
        raise LoadFailed(f"{artifact.name!r} holds no LightGBM model; {_RESAVE}")
    if len(found) > 1:
        raise LoadFailed(f"{artifact.name!r} holds several LightGBM models ({', '.join(found)}); keep one")
    opened = (
        context.unpickle(artifact.path / found[0], f"install it, or {_RESAVE}")
        if _files.is_pickle(artifact, found[0])
        else _open_text(artifact, found[0])
    )
    wrapper = opened if isinstance(opened, lightgbm.LGBMModel) else None
    booster = opened if wrapper is None else _fitted(wrapper, artifact)
    if not isinstance(booster, lightgbm.Booster):
        raise LoadFailed(f"{artifact.name!r} is a pickled {type(booster).__qualname__}, not a model of LightGBM's")
    rounds = booster.best_iteration
    if rounds > 0:
        context.note(f"training was stopped early: the first {rounds} rounds predict")
    names = tuple(booster.feature_name())
    return LightGBMModel(
        booster=booster,
        classes=_classes(wrapper),
        feature_names=None if names == tuple(f"Column_{index}" for index in range(len(names))) else names,
        num_features=len(names),
        categories=_categories(booster, context),
        rounds=rounds if rounds > 0 else -1,
        parameters={**_early_exit(wrapper), "num_threads": context.settings.threads},
    )


def _open_text(artifact: Artifact, name: str) -> lightgbm.Booster:
    content = (artifact.path / name).read_bytes()
    try:
        _text.check(content)
        return lightgbm.Booster(model_str=content.decode())
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        raise LoadFailed(f"{name!r} of {artifact.name!r} is no LightGBM model in text: {error}; {_RESAVE}") from error


def _fitted(wrapper: lightgbm.LGBMModel, artifact: Artifact) -> Any:
    try:
        return wrapper.booster_
    except NotFittedError as error:
        raise LoadFailed(f"{artifact.name!r} is a {type(wrapper).__name__} that was not fitted") from error


def _classes(wrapper: lightgbm.LGBMModel | None) -> npt.NDArray[Any] | None:
    # With an objective of its user's own a classifier answers with values, as its predict does.
    if not isinstance(wrapper, lightgbm.LGBMClassifier) or callable(wrapper.objective_):
        return None
    return np.asarray(wrapper.classes_)


def _early_exit(wrapper: lightgbm.LGBMModel | None) -> dict[str, Any]:
    """Return what a wrapper's ``predict`` hands to its Booster of the parameters it was made with."""
    parameters = {} if wrapper is None else wrapper.get_params()
    return {name: value for name, value in parameters.items() if name.startswith("pred_early_stop")}


def _categories(booster: lightgbm.Booster, context: Context) -> dict[int, Categories]:
    """Return the categories of the columns that pandas numbered; LightGBM keeps them without saying of which column."""
    known = booster.pandas_categorical or []
    if not known:
        return {}
    told = re.search(r"^\[categorical_feature: ([\d,]+)\]$", booster.model_to_string(num_iteration=1), re.MULTILINE)
    columns = [int(column) for column in told[1].split(",")] if told else []
    if len(columns) != len(known):
        context.note(
            f"trained with {len(known)} columns of categories, {len(columns)} of them unordered: "
            "it cannot be told which is which, so categories are to be sent as their codes"
        )
        return {}
    return dict(zip(sorted(columns), map(Categories, known), strict=True))

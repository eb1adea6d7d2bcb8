"""Which files of an artifact are CatBoost models, told by their names and by what pickles hold."""

from __future__ import annotations

from manymodels import Artifact

_PICKLES = ("*.joblib", "*.pkl", "*.pickle", "*.sav")


def models(artifact: Artifact) -> list[str]:
    """Return the names of the artifact's CatBoost models."""
    return [*artifact.match("*.cbm"), *(name for name in artifact.match(*_PICKLES) if is_pickle(artifact, name))]


def is_pickle(artifact: Artifact, name: str) -> bool:
    """Say whether the file is a pickle, or joblib's, of a class of CatBoost's."""
    return (artifact.pickle_root(name) or "").startswith("catboost.")

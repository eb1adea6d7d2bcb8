"""Which files of an artifact are LightGBM models, told by their names and first bytes."""

from __future__ import annotations

import re

from manymodels import Artifact

_BY_NAME = ("*.lgb", "*.lgbm", "*.lightgbm")
_BY_CONTENT = ("*.txt", "*.model", "*.joblib", "*.pkl", "*.pickle", "*.sav")

#: What ``Booster.save_model`` writes first; the carriage return comes from whoever converted its lines.
_HEAD = re.compile(rb"tree\r?\nversion=")


def models(artifact: Artifact) -> list[str]:
    """Return the names of the artifact's LightGBM models."""
    return [
        *artifact.match(*_BY_NAME),
        *(name for name in artifact.match(*_BY_CONTENT) if _is_ours(artifact, name)),
    ]


def _is_ours(artifact: Artifact, name: str) -> bool:
    # What begins as a pickle does is no text; and what it holds has been read for the other plugins, too.
    return _is_text(artifact, name) if artifact.pickle_root(name) is None else is_pickle(artifact, name)


def is_pickle(artifact: Artifact, name: str) -> bool:
    """Say whether the file is a pickle, or joblib's, of a class of LightGBM's."""
    return (artifact.pickle_root(name) or "").startswith("lightgbm.")


def _is_text(artifact: Artifact, name: str) -> bool:
    with (artifact.path / name).open("rb") as file:
        return _HEAD.match(file.read(16)) is not None

"""Which files of an artifact are XGBoost models, told by their names and first bytes."""

from __future__ import annotations

import re

from manymodels import Artifact

#: The name SageMaker's XGBoost container saves its models under, whatever their format.
STANDARD = "xgboost-model"
_BY_NAME = ("*.ubj", "*.xgb", "*.bst")
_BY_CONTENT = ("*.json", "*.model", "*.bin", "*.joblib", "*.pkl", "*.pickle", "*.sav")

# Enough for what stands before "learner", and for its first key. That key tells a model from a
# configuration written by Booster.save_config; "version" may stand at either end.
_HEAD = 256
_SIGNATURE = re.compile(
    rb'\{\s*(?:"version"\s*:\s*\[[\d\s,]*\]\s*,\s*)?"learner"\s*:\s*\{\s*"attributes"'  # JSON
    rb"|\{L\x00{7}\x07learner\{L\x00{7}\x0aattributes"  # UBJSON
    rb"|binf|\x00\x00\x00\x3f"  # XGBoost's own format until 3.0; without a header, a base_score of 0.5
)


def models(artifact: Artifact) -> list[str]:
    """Return the names of the artifact's XGBoost models: the standard one alone if it is there."""
    named = artifact.match(STANDARD)
    return named or [
        *artifact.match(*_BY_NAME),
        *(name for name in artifact.match(*_BY_CONTENT) if _is_ours(artifact, name)),
    ]


def _is_ours(artifact: Artifact, name: str) -> bool:
    # What begins as a pickle does, no native model does; and what it holds has been read for the other plugins, too.
    if artifact.pickle_root(name) is None:
        return _is_native(artifact, name)
    return is_pickle(artifact, name)


def is_pickle(artifact: Artifact, name: str) -> bool:
    """Say whether the file is a pickle, or joblib's, of a class of XGBoost's."""
    return (artifact.pickle_root(name) or "").startswith("xgboost.")


def _is_native(artifact: Artifact, name: str) -> bool:
    with (artifact.path / name).open("rb") as file:
        return _SIGNATURE.match(file.read(_HEAD)) is not None

"""The skops plugin: scikit-learn models in a format that holds no pickle, answered as manymodels-sklearn does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import manymodels_sklearn

# Hooks are functions with a mark on them: taken over, these are this plugin's own.
from manymodels_sklearn import accelerate, batch, input_fn, output_fn, predict_fn, schema

from manymodels import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from manymodels import Artifact, Context, Golden

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accelerate",
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


@hookimpl
def claim(artifact: Artifact) -> str | None:
    """Claim an artifact with ``*.skops`` at the top."""
    return "skops" if artifact.match("*.skops") else None


@hookimpl
def load(artifact: Artifact, context: Context) -> Any:
    """Load the artifact's one skops file, if it holds trusted types only.

    :raises manymodels.errors.LoadFailed: naming the types that are not trusted, or what is wrong with the file.
    """
    from . import _file  # imports skops, which the front process must not

    return _file.load(artifact, context)


@hookimpl
def sample_artifact(path: Path) -> Sequence[Golden]:
    """Write a logistic regression."""
    from . import _sample

    return _sample.write(path)


@hookimpl
def warm_up_imports() -> Sequence[str]:
    """Name what scikit-learn's plugin does, and skops."""
    return (*manymodels_sklearn.warm_up_imports(), "skops.io")

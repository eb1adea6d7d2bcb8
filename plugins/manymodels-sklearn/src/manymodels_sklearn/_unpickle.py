"""Read a model file, and note what scikit-learn says to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manymodels import Context

_REMEDY = "install it in the server's environment, or ship it with the model as code/inference.py"


def unpickle(path: Path, context: Context) -> Any:
    """Return the object that a pickle or joblib file holds; note what scikit-learn warns of.

    :raises LoadFailed: with what is wrong with it.
    """
    with noting(context):
        return context.unpickle(path, _REMEDY)


@contextmanager
def noting(context: Context) -> Iterator[None]:
    """Note what scikit-learn warns of while it makes an estimator, such as another version's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for text in dict.fromkeys(_describe(warning.message) for warning in caught):
                context.note(text)


def _describe(warning: Warning | str) -> str:
    from sklearn.exceptions import InconsistentVersionWarning

    if isinstance(warning, InconsistentVersionWarning):
        trained, served = warning.original_sklearn_version, warning.current_sklearn_version
        return f"trained with scikit-learn {trained}, served with {served}"
    return f"{type(warning).__name__}: {warning}"

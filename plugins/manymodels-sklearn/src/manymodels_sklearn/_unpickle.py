"""Read a model file, saying in a sentence what is wrong with it."""

from __future__ import annotations

import lzma
import pickle
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymodels.errors import BadArtifact, LoadFailed

if TYPE_CHECKING:
    from manymodels import Context

#: What joblib and pickle raise for bytes that are not, or no longer, what was saved. A changed byte
#: may also ask for an opcode or a memo that does not exist (KeyError, IndexError).
_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    pickle.UnpicklingError,
    zlib.error,
)

#: How pickle says that a module lacks a class, by protocol. The whole text may hold paths of the server.
_NO_CLASS = (
    re.compile(r"attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'"),
    re.compile(r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'"),
)

_SHIP_IT = "install it in the server's environment, or ship it with the model as code/inference.py"


def unpickle(path: Path, context: Context) -> Any:
    """Return the object that a pickle or joblib file holds; note what scikit-learn warns of.

    :raises BadArtifact: if the file is empty, truncated or corrupt.
    :raises LoadFailed: if a module or class it needs does not exist.
    """
    from . import _joblib

    what = f"{path.name} of {context.target_model!r}"
    with noting(context):
        try:
            return _joblib.load(path)
        except ModuleNotFoundError as error:
            raise LoadFailed(f"{what} needs the module {error.name!r}; {_SHIP_IT}") from error
        except AttributeError as error:
            found = next(filter(None, (pattern.search(str(error)) for pattern in _NO_CLASS)), None)
            if found is None:
                raise
            missing = f"{found['module']}.{found['name']}"
            raise LoadFailed(f"{what} needs {missing}, which does not exist; {_SHIP_IT}") from error
        except _DAMAGE as error:
            reason = getattr(error, "strerror", None) or error  # an OSError's whole text may hold a path
            raise BadArtifact(
                f"{what} is corrupt or truncated, or was saved with versions that do not fit "
                f"({type(error).__name__}: {reason}); save it again with the versions of the server"
            ) from error


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

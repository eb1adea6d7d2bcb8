"""Read a skops file, trusting nothing that skops does not, or the operator."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import skops.io
from manymodels_sklearn import model_of, noting
from skops.io.exceptions import UntrustedTypesFoundException

from manymodels.errors import BadArtifact, LoadFailed

if TYPE_CHECKING:
    from manymodels import Artifact, Context

#: Types, joined by commas, that are trusted as well. Of the process and not of the artifact, whose owner may be anyone.
TRUSTED = "MANYMODELS_SKOPS_TRUSTED"

#: What skops, zipfile and the classes being made raise for bytes that are not what was saved.
_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
#: A file may unpack to this many bytes, or to this many times its own.
_UNPACKED, _RATIO = 64 << 20, 200


def load(artifact: Artifact, context: Context) -> Any:
    """Return the estimator as manymodels-sklearn serves it.

    :raises BadArtifact: if the file is no skops file, damaged, or unpacks to far more than it is.
    :raises LoadFailed: if there are several, or it holds a type that is not trusted or not installed.
    """
    names = artifact.match("*.skops")
    if len(names) != 1:
        raise LoadFailed(
            f"{artifact.name!r} holds {len(names)} files *.skops ({', '.join(names[:5])}); it has to be one"
        )
    (name,) = names
    with noting(context):
        estimator = _read(artifact.path / name, f"{name} of {artifact.name!r}")
    return model_of(estimator, artifact, name)


def _read(path: Path, what: str) -> Any:
    trusted = [name.strip() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()]
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(_UNPACKED, _RATIO * path.stat().st_size):
            raise BadArtifact(f"{what} unpacks to {unpacked} bytes, which is more than {_RATIO} times its own")
        return skops.io.load(path, trusted=trusted)
    except UntrustedTypesFoundException as error:
        types = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
        listed = ", ".join(types[:10]) + (f" and {len(types) - 10} more" if len(types) > 10 else "")
        raise LoadFailed(
            f"{what} holds types that skops does not trust: {listed}; who runs the server may allow them by name "
            f"in {TRUSTED}"
        ) from error
    except ModuleNotFoundError as error:
        raise LoadFailed(f"{what} needs the module {error.name!r}; install it in the server's environment") from error
    except zipfile.BadZipFile as error:
        raise BadArtifact(f"{what} is no skops file; save it with skops.io.dump(model, {path.name!r})") from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or error  # an OSError's whole text may hold a path
        raise BadArtifact(
            f"{what} is corrupt, or was saved with versions that do not fit "
            f"({type(error).__name__}: {str(reason)[:200]}); save it again with the versions of the server"
        ) from error

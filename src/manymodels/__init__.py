"""manymodels: one server for thousands of small models, each named by TargetModel."""

from .acceleration import Accelerated, LeftToOriginal
from .artifact import Artifact, Manifest
from .batching import Batch, RowBatch
from .context import Context, ModelSettings
from .golden import Golden
from .hookspecs import hookimpl
from .plugins import Plugins
from .schema import Field, Schema

__version__ = "0.1.0"

__all__ = [
    "Accelerated",
    "Artifact",
    "Batch",
    "Context",
    "Field",
    "Golden",
    "LeftToOriginal",
    "Manifest",
    "ModelSettings",
    "Plugins",
    "RowBatch",
    "Schema",
    "hookimpl",
]

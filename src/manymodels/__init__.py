"""manymodels: one server for thousands of small models, each named by TargetModel."""

from .artifact import Artifact, Manifest
from .batching import Batch, RowBatch
from .context import Context, ModelSettings
from .hookspecs import hookimpl
from .plugins import Plugins

__version__ = "0.1.0"

__all__ = ["Artifact", "Batch", "Context", "Manifest", "ModelSettings", "Plugins", "RowBatch", "hookimpl"]

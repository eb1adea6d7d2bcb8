"""From the name a client sends to a loaded model: the part that SageMaker plays in AWS."""

from .container import Container, SingleModel
from .endpoint import Endpoint
from .role import Role
from .routes import NAME, Routes, Variant

__all__ = ["NAME", "Container", "Endpoint", "Role", "Routes", "SingleModel", "Variant"]

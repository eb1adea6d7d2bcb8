"""From the name a client sends to a loaded model: the part that SageMaker plays in AWS."""

from .container import Container, SingleModel
from .endpoint import Endpoint
from .role import Role
from .routes import NAME, Outputs, Routes, Topics, Variant

__all__ = ["NAME", "Container", "Endpoint", "Outputs", "Role", "Routes", "SingleModel", "Topics", "Variant"]

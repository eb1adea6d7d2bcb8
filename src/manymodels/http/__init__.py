"""HTTP: the container API and the endpoint API on one port."""

from .app import create_app
from .serve import serve

__all__ = ["create_app", "serve"]

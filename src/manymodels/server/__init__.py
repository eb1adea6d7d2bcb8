"""The model server: loads what it is told, answers for it, never evicts on its own."""

from .base import BACKENDS, ModelDescription, ModelServer

__all__ = ["BACKENDS", "ModelDescription", "ModelServer"]

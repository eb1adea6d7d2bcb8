"""Environments of artifacts that name what they need: built by uv, kept by what is in them, shared."""

from .build import Environment
from .environments import Environments, Interpreter
from .requirements import Requirements, read

__all__ = ["Environment", "Environments", "Interpreter", "Requirements", "read"]

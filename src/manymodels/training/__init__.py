"""SageMaker's training contract: what a container does when it is run with the argument ``train``."""

from .run import run

__all__ = ["run"]

"""Invocations whose input and output are objects in S3, and which wait in a queue that outlasts the server."""

from .queue import Queue, Queued
from .runner import Invoker, Outcome, Runner

__all__ = ["Invoker", "Outcome", "Queue", "Queued", "Runner"]

"""What a model server holds at a moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerState:
    """What a model server holds at a moment."""

    #: Models that are loaded.
    models: int
    #: Bytes they take, those about to be loaded included; and those they may.
    bytes: int
    budget: int
    #: Invocations that wait or run.
    waiting: int
    #: Processes that models are in.
    workers: int

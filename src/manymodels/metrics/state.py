"""What a model server, and the disk cache, hold at a moment."""

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


@dataclass(frozen=True)
class DiskCacheState:
    """What the disk cache holds at a moment, and what happened since the server started."""

    #: Bytes of the artifacts in it, and those they may take; all servers that share it counted.
    bytes: int = 0
    budget: int = 0
    #: Artifacts that were found in it, and that were not.
    hits: int = 0
    misses: int = 0
    #: Artifacts deleted to make room, and those thrown away because they were damaged.
    evictions: int = 0
    damaged: int = 0

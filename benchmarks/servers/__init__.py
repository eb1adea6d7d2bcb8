"""The servers under test."""

from __future__ import annotations

from .base import NotSupported, Place, Running, Server, running
from .frameworks import (
    BentoMl,
    BentoMlBatching,
    LitServe,
    LitServeBatching,
    MlServer,
    MlServerBatching,
    RayServe,
    RayServeBatching,
)
from .mms import Mms, MmsTwo
from .ours import Bare, Ours, Plain
from .ours import Mms as OursOnMms
from .web import FastApi, Flask

#: In the order of the tables. Limits come first, then ours.
SERVERS: dict[str, Server] = {
    "bare": Bare(),
    "ours": Ours(),
    "ours-plain": Plain(),
    "ours-mms": OursOnMms(),
    "mms": Mms(),
    "mms-2": MmsTwo(),
    "flask": Flask(),
    "fastapi": FastApi(),
    "mlserver": MlServer(),
    "mlserver-batching": MlServerBatching(),
    "bentoml": BentoMl(),
    "bentoml-batching": BentoMlBatching(),
    "litserve": LitServe(),
    "litserve-batching": LitServeBatching(),
    "ray": RayServe(),
    "ray-batching": RayServeBatching(),
}
OURS = ("ours", "ours-plain", "ours-mms")

__all__ = ["OURS", "SERVERS", "NotSupported", "Place", "Running", "Server", "running"]

"""The servers under test."""

from __future__ import annotations

from .base import NotSupported, Place, Running, Server, running
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
}
OURS = ("ours", "ours-plain", "ours-mms")

__all__ = ["OURS", "SERVERS", "NotSupported", "Place", "Running", "Server", "running"]

"""manymodels, and its HTTP server answering nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..load import Question
from ..models import Model
from .base import PEERS, Place, Server


class Ours(Server):
    """Our server as it comes."""

    name = "ours"
    note = "`manymodels serve STORE`, as it comes"
    loaded = b"load;dur="
    evicts = True
    thousands = True
    options: tuple[str, ...] = ()

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        arguments: list[str | Path] = [place.python, "-m", "manymodels", "serve", place.store]
        if place.share < 1:
            arguments += ["--memory", str(int(place.share * place.size))]
        return [*arguments, "--port", str(place.port), "--log-level", "warning", *self.options]


class Plain(Ours):
    """Our server without acceleration."""

    name = "ours, not accelerated"
    note = "`manymodels serve STORE --accelerate off`"
    scenarios = ("cold", "memory", "throughput", "many")

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return the switch, which versions without acceleration do not mind."""
        return {"MANYMODELS_ACCELERATE": "off"}


class Mms(Ours):
    """Our server with multi-model-server inside."""

    name = "ours, backend mms"
    note = "`manymodels serve STORE --backend mms`: a process for each model, as in multi-model-server"
    options = ("--backend", "mms")
    most = 100
    evicts = False
    thousands = False


class Bare(Server):
    """The HTTP server that ours is built on, answering nothing."""

    name = "bare HTTP server"
    note = "the same HTTP server (uvicorn, uvloop, httptools; one process) answering a constant"
    scenarios = ("startup", "throughput", "overload")

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        options: list[str | Path] = [
            "--app-dir",
            PEERS,
            "--port",
            str(place.port),
            "--no-access-log",
            "--log-level",
            "warning",
        ]
        return [place.python, "-m", "uvicorn", "bare_app:app", *options]

    def question(self, model: Model, row: int) -> Question:
        """Return a request that is answered with the constant."""
        return Question(super().question(model, row).request, 1.0)

"""Servers written by hand on a web framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..environments import Environment
from ..models import Model
from .base import PEERS, WORKERS, Place, Server, held_by_each


class FastApi(Server):
    """FastAPI on uvicorn, with a dictionary of models in each of two workers."""

    name = "FastAPI by hand"
    note = "FastAPI on uvicorn with two workers, a dictionary of models in each, prediction in the event loop"
    environment = Environment("fastapi", ("fastapi", "uvicorn[standard]"))
    evicts = True
    thousands = True

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        options = ["--workers", str(WORKERS), "--port", str(place.port), "--no-access-log", "--log-level", "warning"]
        return [place.python, "-m", "uvicorn", "--app-dir", PEERS, *options, "fastapi_app:app"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return how many models one worker may hold."""
        return {"MAX_MODELS": str(held_by_each(place))}


class Flask(Server):
    """The guide's server: Flask on gunicorn, started for one model."""

    name = "Flask + gunicorn"
    note = "the guide's server: Flask on gunicorn with two synchronous workers, one model per server"
    environment = Environment("flask", ("flask", "gunicorn"))
    most = 1
    where = ["predictions"]

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        options = ["--workers", str(WORKERS), "--bind", f"127.0.0.1:{place.port}", "--log-level", "warning"]
        return [place.python, "-m", "gunicorn", "--chdir", PEERS, *options, "flask_app:app"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return which model it serves."""
        return {"MODEL": str(place.models[0].path)}

    def body(self, model: Model, row: Any) -> Any:
        """Return the body of the guide's requests."""
        return {"features": [row]}

"""Model-serving frameworks, with two workers each, and with their own batching on or off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..environments import Environment
from ..models import Model
from .base import PEERS, Place, Running, Server, held_by_each


class LitServe(Server):
    """LitServe."""

    name = "LitServe"
    note = "two workers; one model per API by itself, so its `predict` has a dictionary of models"
    environment = Environment("litserve", ("litserve",))
    ready = "/health"
    where = ["predictions"]
    batching = "0"

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        return [place.python, PEERS / "litserve_app.py"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return what the application reads."""
        return {"PORT": str(place.port), "BATCHING": self.batching}

    def path(self, model: Model) -> str:
        """Return the path that a model is asked at."""
        return "/predict"

    def body(self, model: Model, row: Any) -> Any:
        """Return the body, which names the model: the application sees no headers."""
        return {"model": model.name, "rows": [row]}


class LitServeBatching(LitServe):
    """LitServe with its batching."""

    name = "LitServe, batching"
    note = "the same with `max_batch_size=64, batch_timeout=0.005`, requests of one model joined"
    batching = "1"


class BentoMl(Server):
    """BentoML."""

    name = "BentoML"
    note = "a service with two workers and a dictionary of models in each, prediction in the event loop"
    environment = Environment("bentoml", ("bentoml",))
    ready = "/readyz"
    service = "Single"

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        options: list[str | Path] = ["--port", str(place.port), "--host", "127.0.0.1", "--working-dir", PEERS]
        return [place.python, "-m", "bentoml", "serve", f"bentoml_service:{self.service}", *options]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return where it keeps its files, and that it tells nobody of its use."""
        return {"BENTOML_HOME": str(place.scratch / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}

    def path(self, model: Model) -> str:
        """Return the path that a model is asked at."""
        return "/predict"

    def body(self, model: Model, row: Any) -> Any:
        """Return the arguments of the service's method."""
        return {"model": model.name, "rows": [row]}


class BentoMlBatching(BentoMl):
    """BentoML with its adaptive batching."""

    name = "BentoML, batching"
    note = "the same with `batchable=True`, requests of one model joined"
    service = "Batching"

    def body(self, model: Model, row: Any) -> Any:
        """Return a batch of one, as a batchable method takes it."""
        return {"inputs": [super().body(model, row)]}


class RayServe(Server):
    """Ray Serve with multiplexed models."""

    name = "Ray Serve"
    note = "`@serve.multiplexed`, two replicas"
    environment = Environment("ray", ("ray[serve]",))
    ready = "/-/healthz"
    evicts = True
    batching = "0"

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        return [place.python, PEERS / "ray_app.py"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return what the application reads; Ray's sockets need a short path."""
        held = str(held_by_each(place))
        own = {"PORT": str(place.port), "BATCHING": self.batching, "MAX_MODELS": held}
        return {**own, "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": "/tmp"}

    def headers(self, model: Model) -> Mapping[str, str]:
        """Return the header that names the model."""
        return {"serve_multiplexed_model_id": model.name}


class RayServeBatching(RayServe):
    """Ray Serve with its batching."""

    name = "Ray Serve, batching"
    note = "the same with `@serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)`, requests of one model joined"
    evicts = False
    batching = "1"


class MlServer(Server):
    """MLServer with its scikit-learn runtime."""

    name = "MLServer"
    note = "its scikit-learn runtime, two parallel workers, models loaded by its repository API"
    # Its parallel workers crash again and again on uvloop 0.22 and newer.
    environment = Environment("mlserver", ("mlserver", "mlserver-sklearn", "uvloop<0.22"))
    ready = "/v2/health/ready"
    where = ["outputs", 0, "data"]
    settings: Mapping[str, Any] = {}

    def prepare(self, place: Place) -> None:
        """Write its settings; the repository is filled when models are loaded."""
        settings = {
            "host": "127.0.0.1",
            "http_port": place.port,
            "grpc_port": place.port + 1,
            "metrics_port": place.port + 2,
            "parallel_workers": 2,
            "load_models_at_startup": False,
            "debug": False,
            "use_structured_logging": False,
        }
        (place.scratch / "repository").mkdir()
        (place.scratch / "repository" / "settings.json").write_text(json.dumps(settings))

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        return [place.python.with_name("mlserver"), "start", place.scratch / "repository"]

    def load(self, running: Running, model: Model) -> None:
        """Put a model into the repository and have it loaded."""
        folder = running.place.scratch / "repository" / model.name
        folder.mkdir()
        settings = {
            "name": model.name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(model.path / "model.joblib")},
            **self.settings,
        }
        (folder / "model-settings.json").write_text(json.dumps(settings))
        status, body = running.request("POST", f"/v2/repository/models/{model.name}/load")
        if status != 200:
            raise RuntimeError(f"loading {model.name} was answered with {status}: {body[:300]!r}")

    def path(self, model: Model) -> str:
        """Return the path that a model is asked at."""
        return f"/v2/models/{model.name}/infer"

    def headers(self, model: Model) -> Mapping[str, str]:
        """Return nothing more: the path names the model."""
        return {}

    def body(self, model: Model, row: Any) -> Any:
        """Return a request of the V2 protocol; a record as columns, which become a DataFrame."""
        if not isinstance(row, dict):
            tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}
            return {"id": "1", "inputs": [tensor]}
        columns = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [value], "parameters": {"content_type": "str"}}
            if isinstance(value, str)
            else {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}
            for name, value in row.items()
        ]
        return {"id": "1", "parameters": {"content_type": "pd"}, "inputs": columns}


class MlServerBatching(MlServer):
    """MLServer with its adaptive batching."""

    name = "MLServer, batching"
    note = "the same with `max_batch_size=64, max_batch_time=0.005`"
    settings = {"max_batch_size": 64, "max_batch_time": 0.005}

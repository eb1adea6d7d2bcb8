"""The container image, run as SageMaker and Docker run it. `make test-image` builds it and sets MANYMODELS_IMAGE."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import s3
from serving import BUILDAH, DOCKER, FLOWER, IMAGE, IRIS, Server, booster, constant, in_image, script, serve, until
from sklearn.datasets import load_iris

from manymodels.store import pack

pytestmark = pytest.mark.skipif(not IMAGE, reason="no image; run: make test-image")


def run(image: str, *arguments: str, mounts: Mapping[Path, str] = {}) -> str:
    """Run an image to its end, which has to be good, and return what it printed."""
    done = subprocess.run(in_image(image, *arguments, mounts=mounts), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def container(folder: Path, mounts: Mapping[Path, str], **env: str) -> AbstractContextManager[Server]:
    """Serve as SageMaker does: by the image's own command, on a port that the environment names."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return serve(folder, env={**env, "SAGEMAKER_BIND_TO_PORT": str(port)}, backend="image", mounts=mounts)


def test_labels() -> None:
    if DOCKER:
        printed = subprocess.check_output(
            ["docker", "inspect", "--format", "{{json .Config.Labels}}", IMAGE], text=True
        )
        labels = json.loads(printed)
    else:
        printed = subprocess.check_output([BUILDAH, "labels", IMAGE], text=True)
        labels = dict(line.split("=", 1) for line in printed.splitlines() if line)
    for capability in ("multi-models", "accept-bind-to-port"):
        assert labels[f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"


def test_model_server_is_multi_model_server() -> None:
    settings = {setting["name"]: setting["value"] for setting in json.loads(run(IMAGE, "settings", "--json"))}
    assert (settings["backend"], settings["log_format"]) == ("mms", "json")


def test_multi_model_container(tmp_path: Path) -> None:
    models = tmp_path / "models"
    constant(models / "a1b2" / "model" / "model.joblib", 7.0)
    (models / "c3d4" / "model").mkdir(parents=True)
    booster(models / "c3d4" / "model" / "model.ubj")
    script(
        models / "e5f6", "model", "def model_fn(path):\n    return 1\ndef predict_fn(data, model):\n    return ['own']"
    )
    with container(tmp_path, {models: "/opt/ml/models:ro"}, SAGEMAKER_MULTI_MODEL="true") as server:
        client = server.client
        assert client.get("/ping").status_code == 200
        assert client.get("/models").json() == {"models": []}
        for name in ("a1b2", "c3d4", "e5f6"):
            load = {"model_name": name, "url": f"/opt/ml/models/{name}/model"}
            assert client.post("/models", json=load).status_code == 200
            assert client.post("/models", json=load).status_code == 409
        assert client.get("/models/a1b2").json()["modelUrl"] == "/opt/ml/models/a1b2/model"
        assert client.post("/models/a1b2/invoke", json=[FLOWER]).json() == [7.0]
        assert len(client.post("/models/c3d4/invoke", json=[FLOWER, FLOWER]).json()) == 2
        assert client.post("/models/e5f6/invoke", json=[FLOWER]).json() == ["own"]
        assert client.delete("/models/a1b2").status_code == 200
        assert client.post("/models/a1b2/invoke", json=[FLOWER]).status_code == 404
        assert server.loaded() == ["c3d4", "e5f6"]
    for line in server.log().splitlines():
        assert json.loads(line)["level"] in ("debug", "info")


def test_store_outside_of_sagemaker(store: Path, tmp_path: Path) -> None:
    with container(tmp_path, {store: "/opt/ml/models:ro"}) as server:
        assert server.predict(IRIS) == [0]
        assert server.predict("folder") == [7.0]
        assert server.invoke("missing.tar.gz", [FLOWER]).status_code == 404


def test_store_in_s3(tmp_path: Path) -> None:
    constant(tmp_path / "five.joblib", 5.0)
    with s3.running() as bucket:
        bucket.put("shop/five.joblib", (tmp_path / "five.joblib").read_bytes())
        with serve(tmp_path, f"s3://{s3.BUCKET}/shop", env=bucket.env, backend="image", mounts={}) as server:
            assert server.predict("five.joblib") == [5.0]


def test_trained_model_is_served_alone_and_by_its_name(tmp_path: Path) -> None:
    base = tmp_path / "ml"
    channel = base / "input" / "data" / "train"
    channel.mkdir(parents=True)
    flowers, kinds = load_iris(return_X_y=True)
    rows = [",".join(map(str, (kind, *flower))) for flower, kind in zip(flowers, kinds, strict=True)]
    (channel / "iris.csv").write_text("\n".join(rows))
    (base / "input" / "config").mkdir()
    (base / "input" / "config" / "hyperparameters.json").write_text('{"n_estimators": "5"}')

    run(f"{IMAGE}-training", mounts={base: "/opt/ml"})

    assert {path.name for path in (base / "model").iterdir()} == {"model.joblib", "metadata.json"}
    with container(tmp_path, {base: "/opt/ml"}) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        alone = server.client.post("/invocations", json={"features": [FLOWER]}).json()
        assert alone["predictions"] == [0]
        assert alone["model_metadata"]["n_classes"] == 3
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    pack(base / "model", artifacts / IRIS)
    with container(tmp_path, {artifacts: "/opt/ml/models"}) as server:
        named = {"X-Amzn-SageMaker-Target-Model": IRIS}
        assert server.client.post("/invocations", json={"features": [FLOWER]}, headers=named).json() == alone

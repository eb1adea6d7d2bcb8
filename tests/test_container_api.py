"""The container API, in front of a model store and in a multi-model container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from serving import BACKENDS, FLOWER, IRIS, Server, as_json, constant, free_port, script, serve

pytestmark = pytest.mark.backends(*BACKENDS)

BODY = as_json([FLOWER])
UNTIDY = "team/a b/modèle%2e.tar.gz"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked models, as SageMaker's agent leaves them for a container."""
    models = tmp_path_factory.mktemp("models")
    constant(models / "seven" / "model" / "model.joblib", 7.0)
    constant(models / "eight" / "model" / "model.joblib", 8.0)
    script(models, "broken", "raise RuntimeError('no luck today')")
    script(
        models, "hog", "def model_fn(model_dir):\n    return bytearray(1 << 40)\ndef predict_fn(data, model):\n    pass"
    )
    (models / "unknown").mkdir()
    (models / "unknown" / "readme.txt").write_text("nothing here")
    (models / "large").mkdir()
    with (models / "large" / "model.joblib").open("wb") as file:
        file.truncate(2 << 30)
    return models


@pytest.fixture(scope="module")
def container(backend: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A multi-model container; the port is SageMaker's to choose."""
    env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(free_port()), "MANYMODELS_MEMORY": "1GiB"}
    with serve(tmp_path_factory.mktemp("container"), "--workers", "2", env=env, backend=backend) as server:
        assert server.port == int(env["SAGEMAKER_BIND_TO_PORT"])
        yield server


def load(server: Server, name: str, url: Path | str) -> httpx.Response:
    return server.client.post("/models", json={"model_name": name, "url": str(url)})


def unload(server: Server, name: str) -> httpx.Response:
    return server.client.delete(f"/models/{quote(name, safe='/')}")


def refused(reply: httpx.Response, status: int, kind: str, said: str) -> None:
    """Assert that a reply is an error, worded as multi-model-server does."""
    assert reply.status_code == status, reply.text
    content = reply.json()
    assert set(content) == {"code", "type", "message"}
    assert (content["code"], content["type"]) == (status, kind)
    assert re.search(said, content["message"]), content["message"]
    assert "Traceback" not in content["message"]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"] == reply.headers["x-amzn-requestid"]


def pages(server: Server, limit: int | None = None) -> list[list[str]]:
    """Return the names on each page of the list of models."""
    found: list[list[str]] = []
    query: dict[str, Any] = {} if limit is None else {"limit": limit}
    while True:
        content = server.client.get("/models", params=query).json()
        found.append([model["modelName"] for model in content["models"]])
        if "nextPageToken" not in content:
            return found
        query["next_page_token"] = content["nextPageToken"]


# -- A multi-model container --


def test_the_backend_is_the_one_asked_for(container: Server, backend: str) -> None:
    kind = "mms" if backend == "image" else backend
    assert f"starting the model server {kind!r}" in container.log()


def test_a_container_without_models_is_healthy(container: Server) -> None:
    reply = container.client.get("/ping")
    assert reply.status_code == 200
    reply = container.client.get("/models")
    assert (reply.status_code, reply.json()) == (200, {"models": []})


def test_a_model_is_loaded_invoked_and_unloaded(container: Server, models: Path) -> None:
    url = models / "seven" / "model"
    assert load(container, "a1b2", url).status_code == 200
    described = container.client.get("/models/a1b2").json()
    assert (described["modelName"], described["modelUrl"]) == ("a1b2", str(url))
    assert described["plugin"] == "sklearn"
    assert described["bytes"] > 0
    del described["schema"]  # only of a model that is asked for by name
    assert container.client.get("/models").json()["models"] == [described]
    reply = container.client.post("/models/a1b2/invoke", content=BODY)
    assert (reply.status_code, reply.json()) == (200, [7.0])
    assert {"queue", "predict"} <= set(re.findall(r"(\w+);dur=", reply.headers["server-timing"]))
    assert container.predict("a1b2") == [7.0]
    assert unload(container, "a1b2").status_code == 200
    assert container.client.get("/models").json() == {"models": []}
    refused(container.client.get("/models/a1b2"), 404, "ModelNotFoundException", "a1b2")
    refused(unload(container, "a1b2"), 404, "ModelNotFoundException", "a1b2")
    refused(container.client.post("/models/a1b2/invoke", content=BODY), 404, "ModelNotFoundException", "a1b2")
    assert container.invoke("a1b2", BODY).status_code == 404


def test_a_model_is_loaded_once(container: Server, models: Path) -> None:
    assert load(container, "twice", models / "seven" / "model").status_code == 200
    refused(load(container, "twice", models / "eight" / "model"), 409, "ConflictStatusException", "loaded already")
    assert container.predict("twice") == [7.0]
    assert unload(container, "twice").status_code == 200
    assert load(container, "twice", models / "eight" / "model").status_code == 200
    assert container.predict("twice") == [8.0]
    assert unload(container, "twice").status_code == 200


def test_of_many_loads_at_once_one_succeeds(container: Server, models: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: load(container, "race", models / "seven" / "model"), range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 7
    assert unload(container, "race").status_code == 200


@pytest.mark.parametrize("name", [UNTIDY, "invoke", "x" * 500, "a?b#c", "..", "models"])
def test_a_name_may_be_anything(container: Server, models: Path, name: str) -> None:
    path = "/models/" + quote(name, safe="/").replace("..", "%2e%2e")
    assert load(container, name, models / "seven" / "model").status_code == 200
    assert container.client.get(path).json()["modelName"] == name
    reply = container.client.post(path + "/invoke", content=BODY)
    assert (reply.status_code, reply.json()) == (200, [7.0])
    assert container.client.delete(path).status_code == 200


def test_what_cannot_be_loaded(container: Server, models: Path) -> None:
    for url in ("relative/path", "", str(models / "missing"), str(models / "seven" / "model" / "model.joblib")):
        refused(load(container, "x", url), 400, "BadRequestException", "absolute path of a folder")
    refused(load(container, "x", models / "unknown"), 400, "BadRequestException", "readme.txt")
    refused(load(container, "x", models / "broken"), 400, "BadRequestException", "inference.py, line 1.*no luck today")
    assert load(container, "x", models / "large").status_code == 507
    reply = load(container, "x", models / "hog")
    assert (reply.status_code, reply.json()["code"]) == (507, 507)
    assert "memory" in reply.json()["message"]
    assert container.client.get("/models").json() == {"models": []}
    assert container.client.get("/ping").status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"model_name": "x"}', b'{"model_name": 1, "url": 2}', b"\xff"])
def test_a_load_that_is_not_understood(container: Server, body: bytes) -> None:
    reply = container.client.post("/models", content=body)
    refused(reply, 400, "BadRequestException", "model_name")


def test_a_load_may_come_in_the_query(container: Server, models: Path) -> None:
    query = {"model_name": "asked", "url": str(models / "seven" / "model"), "synchronous": "true"}
    assert container.client.post("/models", params=query).status_code == 200
    assert unload(container, "asked").status_code == 200


@pytest.mark.backends("workers")  # on mms, 200 processes; the pages are made in front: see those of a store below
def test_the_list_comes_in_pages(container: Server, models: Path) -> None:
    """Two full pages: the last says that it is the last."""
    names = [f"n{number:03}" for number in range(200)]
    with ThreadPoolExecutor(4) as threads:
        statuses = set(threads.map(lambda name: load(container, name, models / "seven" / "model").status_code, names))
        assert statuses == {200}
        assert pages(container) == [names[:100], names[100:]]
        assert pages(container, 80) == [names[:80], names[80:160], names[160:]]
        assert pages(container, 1)[:2] == [["n000"], ["n001"]]
        first = container.client.get("/models").json()
        assert unload(container, "n099").status_code == 200
        token = first["nextPageToken"]
        second = container.client.get("/models", params={"next_page_token": token}).json()
        assert [model["modelName"] for model in second["models"]] == names[100:]
        assert load(container, "n0995", models / "seven" / "model").status_code == 200
        assert [len(page) for page in pages(container)] == [100, 100]
        assert container.predict("n123") == [7.0]
        assert set(threads.map(lambda name: unload(container, name).status_code, [*names, "n0995"])) == {200, 404}
    assert container.client.get("/models").json() == {"models": []}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=-1", "next_page_token=%21", "next_page_token=x"]
)
def test_a_page_that_does_not_exist(container: Server, query: str) -> None:
    refused(container.client.get(f"/models?{query}"), 400, "BadRequestException", query.partition("=")[0])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/ping", "GET"),
        ("PUT", "/models", "GET, POST"),
        ("HEAD", "/models", "GET, POST"),
        ("POST", "/models/x", "GET, DELETE"),
        ("GET", "/models/x/invoke", "POST"),
    ],
)
def test_other_methods(container: Server, method: str, path: str, allow: str) -> None:
    reply = container.client.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    if method != "HEAD":
        refused(reply, 405, "MethodNotAllowedException", "takes")


def test_the_target_model_header_is_needed_in_a_container_too(container: Server) -> None:
    reply = container.invoke(None, BODY)
    assert (reply.status_code, reply.json()["type"]) == (400, "BadTargetModel")


# -- In front of a model store --


def test_a_store_has_the_same_api(server: Server) -> None:
    assert server.client.get("/ping").status_code == 200
    assert load(server, UNTIDY, UNTIDY).status_code == 404
    unload(server, IRIS)
    refused(server.client.get(f"/models/{IRIS}"), 404, "ModelNotFoundException", "not loaded")
    refused(server.client.post(f"/models/{IRIS}/invoke", content=BODY), 404, "ModelNotFoundException", "not loaded")
    assert load(server, IRIS, IRIS).status_code == 200
    refused(load(server, IRIS, IRIS), 409, "ConflictStatusException", "loaded already")
    reply = server.client.post(f"/models/{IRIS}/invoke", content=BODY)
    assert (reply.status_code, reply.json()) == (200, [0])
    assert server.client.get(f"/models/{IRIS}").json()["modelName"] == IRIS
    assert unload(server, IRIS).status_code == 200
    refused(unload(server, IRIS), 404, "ModelNotFoundException", "not loaded")
    assert server.predict(IRIS) == [0]
    assert IRIS in server.loaded()


def test_a_store_loads_only_from_itself(server: Server, models: Path) -> None:
    refused(load(server, "x", models / "seven" / "model"), 400, "BadRequestException", "model store")
    refused(load(server, "../x", "../x"), 400, "BadRequestException", "segment")


def test_a_store_lists_its_models_in_pages(server: Server) -> None:
    names = ["model.joblib", "folder", "with space.tar.gz", "modèle.tar.gz", "team/deep/iris.tar.gz", IRIS]
    for name in names:
        server.predict(name)
    for page in pages(server, 2)[:-1]:
        assert len(page) == 2
    listed = [name for page in pages(server, 2) for name in page]
    assert set(names) <= set(listed)
    assert len(listed) == len(set(listed))
    assert [name for page in pages(server, 3) for name in page] == listed


def test_a_store_lists_its_artifacts(server: Server) -> None:
    found: list[str] = []
    query: dict[str, str] = {"limit": "3"}
    while True:
        content = server.client.get("/artifacts", params=query).json()
        found += content["artifacts"]
        if "nextPageToken" not in content:
            break
        query["next_page_token"] = content["nextPageToken"]
    assert {IRIS, "folder", "booster.ubj", "echo", "team/deep/iris.tar.gz", "modèle.tar.gz"} <= set(found)
    assert len(found) == len(set(found))

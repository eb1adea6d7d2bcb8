"""`GET /docs` and `GET /openapi`: what a running server says of its models, and how it escapes what they say."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import joblib
import pytest
from serving import BACKENDS, FLOWER, Server, archive, iris, serve, until

from manymodels import Golden
from manymodels.golden import write
from manymodels.http.openapi import rows
from manymodels.schema import Field

pytestmark = pytest.mark.backends(*BACKENDS)

HOSTILE = "<script>alert(1)</script>\"'&.tar.gz".replace("/", "")
COLUMN = "<img src=x onerror=alert(1)>"
DECLARED = {"inputs": [{"name": name, "type": "number"} for name in (COLUMN, "b", "c", "d")]}


class Page(HTMLParser):
    """What a browser would make of a page."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "action") for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(server: Server, path: str) -> Page:
    reply = server.client.get(path)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert reply.headers["x-content-type-options"] == "nosniff"
    return Page(reply.text)


@pytest.fixture(scope="module")
def server(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("pages")
    file = io.BytesIO()
    joblib.dump(iris(), file)
    asked = Golden(body=json.dumps([FLOWER]).encode(), answer=b"[0]")
    lines = Golden(
        body=b"5.1,3.5,1.4,0.2\n",
        content_type="text/csv",
        accept="text/csv",
        answer=b"0\n",
        answer_content_type="text/csv",
    )
    model = {"model.joblib": file.getvalue(), "golden.jsonl": write([asked, lines])}
    archive(root / "store" / "iris.tar.gz", model)
    (root / "store" / "team").mkdir()
    archive(root / "store" / "team" / "bare.tar.gz", {"model.joblib": file.getvalue()})
    archive(root / "store" / HOSTILE, model | {"manymodels.json": json.dumps({"schema": DECLARED}).encode()})
    with serve(root, root / "store", "--workers", "1", backend=backend) as running:
        yield running


def test_the_index_leads_to_every_model(server: Server) -> None:
    index = page(server, "/docs")
    assert {HOSTILE, "iris.tar.gz", "team/bare.tar.gz"} <= set(index.text.splitlines())
    assert len(index.links) == 3
    for link in index.links:
        assert "Input" in page(server, link).text
    first = page(server, "/docs?limit=1")
    assert len(first.links) == 2
    assert page(server, first.links[1]).links[0] != first.links[0]


def test_the_page_of_a_model(server: Server) -> None:
    shown = page(server, "/docs/iris.tar.gz")
    assert server.client.get("/models/iris.tar.gz").status_code == 200, "it is loaded for its page"
    assert "sklearn" in shown.text
    assert "any x 4" in shown.text
    assert "0, 1, 2" in shown.text
    assert "[[5.1, 3.5, 1.4, 0.2]]" in shown.text
    assert "X-Amzn-SageMaker-Target-Model: iris.tar.gz" in shown.text.replace(
        "x-amzn-sagemaker-target-model", "X-Amzn-SageMaker-Target-Model"
    )
    assert "/openapi/iris.tar.gz" in shown.links


def test_names_are_hostile(server: Server) -> None:
    shown = page(server, f"/docs/{quote(HOSTILE)}")
    assert not {"script", "img"} & set(shown.tags)
    assert HOSTILE in shown.text
    assert COLUMN in shown.text
    document = server.client.get(f"/openapi/{quote(HOSTILE)}").json()
    assert document["info"]["title"] == HOSTILE
    (forms, lists) = document["components"]["schemas"]["Rows"]["anyOf"]
    assert list(forms["items"]["properties"]) == [COLUMN, "b", "c", "d"]
    assert lists["items"]["minItems"] == 4

    reply = server.invoke(HOSTILE, [{"b": 1, "c": 1, "d": 1, "e": 1}])
    assert reply.status_code == 400
    assert reply.json()["message"] == f"the columns are not the model's (missing: {COLUMN!r}; unknown: 'e')"
    assert server.predict(HOSTILE) == [0]


def test_the_openapi_document(server: Server) -> None:
    document = server.client.get("/openapi/iris.tar.gz").json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/invocations"]["post"]
    assert operation["parameters"][0]["schema"] == {"const": "iris.tar.gz"}
    content = operation["requestBody"]["content"]
    bare, wrapped = content["application/json"]["schema"]["anyOf"]
    assert bare == wrapped["properties"]["instances"] == {"$ref": "#/components/schemas/Rows"}
    assert content["application/json"]["examples"]["golden-1"]["value"] == [FLOWER]
    assert content["text/csv"]["examples"]["golden-2"]["value"] == "5.1,3.5,1.4,0.2\n"
    assert operation["responses"]["200"]["content"]["application/json"]["examples"]["golden-1"]["value"] == [0]
    assert document["components"]["schemas"]["Prediction"] == {"type": "integer", "enum": [0, 1, 2]}
    described = server.client.get("/models/iris.tar.gz").json()["schema"]
    assert described == {
        "inputs": [{"type": "number", "shape": [-1, 4]}],
        "outputs": [{"type": "integer", "values": [0, 1, 2]}],
    }


def test_what_is_not_there(server: Server) -> None:
    for path in ("/docs/none.tar.gz", "/openapi/none.tar.gz"):
        assert server.client.get(path).status_code == 404
    assert server.client.post("/docs").status_code == 405


def test_a_container_shows_what_is_loaded(backend: str, tmp_path: Path) -> None:
    joblib.dump(iris(), tmp_path / "model.joblib")
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_MULTI_MODEL": "true"}, backend=backend) as server:
        assert page(server, "/docs").text.strip().endswith("There are none.")
        assert server.client.get("/docs/hash").status_code == 404
        server.client.post("/models", json={"model_name": "hash", "url": str(tmp_path)}).raise_for_status()
        assert page(server, "/docs").links == ["/docs/hash"]
        assert "any x 4" in page(server, "/docs/hash").text


def test_a_single_model_is_not_named(backend: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    joblib.dump(iris(), tmp_path / "model" / "model.joblib")
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path)}, backend=backend) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        (link,) = page(server, "/docs").links
        assert "target-model" not in page(server, link).text.lower()
        operation = server.client.get(link.replace("docs", "openapi")).json()["paths"]["/invocations"]["post"]
        assert "parameters" not in operation


@pytest.mark.backends("workers")
def test_schemas_of_rows(backend: str) -> None:
    number = {"type": "number"}
    assert rows(()) == {}
    assert rows([Field(type="number", shape=(-1, 2))]) == {
        "type": "array",
        "items": {"type": "array", "items": number, "minItems": 2, "maxItems": 2},
    }
    tensors = rows([Field(name="a", type="number", shape=(-1,)), Field(name="b", shape=())])
    assert tensors["properties"]["inputs"]["properties"] == {"a": {"type": "array", "items": number}, "b": {}}
    named = rows([Field(name="a", type="string", values=("x",)), Field(name="b", optional=True)])
    assert named["anyOf"][0]["items"]["required"] == ["a"]
    assert named["anyOf"][0]["items"]["properties"]["a"] == {"type": "string", "enum": ["x"]}

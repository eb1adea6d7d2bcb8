"""`GET /docs` and `GET /openapi`: what a running server says of its models, and how it escapes what they say.

The last tests need a browser: Chromium on the path, and the package playwright to drive it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import joblib
import pytest
from serving import BACKENDS, FLOWER, PATIENCE, Server, archive, iris, serve, until

from manymodels import Golden
from manymodels.golden import write
from manymodels.http.openapi import rows, sample
from manymodels.schema import Field

pytestmark = pytest.mark.backends(*BACKENDS)

HOSTILE = "<script>alert(1)<script>\"'&ö 100%?.tar.gz"
COLUMN = "<img src=x onerror=alert(1)>"
DECLARED = {"inputs": [{"name": name, "type": "number"} for name in (COLUMN, "b", "c", "d")]}


class Page(HTMLParser):
    """What a browser would make of a page."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = self.script = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "src" for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.script += data
        else:
            self.text += data


def page(server: Server, path: str, status: int = 200) -> Page:
    reply = server.client.get(path)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    shown = Page(reply.text)
    assert shown.tags.count("script") == 1
    digest = base64.b64encode(hashlib.sha256(shown.script.encode()).digest()).decode()
    policy = reply.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; connect-src 'self'; style-src")
    return shown


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
    archive(root / "store" / "broken.tar.gz", {"model.joblib": b"<b>no pickle"})
    archive(root / "store" / HOSTILE, model | {"manymodels.json": json.dumps({"schema": DECLARED}).encode()})
    names = root / "names.json"
    names.write_text('{"names": {"flower": {"serve": "iris.tar.gz"}}}')
    with serve(root, root / "store", "--workers", "1", "--names", names, backend=backend) as running:
        yield running


def test_the_index_leads_to_every_model(server: Server) -> None:
    index = page(server, "/docs")
    models = {HOSTILE, "broken.tar.gz", "iris.tar.gz", "team/bare.tar.gz"}
    assert models <= set(index.text.splitlines())
    home, *links = index.links
    assert home == "/"
    assert len(links) == len(models)
    links.remove("/docs/broken.tar.gz")
    for link in links:
        assert "Input" in page(server, link).text
    _, first, more = page(server, "/docs?limit=1").links
    assert page(server, more).links[1] != first


def test_the_page_of_the_server_leads_everywhere(server: Server) -> None:
    home = page(server, "/")
    assert "x-amzn-sagemaker-target-model: NAME" in home.text
    assert {"/docs", "/models", "/artifacts", "/metrics", "/ping"} <= set(home.links)
    for link in home.links:
        assert server.client.get(link).status_code == 200


def test_a_model_is_opened_by_its_name(server: Server) -> None:
    reply = server.client.get("/docs", params={"model": f" {HOSTILE}\r\n"})
    assert reply.status_code == 303
    assert reply.headers["location"] == f"/docs/{quote(HOSTILE)}"
    near = page(server, "/docs/iris", 404)
    assert page(server, near.links[-1]).links[1] == "/docs/iris.tar.gz", "the next one is shown"


def test_the_page_of_a_model_that_cannot_be_loaded_says_why(server: Server) -> None:
    shown = page(server, "/docs/broken.tar.gz", 400)
    assert "is corrupt or truncated" in shown.text
    assert not {"b", "form"} & set(shown.tags)


@pytest.mark.parametrize("name", ["iris.tar.gz", "team/bare.tar.gz", HOSTILE])
def test_the_request_that_is_suggested_is_answered(server: Server, name: str) -> None:
    text = server.client.get(f"/docs/{quote(name)}").text
    (body,) = re.findall(r"<textarea[^>]*>\n(.*)</textarea>", text, re.DOTALL)
    reply = server.invoke(name, html.unescape(body), content_type="application/json")
    assert reply.status_code == 200, reply.text


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


def test_the_page_of_a_name_asks_by_that_name(server: Server) -> None:
    shown = page(server, "/docs/flower")
    assert "target-model: flower'" in shown.text
    assert "Artifactiris.tar.gz" in shown.text
    operation = server.client.get("/openapi/flower").json()["paths"]["/invocations"]["post"]
    assert operation["parameters"][0]["schema"] == {"const": "flower"}


def test_names_are_hostile(server: Server) -> None:
    shown = page(server, f"/docs/{quote(HOSTILE)}")
    assert "img" not in shown.tags
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
    assert "there is no artifact 'none.tar.gz'" in page(server, "/docs/none.tar.gz", 404).text
    assert server.client.get("/openapi/none.tar.gz").status_code == 404
    assert server.client.post("/docs").status_code == 405


def test_a_container_shows_what_is_loaded(backend: str, tmp_path: Path) -> None:
    joblib.dump(iris(), tmp_path / "model.joblib")
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_MULTI_MODEL": "true"}, backend=backend) as server:
        assert page(server, "/docs").text.strip().endswith("There are none.")
        assert server.client.get("/docs/hash").status_code == 404
        server.client.post("/models", json={"model_name": "hash", "url": str(tmp_path)}).raise_for_status()
        assert page(server, "/docs").links == ["/", "/docs/hash"]
        assert "any x 4" in page(server, "/docs/hash").text


def test_a_single_model_is_not_named(backend: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    joblib.dump(iris(), tmp_path / "model" / "model.joblib")
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path)}, backend=backend) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        _, link = page(server, "/docs").links
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


@pytest.mark.backends("workers")
def test_samples_of_rows(backend: str) -> None:
    assert sample(()) is None
    assert sample([Field(type="number", shape=(-1, 2))]) == {"instances": [[0, 0]]}
    assert sample([Field(name="a", shape=(-1,)), Field(name="b", shape=())]) == {"inputs": {"a": [0], "b": 0}}
    assert sample([Field(name="a", type="string", values=("x",)), Field(name="b", type="boolean")]) == {
        "instances": [{"a": "x", "b": False}]
    }
    assert sample([Field(type="string")]) == {"instances": [[""]]}
    assert sample([Field(shape=(10**9, 0))]) is None, "however long, nothing is made of it"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (path := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("there is no Chromium on the path")
    with (
        driver.sync_playwright() as started,
        started.chromium.launch(executable_path=path, chromium_sandbox=False) as one,
    ):
        yield one


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Any]:
    """A page of the browser, in which nothing may go wrong."""
    errors: list[str] = []
    asked: list[str] = []
    with browser.new_page(base_url=server.url) as opened:
        opened.set_default_timeout(PATIENCE * 1000)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("dialog", lambda dialog: errors.append(dialog.message))
        opened.on("request", lambda request: asked.append(request.url))
        yield opened
    assert errors == []
    assert all(url.startswith(f"{server.url}/") for url in asked), "nothing comes from elsewhere"


def ask(tab: Any, body: str | None = None) -> tuple[str, str]:
    """Ask from the page, by keyboard; return the line about the answer, and the answer."""
    if body is not None:
        tab.fill("textarea", body)
    tab.focus("textarea")
    for _ in range(3):
        tab.keyboard.press("Tab")
    with tab.expect_response("**/invocations") as response:
        tab.keyboard.press("Enter")
    response.value.finished()
    state, answer = tab.locator("form.try output").all()
    state.filter(has_text=re.compile(r" ms$")).wait_for()
    return state.text_content(), answer.text_content()


@pytest.mark.backends("workers")
def test_a_browser_asks_a_model_of_any_name(tab: Any) -> None:
    tab.goto("/")
    tab.click("text=/docs")
    tab.fill("input[name=model]", HOSTILE)
    tab.keyboard.press("Enter")
    tab.locator("h1", has_text=HOSTILE).wait_for()
    state, answer = ask(tab)
    assert state.startswith("200 OK, application/json, ")
    assert answer == "[0]"
    state, answer = ask(tab, '[{"<b>": 1}]')
    assert state.startswith("400 Bad Request, application/json, ")
    assert "unknown: '<b>'" in json.loads(answer)["message"]


@pytest.mark.backends("workers")
def test_a_browser_shows_text_alone(tab: Any) -> None:
    tab.goto("/docs/iris.tar.gz")
    assert tab.text_content("pre.curl").startswith(f"curl {tab.url.removesuffix('/docs/iris.tar.gz')}/invocations ")
    tab.fill("input[name=accept]", "application/x-npy")
    state, answer = ask(tab)
    assert state.startswith("200 OK, application/x-npy, ")
    assert answer == "It is not shown, as it is no text."


@pytest.mark.backends("workers")
def test_a_browser_fits_the_page_into_a_narrow_window(tab: Any) -> None:
    tab.set_viewport_size({"width": 320, "height": 600})
    for path in ("/", "/docs", "/docs/iris.tar.gz", f"/docs/{quote(HOSTILE)}", "/docs/broken.tar.gz"):
        tab.goto(path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 320

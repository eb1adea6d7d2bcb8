"""A model store on a web server."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import flask
import pytest
from serving import FLOWER, constant, free_port, serve
from test_store_faults import Fake, answer, fake  # noqa: F401
from werkzeug.serving import make_server

from manymodels.errors import LoadFailed, ModelNotFound, NotListed, SettingsError, StoreUnavailable
from manymodels.store import DiskCache, RemoteStore, calls, connect

Open = Callable[[str], RemoteStore]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server shows it that knows ETags, conditions, ranges and passwords."""
    folder = tmp_path_factory.mktemp("site")
    app = flask.Flask("site", static_folder=None)

    @app.get("/models/<path:name>")
    def show(name: str) -> flask.Response:
        given = flask.request.authorization
        if name.startswith("secret/") and (given is None or (given.username, given.password) != ("me", "it")):
            flask.abort(401)
        if (folder / name).is_dir():
            return flask.redirect(f"/models/{name}/") if not name.endswith("/") else flask.Response("a page")  # type: ignore[return-value]
        reply = flask.send_from_directory(folder, name)
        if flask.request.method == "HEAD":
            reply.response.close()  # type: ignore[union-attr]  # werkzeug leaves the file open for the collector
        return reply

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.port}/models/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def opened(address: str) -> RemoteStore:
            store = RemoteStore(connect(address, 20), DiskCache(tmp_path), lambda path: True)
            stack.callback(store.close)
            return store

        yield opened


def test_found_and_fetched_in_parts(site: tuple[Path, str], open_: Open) -> None:
    folder, address = site
    large = os.urandom(2 * calls.PART + 17)
    (folder / "team").mkdir()
    for name, content in {"ü #1.joblib": large, "none.joblib": b"", "team/a.joblib": b"1"}.items():
        (folder / name).write_bytes(content)
    store = open_(address)
    assert (store.open(store.find("ü #1.joblib")) / "ü #1.joblib").read_bytes() == large
    assert (store.open(store.find("none.joblib")) / "none.joblib").read_bytes() == b""
    assert store.find("team/a.joblib").size == 1
    for name in ("gone", "team", "gone/gone.tar.gz"):
        with pytest.raises(ModelNotFound):
            store.find(name)
    with pytest.raises(NotListed, match="a web server has no listings"):
        list(store.list())


def test_another_version_is_never_taken_for_the_one_that_was_found(site: tuple[Path, str], open_: Open) -> None:
    folder, address = site
    store = open_(address)
    (folder / "b.joblib").write_bytes(b"1")
    found = store.find("b.joblib")
    (folder / "b.joblib").write_bytes(b"22")
    with pytest.raises(LoadFailed, match="was replaced while it was read"):
        store.open(found)
    newer = store.find("b.joblib")
    assert newer.version != found.version
    assert (store.open(newer) / "b.joblib").read_bytes() == b"22"


def test_names_and_passwords_are_in_netrc(
    site: tuple[Path, str], open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    (folder / "secret").mkdir()
    (folder / "secret" / "a.joblib").write_bytes(b"1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LoadFailed, match=r"access is denied.*401"):
        open_(address).find("secret/a.joblib")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password it\n")
    store = open_(address)
    assert store.open(store.find("secret/a.joblib"))


@pytest.mark.parametrize("address", ["https://me:it@host/models", "https://host/models?key=1", "https://host#models"])
def test_an_address_is_a_host_and_a_path(address: str) -> None:
    with pytest.raises(SettingsError, match=r"credentials belong in ~/\.netrc"):
        connect(address, 20)


def test_a_server_that_knows_neither_tags_nor_ranges(tmp_path: Path, open_: Open) -> None:
    (tmp_path / "small.joblib").write_bytes(b"1")
    (tmp_path / "large.joblib").write_bytes(bytes(calls.PART + 1))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        store = open_(f"http://127.0.0.1:{server.server_port}")
        assert (store.open(store.find("small.joblib")) / "small.joblib").read_bytes() == b"1"
        with pytest.raises(LoadFailed, match="answers no ranges"):
            store.open(store.find("large.joblib"))
        server.shutdown()
        thread.join()


def test_errors(open_: Open, fake: Fake) -> None:  # noqa: F811
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    fake.answer = answer(500)
    with pytest.raises(StoreUnavailable, match="answers 500"):
        store.find("a.joblib")
    fake.answer = answer(403)
    with pytest.raises(LoadFailed, match="access is denied"):
        store.find("a.joblib")
    fake.answer = answer(200, b"1")
    with pytest.raises(LoadFailed, match="neither ETag nor Last-Modified"):
        store.find("a.joblib")
    store = open_(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.find("a.joblib")


def test_served(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    constant(folder / "seven.joblib", 7.0)
    with serve(tmp_path, address, "--workers", "1", "--cache-dir", str(tmp_path / "cache")) as server:
        assert server.predict("seven.joblib", [FLOWER]) == [7.0]
        assert server.invoke("eight.joblib", [FLOWER]).status_code == 404
        reply = server.client.get("/artifacts")
        assert (reply.status_code, reply.json()["type"]) == (501, "NotListed")

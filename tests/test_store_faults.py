"""A store in S3 that refuses, is slow, is cut off, or goes away under a server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import s3
from installed import besides
from s3 import S3
from serving import FLOWER, free_port, serve, until
from test_store_s3 import model

from manymodels.endpoint.fetch import Fetcher
from manymodels.errors import LoadFailed, StoreDenied, StoreUnavailable
from manymodels.plugins import Plugins
from manymodels.settings import load
from manymodels.store import DiskCache, Found, RemoteStore, connect
from manymodels.store import calls as module

Answer = Callable[[BaseHTTPRequestHandler], None]
ETAG = '"0cc175b9c0f1b6a831c399e269772661"'  # of b"a"


class Fake:
    """An HTTP server that answers every request as the test says."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[str] = []
        self.answer: Answer = lambda handler: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.requests.append(f"{self.command} {self.headers.get('Range', '')}".strip())
                fake.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()
    yield fake
    fake.close()


@pytest.fixture
def open_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RemoteStore]:
    """Open a store at an endpoint; botocore does not try again."""

    def opened(endpoint: str, timeout: float = 60) -> RemoteStore:
        variables = {**s3.CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "1"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return RemoteStore(connect("s3://models", timeout), DiskCache(tmp_path), lambda path: True)

    monkeypatch.setattr(module, "ANSWER", 60)  # the first takes botocore's client to be made
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    return opened


def answer(status: int, body: bytes = b"", code: str = "", **headers: str) -> Answer:
    """Return what answers alike whatever is asked; an error as S3 words it, which has no body for a HEAD."""
    if code:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>because</Message></Error>".encode()

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return send


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "AccessDenied", StoreDenied, r"allow s3:GetObject on it .*403 AccessDenied"),
        (400, "ExpiredToken", LoadFailed, "credentials have expired"),
        (403, "InvalidAccessKeyId", LoadFailed, "none that the model store knows"),
        (403, "SignatureDoesNotMatch", LoadFailed, "none that the model store knows"),
        (500, "InternalError", StoreUnavailable, "the model store answers 500"),
        (503, "SlowDown", StoreUnavailable, "the model store answers 503"),
    ],
)
def test_a_store_that_answers_with_an_error(
    fake: Fake, open_: Callable[..., RemoteStore], status: int, code: str, error: type[LoadFailed], message: str
) -> None:
    fake.answer = answer(status, code=code)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(error, match=message) as caught:
        store.find("a.tar.gz")
    assert type(caught.value) is error
    with pytest.raises(error) as caught:
        store.open(Found("a.tar.gz", ETAG.strip('"'), 1, "archive"))
    assert type(caught.value) is error
    with pytest.raises(error) as caught:
        list(store.list())
    assert type(caught.value) is error
    fake.answer = answer(404, code="NoSuchKey")
    with pytest.raises(LoadFailed, match="has gone"):
        store.open(Found("a.tar.gz", ETAG.strip('"'), 1, "archive"))


def test_a_listing_that_is_denied_names_its_permission(fake: Fake, open_: Callable[..., RemoteStore]) -> None:
    fake.answer = answer(403, code="AccessDenied")
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(LoadFailed, match="allow s3:ListBucket"):
        list(store.list())
    fake.answer = answer(404, code="NoSuchBucket")
    with pytest.raises(LoadFailed, match="there is no bucket 'models'"):
        list(store.list())


def test_no_credentials(
    fake: Fake, open_: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(LoadFailed, match="give the server credentials"):
        store.find("a.tar.gz")


def test_a_store_that_refuses_connections_is_not_tried_again_at_once(
    open_: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    store = open_(f"http://127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable, match="s3://models cannot be reached"):
        store.find("a.joblib")
    fake = Fake(port)
    try:
        fake.answer = answer(200, ETag=ETAG)
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.find("a.joblib")
        assert fake.requests == []
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            list(store.list())
    finally:
        fake.close()
    assert caplog.text.count("what is loaded is served on") == 1


def test_a_store_that_does_not_answer(
    fake: Fake, open_: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ", 1)
    gone = threading.Event()
    fake.answer = lambda handler: (gone.wait(90), None)[1]
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    try:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.find("a.joblib")
    finally:
        gone.set()


def cut(after: int) -> Answer:
    """Return what answers one range of zeros, of which it sends so many bytes before the connection ends."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        size = last + 1 - first
        handler.send_response(206)
        handler.send_header("ETag", '"x"')
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.wfile.write(bytes(min(size, after)))
        handler.close_connection = size > after

    return send


def test_a_download_that_is_cut_off_goes_on_from_there(fake: Fake, open_: Callable[..., RemoteStore]) -> None:
    fake.answer = cut(400_000)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    folder = store.open(Found("a.joblib", "x", 1_000_000, "file"))
    assert (folder / "a.joblib").read_bytes() == bytes(1_000_000)
    assert fake.requests == ["GET bytes=0-999999", "GET bytes=400000-999999", "GET bytes=800000-999999"]


def test_a_download_that_is_always_cut_off_is_no_model(
    fake: Fake, open_: Callable[..., RemoteStore], tmp_path: Path
) -> None:
    fake.answer = cut(0)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(StoreUnavailable, match=r"'a\.joblib' cannot be fetched"):
        store.open(Found("a.joblib", "x", 1_000_000, "file"))
    assert len(fake.requests) == module.TRIES
    assert list((tmp_path / "contents").iterdir()) == []
    assert list((tmp_path / "users").glob("*/tmp/*")) == []


def part(content: bytes, sent: int, **headers: str) -> Answer:
    """Return what answers ranges of an object, at the first of which it hangs up after so many bytes."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        body = content[first : last + 1]
        handler.send_response(206)
        handler.send_header("ETag", f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')
        handler.send_header("Last-Modified", "Fri, 27 Nov 2026 12:00:00 GMT")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(content)}")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body if first else body[:sent])
        handler.close_connection = not first

    return send


@pytest.mark.parametrize("sent", [0, 400_000, 1_000_000])
def test_what_is_found_and_fetched_at_once_goes_on_where_it_was_cut_off(
    fake: Fake, open_: Callable[..., RemoteStore], sent: int
) -> None:
    content = bytes(range(250)) * 4000
    answers = [part(content, sent), part(content, len(content))]
    fake.answer = lambda handler: answers.pop(0)(handler)
    fetched = open_(f"http://127.0.0.1:{fake.server.server_port}").fetch("a.joblib")
    assert fetched is not None
    assert (fetched[1] / "a.joblib").read_bytes() == content
    # If the end of the connection was seen before what came, that is asked for again.
    rest = [[], ["GET bytes=0-999999"], [f"GET bytes={sent}-999999"]]
    assert fake.requests[0] == "GET bytes=0-8388607"
    assert fake.requests[1:] in (rest[1:] if sent < len(content) else rest)


CRC32 = base64.b64encode(zlib.crc32(b"right").to_bytes(4, "big")).decode()


@pytest.mark.parametrize(("found_by", "headers"), [("MD5", {}), ("checksum", {"x_amz_checksum_crc32": CRC32})])
def test_what_was_damaged_on_its_way_is_no_model(
    fake: Fake, open_: Callable[..., RemoteStore], tmp_path: Path, found_by: str, headers: dict[str, str]
) -> None:
    tag = hashlib.md5(b"right" if found_by == "MD5" else b"wrong", usedforsecurity=False).hexdigest()
    headers |= {"ETag": f'"{tag}"', "Last_Modified": "Fri, 27 Nov 2026 12:00:00 GMT", "Content_Range": "bytes 0-4/5"}
    fake.answer = answer(206, b"wrong", **headers)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    message = f"'m.joblib' was damaged on its way: its {found_by} is not"
    with pytest.raises(StoreUnavailable, match=message):
        store.fetch("m.joblib")
    with pytest.raises(StoreUnavailable, match=message):
        store.open(Found("m.joblib", tag, 5, "file"))
    assert list((tmp_path / "contents").iterdir()) == []
    fake.answer = answer(206, b"right", **headers | {"ETag": ETAG} if found_by == "checksum" else headers)
    assert store.fetch("m.joblib") is not None


def test_what_was_cut_off_is_compared_with_its_md5_whatever_checksum_is_told(
    fake: Fake, open_: Callable[..., RemoteStore]
) -> None:
    answers = [part(b"right", 3, x_amz_checksum_crc32=CRC32), part(b"wrong", 5)]
    fake.answer = lambda handler: answers.pop(0)(handler)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(StoreUnavailable, match="was damaged on its way: its MD5 is not"):
        store.fetch("m.joblib")


def test_what_is_found_and_always_cut_off_is_no_model_and_the_store_is_not_away(
    fake: Fake, open_: Callable[..., RemoteStore], tmp_path: Path
) -> None:
    fake.answer = part(bytes(1_000_000), 0)
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(StoreUnavailable, match=r"'a\.joblib' cannot be fetched"):
        store.fetch("a.joblib")
    assert len(fake.requests) == module.TRIES
    assert list((tmp_path / "contents").iterdir()) == []
    fake.answer = part(b"whole", 5)
    assert store.fetch("a.joblib") is not None


def test_a_store_that_cannot_be_reached_is_asked_once(open_: Callable[..., RemoteStore]) -> None:
    store = open_(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match="s3://models cannot be reached"):
        store.fetch("a.joblib")


def test_a_download_that_drips_ends(fake: Fake, open_: Callable[..., RemoteStore]) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not over.wait(0.2):
            try:
                handler.wfile.write(b"x")
                handler.wfile.flush()
            except OSError:
                break
        handler.close_connection = True

    fake.answer = drip
    store = open_(f"http://127.0.0.1:{fake.server.server_port}", timeout=2)
    try:
        with pytest.raises(StoreUnavailable, match="no full answer within 2 s"):
            store.open(Found("a.joblib", "x", 1_000_000, "file"))
    finally:
        over.set()


def test_a_download_ends_when_the_server_does(fake: Fake, open_: Callable[..., RemoteStore]) -> None:
    over = threading.Event()
    begun = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        begun.set()
        over.wait(30)
        handler.close_connection = True

    fake.answer = wait
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    caught: list[BaseException] = []

    def fetch() -> None:
        try:
            store.open(Found("a.joblib", "x", 10, "file"))
        except StoreUnavailable as error:
            caught.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    try:
        assert begun.wait(30)
        store.close()
        thread.join(30)
        assert [str(error) for error in caught] == ["'a.joblib' cannot be fetched: the server is stopping"]
    finally:
        over.set()


def test_a_store_without_ranges(fake: Fake, open_: Callable[..., RemoteStore]) -> None:
    fake.answer = answer(200, bytes(100), ETag='"x"')
    store = open_(f"http://127.0.0.1:{fake.server.server_port}")
    with pytest.raises(LoadFailed, match="answers no ranges"):
        store.open(Found("a.joblib", "x", 10, "file"))


# -- Under a server --


class Way:
    """A TCP proxy, which can be closed and opened again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._to))
            self._open |= {here, there}
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        with contextlib.suppress(OSError):  # it was cut already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._open.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._begin()


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3]:
    with s3.running() as running:
        yield running


def test_a_server_while_its_store_is_away(bucket: S3, tmp_path: Path) -> None:
    """Also one that starts then: it has what an earlier one fetched, and finds by itself that the store is back."""
    bucket.put("loaded.joblib", model(6.0))
    way = Way(int(bucket.endpoint.rpartition(":")[2]))
    env = {**bucket.env, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{way.port}", "AWS_MAX_ATTEMPTS": "1"}
    options = ["--workers", "1", "--store-refresh", "0.05", "--cache-dir", str(tmp_path / "cache")]
    # All frameworks that are left are imported by a server that cannot ask its store which it needs.
    options += ["--block-plugins", besides("sklearn", "custom")]
    try:
        with serve(tmp_path, f"s3://{s3.BUCKET}", *options, env=env) as server:
            assert server.predict("loaded.joblib") == [6.0]
            bucket.put("other.joblib", model(5.0))
            way.cut()
            for _ in range(20):
                assert server.predict("loaded.joblib") == [6.0]
            reply = server.invoke("other.joblib", [FLOWER])
            assert (reply.status_code, reply.json()["type"]) == (503, "StoreUnavailable")
            assert "cannot be reached" in reply.json()["message"]
            assert reply.headers["retry-after"] == "1"
            assert server.client.get("/artifacts").status_code == 503
            assert server.log().count("what is loaded is served on") == 1
            bucket.put("loaded.joblib", model(60.0))
            way.mend()
            until(lambda: server.predict("loaded.joblib") == [60.0], "the new version is served")
            assert server.predict("other.joblib") == [5.0]
            assert "can be reached again" in server.log()
        way.cut()
        bucket.put("third.joblib", model(3.0))
        with serve(tmp_path, f"s3://{s3.BUCKET}", *options, env=env) as server:
            assert server.client.get("/ping").status_code == 200
            assert "only what the disk cache has is served" in server.log()
            reply = server.invoke("third.joblib", [FLOWER])
            assert (reply.status_code, reply.json()["type"]) == (503, "StoreUnavailable")
            assert "cannot be reached" in reply.json()["message"]
            assert server.predict("loaded.joblib") == [60.0]
            assert server.predict("other.joblib") == [5.0]
            bucket.put("other.joblib", model(50.0))
            way.mend()
            until(lambda: server.invoke("third.joblib", [FLOWER]).status_code == 200, "the store is back")
            until(lambda: server.predict("other.joblib") == [50.0], "the new version is served")
    finally:
        way.cut()


@pytest.mark.anyio
async def test_what_is_on_the_local_disk_is_opened_without_the_store(
    bucket: S3, open_: Callable[..., RemoteStore]
) -> None:
    for name in ("kept", "other"):
        bucket.put(f"{name}.joblib", model(1.0))
    way = Way(int(bucket.endpoint.rpartition(":")[2]))
    fetcher = Fetcher(open_(f"http://127.0.0.1:{way.port}"), Plugins.installed(), load())
    try:
        opened = await fetcher.look("kept.joblib", ())
        way.cut()
        assert await fetcher.look("kept.joblib", ()) == opened
        with pytest.raises(StoreUnavailable):
            await fetcher.look("other.joblib", ())
    finally:
        way.cut()
        fetcher.close()

"""Bodies that are sent as gzip or zstd, and clients that ask whether to send theirs."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import FLOWER, TARGET_MODEL, Server, as_json, constant, read_reply, script, serve, until, uploads

from manymodels.errors import BadInput, UnsupportedAccept, UnsupportedContentType
from manymodels.http.codings import WORTHWHILE, accepted, coding_of, pack, unpack
from manymodels.spool import LARGE as SPOOLED
from manymodels.spool import Spool, release

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BODY = 4 << 20
BODY = as_json([FLOWER])
PACKED = {
    "gzip": gzip.compress(BODY, mtime=0),
    "x-gzip": gzip.compress(BODY),
    "zstd": zstd.compress(BODY),
    "identity": BODY,
}
#: Answers with its input, eight times.
ECHO = """
def model_fn(model_dir): pass
def input_fn(body, content_type): return body
def predict_fn(data, model): return data * 8
def output_fn(prediction, accept): return prediction, accept
"""
#: Packs its answer itself.
PACKS = """
import gzip
def model_fn(model_dir): pass
def input_fn(body, content_type): return body
def predict_fn(data, model, context):
    context.set_response_header(0, "Content-Encoding", "gzip")
    return gzip.compress(bytes(40000))
def output_fn(prediction, accept): return prediction, "text/plain"
"""
#: Answers with the length and the digest of its input, which is of a type.
DIGEST = """
import hashlib
def model_fn(model_dir): pass
def input_fn(body, content_type): return body
def predict_fn(data, model): return [type(data).__name__, len(data), hashlib.sha256(data).hexdigest()]
"""
LARGE = (b"0.25, 0.75\n" * 8000)[:80000]

HEAD = b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n" + TARGET_MODEL.encode()
HEAD += b": five.joblib\r\n"


@pytest.fixture(scope="module", params=[("workers", "1"), ("mms", "2")], ids=["workers", "mms, 2 fronts"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with a store."""
    folder = tmp_path_factory.mktemp("codings")
    constant(folder / "store" / "five.joblib", 5.0)
    script(folder / "store", "echo", ECHO)
    script(folder / "store", "packs", PACKS)
    script(folder / "store", "digest", DIGEST)
    backend, fronts = request.param
    options = ("--workers", "1", "--fronts", fronts, "--max-body", "4MiB")
    with serve(folder, folder / "store", *options, backend=backend) as running:
        yield running


# -- Requests --


@pytest.mark.parametrize("coding", PACKED)
def test_a_packed_body_is_unpacked(server: Server, coding: str) -> None:
    reply = server.invoke("five.joblib", PACKED[coding], content_type="application/json", content_encoding=coding)
    assert (reply.status_code, reply.content) == (200, b"[5.0]")
    large = bytes(MAX_BODY // 32)
    packed = large if coding == "identity" else pack(large, coding_of(coding))
    reply = server.invoke("echo", packed, content_encoding=coding, accept="application/octet-stream")
    assert reply.content == large * 8


@pytest.mark.parametrize(
    ("coding", "body", "status", "why"),
    [
        ("gzip", gzip.compress(bytes(MAX_BODY + 1), mtime=0), 413, "more than 4194304 bytes"),
        ("zstd", zstd.compress(bytes(100 << 20)), 413, "more than 4194304 bytes"),
        ("br", BODY, 415, "'br' is not supported; send one of zstd, gzip"),
        ("gzip, zstd", BODY, 415, "is not supported"),
        ("gzip", BODY, 400, "not gzip"),
        ("zstd", BODY, 400, "not zstd"),
        ("gzip", PACKED["gzip"][:-1], 400, "cut off"),
        ("zstd", PACKED["zstd"][:-1], 400, "cut off"),
        ("gzip", PACKED["gzip"] * 2, 400, "goes on after its end"),
    ],
)
def test_a_body_that_cannot_be_unpacked(server: Server, coding: str, body: bytes, status: int, why: str) -> None:
    reply = server.invoke("five.joblib", body, content_type="application/json", content_encoding=coding)
    assert reply.status_code == status
    assert why in reply.json()["message"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_takes_no_more_memory_than_a_body_may(coding: str) -> None:
    bomb = pack(bytes(64 << 20), coding)
    tracemalloc.start()
    try:
        assert unpack(bomb, coding, MAX_BODY) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_BODY
    assert unpack(pack(bytes(MAX_BODY), coding), coding, MAX_BODY) == bytes(MAX_BODY)


def test_a_zstd_frame_may_not_ask_for_a_large_window() -> None:
    parameter = zstd.CompressionParameter
    frame = zstd.ZstdCompressor(options={parameter.window_log: 27, parameter.enable_long_distance_matching: 1})
    with pytest.raises(BadInput, match="memory"):
        unpack(frame.compress(bytes(1 << 20)) + frame.flush(), "zstd", 2 << 20)


def test_what_a_content_encoding_names() -> None:
    assert [coding_of(name) for name in ("GZIP ", "x-gzip", "zstd", "", "identity")] == [
        *("gzip", "gzip", "zstd"),
        *("identity", "identity"),
    ]
    with pytest.raises(UnsupportedContentType):
        coding_of("deflate")


# -- Replies --


@pytest.mark.parametrize(
    ("header", "coding", "plain"),
    [
        ("gzip, deflate, br, zstd", "zstd", True),
        ("gzip, deflate", "gzip", True),
        ("x-gzip", "gzip", True),
        ("zstd;q=0.5, gzip;q=0.8", "gzip", True),
        ("gzip;q=0.5, identity", "identity", True),
        ("gzip;q=0, zstd;q=0", "identity", True),
        ("gzip;q=nonsense", "identity", True),
        ("gzip;q=0.5, *;q=0", "gzip", False),
        ("identity;q=0, *", "zstd", False),
        ("identity", "identity", True),
        ("br", "identity", True),
        ("", "identity", True),
    ],
)
def test_what_an_accept_encoding_likes_best(header: str, coding: str, plain: bool) -> None:
    assert accepted(header) == (coding, plain)


def test_an_accept_encoding_that_leaves_nothing(server: Server) -> None:
    with pytest.raises(UnsupportedAccept):
        accepted("br, *;q=0")
    reply = server.invoke("five.joblib", [FLOWER], accept_encoding="identity;q=0")
    assert reply.status_code == 406
    assert "identity;q=0" in reply.json()["message"]


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [("gzip, deflate", "gzip"), ("gzip, zstd", "zstd"), ("identity", None), ("br", None)],
)
def test_a_large_reply_is_packed(server: Server, accept_encoding: str, coding: str | None) -> None:
    with server.client.stream(
        "POST",
        "/invocations",
        content=LARGE,
        headers={TARGET_MODEL: "echo", "accept": "text/csv", "accept-encoding": accept_encoding},
    ) as reply:
        content = b"".join(reply.iter_raw())
    assert reply.status_code == 200
    assert reply.headers.get("content-encoding") == coding
    assert reply.headers.get("vary") == (None if coding is None else "accept-encoding")
    assert int(reply.headers["content-length"]) == len(content)
    if coding is None:
        assert content == LARGE * 8
    else:
        assert len(content) < len(LARGE)
        assert unpack(content, coding, 1 << 30) == LARGE * 8


@pytest.mark.parametrize(
    ("model", "accept", "size", "accept_encoding", "packed"),
    [
        ("echo", "text/csv", WORTHWHILE // 8 - 1, "gzip", False),
        ("echo", "text/csv", WORTHWHILE // 8, "gzip", True),
        ("echo", "application/x-npy", WORTHWHILE, "gzip", False),
        ("echo", "application/x-npy", 10, "gzip, identity;q=0", True),
        ("packs", "text/plain", 10, "gzip", True),
    ],
)
def test_what_is_packed(server: Server, model: str, accept: str, size: int, accept_encoding: str, packed: bool) -> None:
    reply = server.invoke(model, bytes(size), accept=accept, accept_encoding=accept_encoding)
    assert ("content-encoding" in reply.headers) == packed
    assert reply.content == bytes(40000 if model == "packs" else size * 8)  # httpx has unpacked it once


# -- Large bodies --


@pytest.mark.parametrize("size", [SPOOLED - 1, SPOOLED, MAX_BODY])
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
def test_a_large_body_comes_whole(server: Server, size: int, coding: str) -> None:
    body = random.Random(size).randbytes(size)
    packed = body if coding == "identity" else pack(body, coding)
    if len(packed) > MAX_BODY:
        body = body[: size // 2] + bytes(size - size // 2)
        packed = pack(body, coding)
    reply = server.invoke("digest", packed, content_encoding=coding, content_type="application/octet-stream")
    assert reply.json() == ["bytes", size, hashlib.sha256(body).hexdigest()]
    until(lambda: not uploads(server), "nothing is kept of it")


def test_large_bodies_in_chunks_and_in_a_row(server: Server) -> None:
    head = HEAD.replace(b"five.joblib", b"digest").replace(b"application/json", b"application/octet-stream")
    body = bytes(SPOOLED)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(body), body) * 2 + b"0\r\n\r\n"
    plain = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    replies = server.exchange(chunked + plain + plain, 3)
    assert [json.loads(reply.body)[1] for reply in replies] == [2 * SPOOLED, SPOOLED, SPOOLED]


def test_a_body_that_was_released_is_not_read_as_another() -> None:
    first = Spool([b"first"]).end()
    assert first.read() == b"first"
    release(first)
    second = Spool([b"second"]).end()
    assert second.path == first.path
    with pytest.raises(OSError, match="not the body any more"):
        first.read()
    assert second.read() == b"second"
    with pytest.raises(PermissionError), Path(second.path).open("r+b") as file:
        file.write(b"changed")
    release(second)
    with pytest.raises(OSError):
        second.read()


def test_nothing_is_kept_of_large_bodies_that_fail(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % MAX_BODY + bytes(2 * SPOOLED))
        until(lambda: uploads(server) == 1, "it is kept meanwhile")
    until(lambda: not uploads(server), "the client is gone")
    assert server.invoke("digest", bytes(MAX_BODY + 1)).status_code == 413
    assert server.invoke("no-such", bytes(MAX_BODY)).status_code == 404
    assert server.invoke("digest", bytes(2 * SPOOLED), content_encoding="gzip").status_code == 400
    assert server.invoke("five.joblib", bytes(SPOOLED), content_type="application/json").status_code == 400
    until(lambda: not uploads(server), "nothing is kept of them")


# -- Expectations --


def test_a_body_that_is_asked_about_is_sent(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        for _ in range(2):
            sock.sendall(HEAD + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
            assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert file.readline() == b"\r\n"
            sock.sendall(BODY)
            assert read_reply(file).body == b"[5.0]"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Expect: 100-continue\r\nContent-Length: %d\r\n" % (MAX_BODY + 1), 413),
        (b"Expect: 100-continue\r\nContent-Length: 9\r\nContent-Encoding: br\r\n", 415),
        (b"Expect: a-miracle\r\nContent-Length: 9\r\n", 417),
    ],
)
def test_a_body_that_would_be_refused_is_not_waited_for(server: Server, headers: bytes, status: int) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(HEAD + headers + b"\r\n")
        reply = read_reply(file)
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert file.read() == b""


def test_clients_of_http_1_0_are_not_told_to_continue(server: Server) -> None:
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    [reply] = server.exchange(head + BODY)
    assert reply.status == 200

"""What a connection takes of a client, beside requests that are as they should be."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import PATIENCE, TARGET_MODEL, Server, constant, read_reply, script, serve, until, waits

POST = b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
FIVE = POST + TARGET_MODEL.encode() + b": five.joblib\r\nContent-Length: 11\r\n"
BODY = b"[[1,1,1,1]]"
#: Bytes of an answer that no kernel keeps for a client.
SIZE = 24 << 20
LARGE = f"""
SIZE = {SIZE}
def model_fn(model_dir): pass
def input_fn(body, content_type): pass
def predict_fn(data, model): pass
def output_fn(prediction, accept): return b"x" * SIZE, "text/plain"
"""

#: Answers with the status it is sent, and a body that could be taken for the next answer; streamed, if it is negative.
STATUS = """
BODY = b"HTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\n\\r\\nforged"
def model_fn(model_dir, context): pass
def input_fn(body, content_type, context): return int(body)
def predict_fn(data, model, context):
    context.response_status = abs(data)
    return data
def output_fn(prediction, accept, context): return BODY if prediction > 0 else iter([BODY]), "text/plain"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store."""
    folder = tmp_path_factory.mktemp("connections")
    constant(folder / "store" / "five.joblib", 5.0)
    script(folder / "store", "large", LARGE)
    script(folder / "store", "waits", waits(folder / "gate"))
    script(folder / "store", "status", STATUS)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server that does not wait long for clients."""
    with serve(folder, folder / "store", "--workers", "1", "--receive-timeout", "0.5") as running:
        yield running


@pytest.mark.parametrize("sent", [b"POST /invoc", FIVE[:60], FIVE + b"\r\n", FIVE + b"\r\n[[1.0"])
def test_a_request_that_does_not_come(server: Server, sent: bytes) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(sent)
        reply = read_reply(file)
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert b"not complete within 0.5 s" in reply.body
        assert file.read() == b""


def test_an_answer_that_is_not_read(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(POST + TARGET_MODEL.encode() + b": large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        until(lambda: not established(server, sock), "the server has hung up")


def test_an_answer_that_is_read_slowly(server: Server) -> None:
    while (pause := read_slowly(server)) is not None:  # hung up on, as is right only if this process was held up
        assert pause > 0.4, f"the server hung up on a client that paused for {pause:.2f} s"


def read_slowly(server: Server) -> float | None:
    """Read an answer for longer than the server waits for a client that reads nothing, and ask on the same connection.

    :returns: the longest pause in seconds, if the server hangs up.
    """
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(POST + TARGET_MODEL.encode() + b": large\r\nContent-Length: 0\r\n\r\n")
        while file.readline() != b"\r\n":
            pass
        size, pause, last = 0, 0.0, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while size < SIZE and (part := file.read(2 << 20)):
                size += len(part)
                time.sleep(0.1)
                now = time.monotonic()
                pause, last = max(pause, now - last), now
        if size < SIZE:
            return pause
        sock.sendall(FIVE + b"\r\n" + BODY)
        assert read_reply(file).status == 200
    return None


def established(server: Server, sock: socket.socket) -> bool:
    """Say whether the server still has a client's connection."""
    port = sock.getsockname()[1]
    return any(one.raddr and one.raddr.port == port for one in server.processes()[0].net_connections("tcp"))


def test_a_client_may_take_its_time_between_requests(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        for _ in range(3):
            sock.sendall(FIVE + b"\r\n" + BODY)
            assert read_reply(file).status == 200
            server.predict("five.joblib")


def test_nonsense_after_requests_is_answered_after_them(server: Server) -> None:
    first, second, third = server.exchange((FIVE + b"\r\n" + BODY) * 2 + b"nonsense\r\n\r\n", 3)
    assert [first.status, second.status, third.status] == [200, 200, 400]
    assert third.headers["connection"] == "close"


@pytest.mark.parametrize(
    "head",
    [
        FIVE + b"Connection: close\r\n",
        FIVE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_the_last_request_of_a_connection(server: Server, head: bytes) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(head + b"\r\n" + BODY + FIVE)
        reply = read_reply(file)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert file.read() == b""


def test_another_protocol_is_declined(server: Server) -> None:
    head = FIVE + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAI\r\n\r\n"
    replies = server.exchange((head + BODY) * 2, 2)
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"[5.0]")] * 2


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_connection_ends_as_it_is_asked_to_though_another_protocol_is_offered(server: Server, version: bytes) -> None:
    head = FIVE.replace(b"HTTP/1.1", b"HTTP/" + version) + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(head + BODY)
        assert (read_reply(file).status, file.read()) == (200, b"")


def test_a_proxys_form_of_a_path(server: Server) -> None:
    [reply] = server.exchange(FIVE.replace(b"/invocations", b"http://here:80/invocations?a=b") + b"\r\n" + BODY)
    assert reply.status == 200


@pytest.mark.parametrize("line", [b"OPTIONS *", b"CONNECT here:80", b"GET /n%0Ao", b"GET /caf%C3%A9/\xc3\xa9"])
def test_what_names_nothing_here(server: Server, line: bytes) -> None:
    [reply] = server.exchange(line + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    assert reply.status in (400, 404, 405)


def test_trailers_are_no_headers(server: Server) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + BODY + b"\r\n0\r\n"
    [reply] = server.exchange(chunked + TARGET_MODEL.encode() + b": five.joblib\r\n\r\n")
    assert reply.status == 400
    assert b"TargetModel" in reply.body


def test_the_head_alone(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(b"HEAD /ping HTTP/1.1\r\nHost: here\r\n\r\n" + FIVE + b"\r\n" + BODY)
        while file.readline() != b"\r\n":
            pass
        assert read_reply(file).status == 200


@pytest.mark.parametrize(
    ("asked", "status"), [(204, 204), (304, 304), (-204, 204), (100, 500), (-101, 500), (600, 500)]
)
def test_a_status_does_not_let_a_body_pass_for_the_next_answer(server: Server, asked: int, status: int) -> None:
    body = str(asked).encode()
    head = POST + TARGET_MODEL.encode() + b": status\r\nContent-Length: %d\r\n\r\n" % len(body)
    first, second = server.exchange(head + body + FIVE + b"\r\n" + BODY, 2)
    assert first.status == status
    assert ("content-length" in first.headers) == (status == 500), "what has no body announces none"
    assert (second.status, second.body) == (200, b"[5.0]")


def test_stops_after_what_was_begun(folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path, folder / "store", "--workers", "1") as server:
        with server.connect() as idle, server.connect() as begun, server.connect() as running:
            begun.sendall(FIVE)
            running.sendall(FIVE.replace(b"five.joblib", b"waits") + b"\r\n" + BODY)
            until((folder / "gate.waiting").exists, "the model waits")
            server.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            begun.sendall(b"\r\n" + BODY)
            (folder / "gate").touch()
            for sock in (begun, running):
                with sock.makefile("rb") as file:
                    reply = read_reply(file)
                    assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert server.process.wait(PATIENCE) == 0

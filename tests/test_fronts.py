"""Several processes that speak HTTP on one port, in front of one that owns the models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pools import ended
from serving import FLOWER, PATIENCE, TARGET_MODEL, Server, as_json, constant, read_reply, script, serve, until, waits

from manymodels.errors import SettingsError
from manymodels.http.serve import bind

HEAD = b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n" + TARGET_MODEL.encode()
BODY = as_json([FLOWER])
#: Answers with its input, sixteen times.
LARGE = """
def model_fn(model_dir): pass
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return prediction * 16, "text/plain"
"""


def request(model: str) -> bytes:
    """Return the bytes of an invocation."""
    return HEAD + b": %s\r\nContent-Length: %d\r\n\r\n" % (model.encode(), len(BODY)) + BODY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store."""
    folder = tmp_path_factory.mktemp("fronts")
    for value in range(5):
        constant(folder / "store" / f"{value}.joblib", float(value))
    script(folder / "store", "large", LARGE)
    for name in ("waits", "forever"):
        script(folder / "store", name, waits(folder / f"{name}.gate"))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server with three fronts."""
    with serve(folder, folder / "store", "--workers", "1", "--fronts", "3", "--max-body", "1MiB") as running:
        until(lambda: len(fronts(running)) == 3, "the fronts are there")
        yield running


def fronts(server: Server) -> list[psutil.Process]:
    """Return the front processes."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "manymodels.http.front" in child.cmdline()]


def front_of(server: Server, sock: socket.socket) -> psutil.Process | None:
    """Return the front that has a client's connection."""
    port = sock.getsockname()[1]
    for front in fronts(server):
        if any(one.raddr and one.raddr.port == port for one in front.net_connections("tcp")):
            return front
    return None


def test_all_fronts_take_connections(server: Server) -> None:
    socks = [server.connect() for _ in range(60)]
    for sock in socks:
        sock.sendall(request("0.joblib"))
        with sock.makefile("rb") as file:
            assert read_reply(file).body == b"[0.0]"
    assert {front_of(server, sock) for sock in socks} == set(fronts(server))
    for sock in socks:
        sock.close()


def test_a_hundred_clients_get_each_their_own_answers(server: Server) -> None:
    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for turn in range(20):
            value = (number + turn) % 5
            writer.write(request(f"{value}.joblib"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(5) == as_json([float(value)])
        writer.close()

    async def clients() -> None:
        await asyncio.gather(*map(client, range(100)))

    asyncio.run(clients())


def test_errors_are_what_they_are_without_fronts(server: Server) -> None:
    assert server.invoke("none.joblib", [FLOWER]).status_code == 404
    assert server.invoke(None, [FLOWER]).status_code == 400
    assert server.invoke("0.joblib", b"\0" * (1 << 21)).status_code == 413
    reply = server.client.post("/endpoints/e/invocations", content=BODY, headers={TARGET_MODEL: "none.joblib"})
    assert (reply.status_code, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert server.client.get("/nowhere").status_code == 404
    assert server.client.delete("/ping").headers["allow"] == "GET"
    assert server.client.get("/artifacts").json()["artifacts"][:2] == ["0.joblib", "1.joblib"]


def test_large_bodies_pass(server: Server) -> None:
    body = os.urandom(1 << 19).hex()
    for _ in range(3):
        assert server.invoke("large", body, content_type="text/plain").text == body * 16


def test_residency_has_one_owner(server: Server) -> None:
    assert server.predict("1.joblib") == [1.0]
    for _ in range(12):  # each client a connection of its own, so that each front is asked
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/ping").status_code == 200
            assert client.get("/models/1.joblib").json()["modelName"] == "1.joblib"


def test_a_client_that_goes_away_is_not_answered(server: Server, folder: Path) -> None:
    with server.connect() as first, server.connect() as second:
        first.sendall(request("waits"))
        until((folder / "waits.gate.waiting").exists, "the model waits")
        second.sendall(request("waits"))
    (folder / "waits.gate").touch()
    assert server.invoke("waits", [FLOWER]).json() == [1]


def test_a_front_that_is_killed_costs_its_own_connections_alone(server: Server) -> None:
    socks = [server.connect() for _ in range(30)]
    for sock in socks:
        sock.sendall(request("2.joblib"))
        with sock.makefile("rb") as file:
            assert read_reply(file).body == b"[2.0]"
    victim = fronts(server)[0]
    others = [sock for sock in socks if front_of(server, sock) != victim]
    assert 0 < len(others) < len(socks)
    victim.kill()
    until(lambda: ended(victim.pid), "it has ended")
    for sock in others:
        sock.sendall(request("2.joblib"))
        with sock.makefile("rb") as file:
            assert read_reply(file).body == b"[2.0]"
    for _ in range(30):  # some of them wait for the next front
        [reply] = server.exchange(request("3.joblib"))
        assert reply.body == b"[3.0]"
    until(lambda: len(fronts(server)) == 3, "it is started again")
    assert "a front process ended with exit code -9" in server.log()
    for sock in socks:
        sock.close()


def test_stops_after_what_was_begun(folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path, folder / "store", "--workers", "1", "--fronts", "2") as server:
        with server.connect() as idle, server.connect() as running:
            idle.sendall(request("4.joblib"))
            with idle.makefile("rb") as file:
                assert read_reply(file).body == b"[4.0]"
            running.sendall(request("forever"))
            until((folder / "forever.gate.waiting").exists, "the model waits")
            server.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            (folder / "forever.gate").touch()
            with running.makefile("rb") as file:
                reply = read_reply(file)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_second_interrupt_does_not_wait(folder: Path, tmp_path: Path, count: str) -> None:
    script(folder / "store", f"endless{count}", waits(tmp_path / "gate"))
    options = ["--workers", "1", "--fronts", count, "--invocation-timeout", "5"]
    with serve(tmp_path, folder / "store", *options) as server:
        with server.connect() as idle, server.connect() as running:
            running.sendall(request(f"endless{count}"))
            until((tmp_path / "gate.waiting").exists, "the model waits")
            idle.sendall(b"GET /ping HTTP/1.1\r\nHost: here\r\n\r\n")
            with idle.makefile("rb") as file:
                read_reply(file)
            server.process.send_signal(signal.SIGINT)
            assert idle.recv(1) == b""  # the first has been noticed
            server.process.send_signal(signal.SIGINT)
            with contextlib.suppress(ConnectionError):
                assert running.recv(1) == b""
        assert server.process.wait(PATIENCE) == 0


def test_fronts_end_with_their_owner(folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path, folder / "store", "--workers", "1", "--fronts", "2") as server:
        processes = until(lambda: len(fronts(server)) == 2 and server.processes(), "the fronts are there")
        os.kill(server.process.pid, signal.SIGKILL)
        until(lambda: all(ended(process.pid) for process in processes), "all have ended")
        server.process.wait()
        server.process.returncode = 0  # as is wanted here


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_port_belongs_to_one_server(first: int, second: int) -> None:
    socks = bind("127.0.0.1", 0, first)
    for sock in socks:
        sock.listen()
    with pytest.raises(SettingsError, match="cannot listen"):
        bind("127.0.0.1", socks[0].getsockname()[1], second)
    for sock in socks:
        sock.close()

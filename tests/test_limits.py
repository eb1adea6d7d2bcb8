"""What a server keeps has bounds: of requests, and on its disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import FLOWER, Server, archive, constant, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a store and a cache."""
    folder = tmp_path_factory.mktemp("limits")
    constant(folder / "store" / "five.joblib", 5.0)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server that looks at its store at each request, with a cache of its own."""
    options = ["--workers", "1", "--store-refresh", "0", "--cache-dir", str(folder / "cache")]
    options += ["--cache-size", "1MiB"]
    with serve(folder, folder / "store", *options) as running:
        yield running


def cached(folder: Path) -> int:
    """Return how many contents the cache holds."""
    return len(list((folder / "cache" / "contents").iterdir()))


def test_trailers_have_an_end(server: Server) -> None:
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        b"X-Amzn-SageMaker-Target-Model: five.joblib\r\n\r\n2\r\n[]\r\n0\r\n"
    )
    trailer = b"X-Trailer: " + b"x" * 1000 + b"\r\n"
    with server.connect() as sock:
        sock.sendall(head)
        with pytest.raises(ConnectionError):
            sock.sendall(trailer * 100_000)
    assert server.predict("five.joblib") == [5.0]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "9" * 5000])
def test_a_page_has_a_limit(server: Server, limit: str) -> None:
    reply = server.client.get("/models", params={"limit": limit})
    assert reply.status_code == 400
    assert "limit is a number from 1 to 100" in reply.json()["message"]


def test_the_cache_has_an_end(server: Server, folder: Path) -> None:
    """What was replaced or deleted goes first, and nothing that a loaded model uses."""
    assert server.predict("five.joblib") == [5.0]
    path = folder / "store" / "other.tar.gz"
    for value in range(8):
        model = constant(folder / "made" / "model.joblib", float(value)).read_bytes()
        archive(folder / ".other", {"model.joblib": model, "more": os.urandom(250_000)}).replace(path)
        assert server.predict("other.tar.gz") == [value]
    assert 2 <= cached(folder) <= 4
    path.unlink()
    assert server.invoke("other.tar.gz", [FLOWER]).status_code == 404
    assert server.predict("five.joblib") == [5.0]


def test_a_mended_folder_is_not_held_to_what_it_was(server: Server, folder: Path) -> None:
    code = folder / "store" / "mended" / "inference.py"
    code.parent.mkdir()
    code.write_text("import os\nos._exit(4)\n")
    for _ in range(5):
        assert server.invoke("mended", [FLOWER]).status_code == 424
    code.write_text("def model_fn(model_dir): return 8\ndef predict_fn(data, model): return model\n")
    assert server.predict("mended") == 8

"""Hostile and broken input: a clear error with the right status, and a healthy model still answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import pickle
import re
import resource
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from serving import BACKENDS, FLOWER, IRIS, TARGET_MODEL, Server, archive, as_json, constant, iris, script, serve

pytestmark = pytest.mark.backends(*BACKENDS)

BODY = as_json([FLOWER])
LIMIT = 1 << 20
UNPACKED = 32 << 20


@pytest.fixture(scope="module")
def root(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for each backend, since tests write to it."""
    root = tmp_path_factory.mktemp("hostile-store")
    folder = tmp_path_factory.mktemp("iris")
    joblib.dump(iris(), folder / "model.joblib")
    archive(root / IRIS, {"model.joblib": (folder / "model.joblib").read_bytes()})
    constant(root.parent / "outside" / "model.joblib", 666.0)
    (root / "link").symlink_to(root.parent / "outside")
    return root


@pytest.fixture(scope="module")
def strict(backend: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    options = {
        "--workers": "2",
        "--invocation-timeout": "10",
        "--load-timeout": "4",
        "--max-body": "1MiB",
        "--max-unpacked": str(UNPACKED),
        "--memory": "256MiB",
    }
    arguments = (text for pair in options.items() for text in pair)
    with serve(tmp_path_factory.mktemp("strict"), root, *arguments, backend=backend) as server:
        yield server


@pytest.fixture(autouse=True)
def _healthy_model_still_answers(strict: Server) -> Iterator[None]:
    assert strict.predict(IRIS) == [0]
    yield
    assert strict.predict(IRIS) == [0]
    assert strict.client.get("/ping").status_code == 200


def refused(server: Server, target_model: str | None, status: int, said: str, body: bytes = BODY) -> None:
    """Assert that an invocation is refused, with this text and no traceback."""
    reply = server.invoke(target_model, body)
    assert reply.status_code == status, reply.text
    assert reply.json()["code"] == status
    message = reply.json()["message"]
    assert re.search(said, message), message
    assert "Traceback" not in message
    assert "\n" not in message


# -- Names --


@pytest.mark.parametrize(
    ("target_model", "status", "said"),
    [
        ("no-such.tar.gz", 404, "no artifact 'no-such.tar.gz'"),
        ("../iris.tar.gz", 400, r"'\.\.' segment"),
        ("a/../iris.tar.gz", 400, r"'\.\.' segment"),
        ("./iris.tar.gz", 400, "segment"),
        ("/etc/passwd", 400, "absolute"),
        ("C:/windows", 400, "absolute"),
        ("a\\..\\b", 400, "backslash"),
        ("iris.tar.gz/", 400, "empty segment"),
        ("", 400, "empty"),
        (None, 400, "TargetModel header .* missing"),
        ("x" * 2000, 400, "2000 characters"),
        ("é" * 1024, 404, "no artifact"),
        ("/".join("a" * 512), 404, "no artifact"),
        ("%2e%2e", 404, "no artifact '%2e%2e'"),
        ("%2e%2e/iris.tar.gz", 404, "no artifact"),
        ("iris.tar.gz%00", 404, "no artifact"),
        ("iris.tar.gz/model.joblib", 404, "no artifact"),
        (".hidden", 404, "no artifact"),
        ("link", 400, "link out of the model store"),
        ("\u202eiris", 400, "cannot be printed"),
    ],
)
def test_names(strict: Server, target_model: str | None, status: int, said: str) -> None:
    refused(strict, target_model, status, said)


@pytest.mark.parametrize(
    "name", [b"iris\x01.tar.gz", b"iris\x7f.tar.gz", b"iris\x1b[31m", b"iris\t.tar.gz", b"\xff\xfe"]
)
def test_names_with_bytes_that_no_text_has(strict: Server, name: bytes) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    [reply] = strict.exchange(head + TARGET_MODEL.encode() + b": " + name + b"\r\n\r\n[]")
    assert reply.status == 400


# -- Artifacts --


def member(name: str, content: bytes = b"", **fields: object) -> bytes:
    """Return one member of a tar archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf() + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def packed(*members: bytes) -> bytes:
    return gzip.compress(b"".join(members) + bytes(2 * tarfile.BLOCKSIZE), 1)


def model_bytes() -> bytes:
    stream = io.BytesIO()
    joblib.dump(iris(), stream)
    return stream.getvalue()


GOOD = packed(member("model.joblib", model_bytes()))
ARCHIVES = {
    "empty": (b"", "is empty"),
    "corrupt": (b"\x00\x01nonsense" * 100, "not a gzip archive"),
    "truncated": (GOOD[: len(GOOD) // 2], "truncated"),
    "damaged": (GOOD[:-8] + b"12345678", "damaged"),
    "no-tar": (gzip.compress(b"hello" * 1000), "damaged"),
    "no-files": (packed(), "holds no files"),
    "dots": (packed(member("../../evil.py", b"x")), r"\.\."),
    "absolute": (packed(member("/tmp/evil.py", b"x")), "absolute"),
    "symlink": (packed(member("model.joblib", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "neither a file nor"),
    "hard-link": (packed(member("model.joblib", type=tarfile.LNKTYPE, linkname="../x")), "neither a file nor"),
    "device": (packed(member("model.joblib", type=tarfile.CHRTYPE)), "neither a file nor"),
    "too-large": (packed(member("model.joblib", os.urandom(1 << 20) * 33)), "unpacks to more than"),
    "no-model": (packed(member("readme.txt", b"hello")), "readme.txt"),
    "bad-manifest": (packed(member("manymodels.json", b"{")), "manymodels.json"),
    "unknown-framework": (packed(member("manymodels.json", b'{"framework": "magic"}')), "magic"),
    "no-joblib": (packed(member("model.joblib", b"nonsense")), ".+"),
    "empty-joblib": (packed(member("model.joblib", b"")), ".+"),
    "half-joblib": (packed(member("model.joblib", model_bytes()[:300])), ".+"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_broken_archives(strict: Server, root: Path, name: str) -> None:
    content, said = ARCHIVES[name]
    (root / f"{name}.tar.gz").write_bytes(content)
    refused(strict, f"{name}.tar.gz", 424, said)
    refused(strict, f"{name}.tar.gz", 424, said)


@pytest.mark.backends("workers")  # refused by the store, before there is a load
def test_an_archive_of_a_hundred_thousand_members(strict: Server, root: Path) -> None:
    members = [member(f"f{number}") for number in range(10_001)]
    (root / "many.tar.gz").write_bytes(packed(*members, members[-1] * 90_000))
    refused(strict, "many.tar.gz", 424, "more than 10000 files")


@pytest.mark.backends("workers")  # refused by the store, before there is a load
def test_a_bomb(root: Path, store: Path, tmp_path: Path, strict: Server) -> None:
    """Ten GiB of zeros, refused for its size and, where that is allowed, for its ratio."""
    size = 10 << 30
    header = tarfile.TarInfo("model.joblib")
    header.size = size
    part = 64 << 20
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + gzip.compress(bytes(part), 1) * (size // part)
    (root / "bomb.tar.gz").write_bytes(bomb)
    refused(strict, "bomb.tar.gz", 424, "unpacks to more than")
    (store / "bomb.tar.gz").write_bytes(bomb)
    with serve(
        tmp_path, store, "--workers", "1", "--max-unpacked", "100GiB", "--cache-dir", tmp_path / "cache"
    ) as server:
        refused(server, "bomb.tar.gz", 424, "times its size")
        assert server.predict(IRIS) == [0]
    (store / "bomb.tar.gz").unlink()


@pytest.mark.backends("workers")  # refused by the store, before there is a load
def test_a_header_bomb_of_few_bytes(strict: Server, root: Path) -> None:
    """A gzip stream whose end never comes: zeros behind the archive."""
    zeros = zlib.compressobj(1, zlib.DEFLATED, 31)
    tail = zeros.compress(bytes(256 << 20)) + zeros.flush()
    (root / "tail.tar.gz").write_bytes(GOOD + tail)
    refused(strict, "tail.tar.gz", 424, "unpacks to more than")


def test_a_pickle_of_a_class_that_does_not_exist(strict: Server, root: Path) -> None:
    folder = root / "ghost"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"\x80\x04cno_such_module\nGhost\n)\x81.")
    refused(strict, "ghost", 424, "no_such_module")
    folder = root / "ghost-of-sklearn"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"\x80\x04csklearn.linear_model\nGhost\n)\x81.")
    refused(strict, "ghost-of-sklearn", 424, "Ghost")


def test_an_empty_folder_and_a_file_nobody_claims(strict: Server, root: Path) -> None:
    (root / "nothing").mkdir()
    refused(strict, "nothing", 404, "no artifact")
    (root / "notes.txt").write_text("hello")
    refused(strict, "notes.txt", 424, "notes.txt")
    described = strict.client.get("/models/notes.txt")
    assert described.status_code == 404
    assert described.json()["message"].startswith("'notes.txt' is not loaded: no plugin claims 'notes.txt'")


# -- Scripts --

CRASH = {
    "raise": ("raise RuntimeError('no luck today')", "no luck today"),
    "system-exit": ("raise SystemExit(3)", "SystemExit"),
    "loop": ("while True: pass", "did not (load|answer)"),
    "os-exit": ("os._exit(3)", "exited with code 3"),
    "exit-zero": ("os._exit(0)", "exited with code 0"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "abort": ("os.abort()", "SIGABRT"),
    "suicide": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "recursion": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
    "memory": ("bytearray(1 << 40)", "emory"),
    "hog": ("[bytearray(1 << 24) for _ in iter(int, 1)]", "emory"),
}
LOADING = """
import ctypes, os, signal
def model_fn(model_dir):
    {0}
def predict_fn(data, model):
    return [1]
"""
PREDICTING = """
import ctypes, os, signal
def model_fn(model_dir):
    return "model"
def predict_fn(data, model):
    {0}
"""
AT_IMPORT = "import ctypes, os, signal\n{0}\n" + LOADING.format("return 1")


@pytest.mark.parametrize("name", CRASH)
def test_scripts_that_fail_at_load(strict: Server, root: Path, name: str) -> None:
    source, said = CRASH[name]
    script(root, f"load-{name}", LOADING.format(source))
    # Whoever sends SIGKILL, it is taken for the kernel that is short of memory.
    status = 503 if name in ("suicide", "memory", "hog") else 424
    refused(strict, f"load-{name}", status, said)


@pytest.mark.parametrize("name", CRASH)
def test_scripts_that_fail_at_predict(strict: Server, root: Path, name: str) -> None:
    source, said = CRASH[name]
    script(root, f"predict-{name}", PREDICTING.format(source))
    status = {"loop": 504, "memory": 503, "hog": 503}.get(name, 500)
    refused(strict, f"predict-{name}", status, said)


@pytest.mark.parametrize("source", [LOADING, PREDICTING])
def test_a_script_that_closes_the_workers_files(strict: Server, root: Path, source: str) -> None:
    name = "closes-at-load" if source == LOADING else "closes-at-predict"
    script(root, name, source.format("os.closerange(0, 1000)"))
    reply = strict.invoke(name, BODY)
    assert reply.status_code == (424 if source == LOADING else 500)
    assert "worker process" in reply.json()["message"]


def test_scripts_that_fail_at_import(strict: Server, root: Path) -> None:
    script(root, "syntax", "def model_fn(:\n")
    refused(strict, "syntax", 424, r"code/inference\.py, line 1")
    script(root, "import-missing", "import no_such_module_at_all\n")
    refused(strict, "import-missing", 424, r"line 1.*no_such_module_at_all")
    script(root, "import-exit", AT_IMPORT.format("os._exit(1)"))
    refused(strict, "import-exit", 424, "exited with code 1")
    script(root, "import-nothing", "x = 1\n")
    refused(strict, "import-nothing", 424, "model_fn")
    script(root, "import-bytes", "\0\0")
    refused(strict, "import-bytes", 424, ".+")


def test_a_model_that_keeps_killing_its_worker_is_refused_for_a_while(strict: Server, root: Path) -> None:
    script(root, "killer", PREDICTING.format("os._exit(9)"))
    replies = [strict.invoke("killer", BODY) for _ in range(6)]
    assert [reply.status_code for reply in replies] == [500, 500, 500, 424, 424, 424]
    assert "is refused for another" in replies[-1].json()["message"]


# On mms, Java reads what models print, some ten megabytes a second: the model is held up until its deadline.
@pytest.mark.backends("workers")
@pytest.mark.parametrize("line", [99, (1 << 20) - 1])
def test_a_script_that_prints_two_hundred_megabytes(strict: Server, root: Path, line: int) -> None:
    block = f"print(('x' * {line} + chr(10)) * {(1 << 20) // (line + 1)}, end='')"
    loading, predicting = (f"for _ in range({count}): {block}" for count in (40, 160))
    text = "\n    ".join(
        ["def model_fn(model_dir):", loading, "return 1\ndef predict_fn(data, model):", predicting, "return [1]\n"]
    )
    script(root, f"prints-{line}", text)
    before = strict.log_file.stat().st_size
    assert strict.predict(f"prints-{line}") == [1]
    assert strict.log_file.stat().st_size - before < 20 << 20


def test_a_script_that_answers_with_nonsense(strict: Server, root: Path) -> None:
    script(root, "object", PREDICTING.format("return object()"))
    refused(strict, "object", 500, "object")
    script(root, "none", PREDICTING.format("return None"))
    assert strict.predict("none") is None


# -- Requests --


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "."),
        (b"[", "JSON"),
        (b"[[NaN, 1, 1, 1]]", "JSON"),
        (b"[[Infinity, 1, 1, 1]]", "JSON"),
        (b"[[1e999, 1, 1, 1]]", "."),
        (b"[[null, 1, 1, 1]]", "NaN"),
        (b"[[1, 2, 3]]", "4 features"),
        (b"[[1, 2, 3, 4], [1, 2]]", "."),
        (b"[[[1, 2, 3, 4]]]", "."),
        (b"[]", "."),
        (b"{}", "."),
        (b"7", "."),
        (b'"text"', "."),
        (b'[["a", "b", "c", "d"]]', "."),
        (b"[" * 100_000, "."),
        (b"[[" + b"9" * 100_000 + b", 1, 1, 1]]", "."),
        (b'[["\xff\xfe", 1, 1, 1]]', "."),
        (b"\xff\xfe\x00", "."),
    ],
)
def test_bodies_that_are_no_data(strict: Server, body: bytes, said: str) -> None:
    refused(strict, IRIS, 400, said, body)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b"1,2,3\n"),
        ("text/csv", b"1,2,3,4\n1,2\n"),
        ("text/csv", b"a,b,c,d\n"),
        ("text/csv", b"nan,1,1,1\n"),
        ("text/csv", b"inf,1,1,1\n"),
        ("text/csv", b"\xff\xfe,1,1,1\n"),
        ("text/csv", b""),
        ("application/json; charset=utf-16", b"[[1]]\xd8"),
        ("application/x-npy", b"nonsense"),
        (
            "application/x-npy",
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }",
        ),
        ("application/x-npz", b"PK\x03\x04nonsense"),
        ("text/libsvm", b"0 999999999999:1\n"),
        ("text/libsvm", b"0 x:y\n"),
        ("application/jsonlines", b"[1\n2]\n"),
    ],
)
def test_bodies_of_other_types_that_are_no_data(strict: Server, content_type: str, body: bytes) -> None:
    reply = strict.invoke(IRIS, body, content_type=content_type)
    assert reply.status_code == 400, reply.text
    assert reply.json()["message"]


def test_a_body_is_never_unpickled(strict: Server, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)
    for content_type in ("application/x-npy", "application/x-npz"):
        for body in (stream.getvalue(), pickle.dumps(Evil())):
            assert strict.invoke(IRIS, body, content_type=content_type).status_code == 400
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("path", ["/invocations", "/models", f"/models/{IRIS}/invoke"])
def test_a_body_over_the_limit(strict: Server, path: str) -> None:
    headers = {TARGET_MODEL: IRIS}
    for size in (LIMIT + 1, 30 << 20):
        reply = strict.client.post(path, content=bytes(size), headers=headers)
        assert reply.status_code == 413
        assert reply.json()["code"] == 413
        assert str(LIMIT) in reply.json()["message"]
        reply = strict.client.post(
            path, content=(bytes(1 << 16) for _ in range(size // (1 << 16) + 1)), headers=headers
        )
        assert reply.status_code == 413
        assert str(LIMIT) in reply.json()["message"]


def test_a_body_of_just_the_limit(strict: Server) -> None:
    assert strict.client.post("/invocations", content=BODY.ljust(LIMIT), headers={TARGET_MODEL: IRIS}).json() == [0]


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: -1"],
        [b"Content-Length: x"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Transfer-Encoding: chunked", b"", b"ZZ"],
        [b"Bad Header: x", b"Content-Length: 0"],
    ],
)
def test_requests_that_are_not_http(strict: Server, lines: list[bytes]) -> None:
    head = [b"POST /invocations HTTP/1.1", b"Host: x", TARGET_MODEL.encode() + b": iris.tar.gz"]
    [reply] = strict.exchange(b"\r\n".join([*head, *lines, b"", b""]))
    assert reply.status == 400


@pytest.mark.parametrize("piece", [b"x" * (1 << 20), b"x\r\nX-Next: " * 80_000])
def test_a_head_without_end(strict: Server, piece: bytes) -> None:
    """Read until the server hangs up: it may do so while we send."""
    received = b""
    with strict.connect() as sock, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"POST /invocations HTTP/1.1\r\nX-Long: ")
            for _ in range(64):
                sock.sendall(piece)
        while data := sock.recv(1 << 16):
            received += data
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")


# -- Clients that go away --


def test_a_client_that_goes_away_while_it_sends(strict: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n" + TARGET_MODEL.encode()
    for sent in (head[:40], head + b": iris.tar.gz\r\n", head + b": iris.tar.gz\r\n\r\n[[1,"):
        for linger in (False, True):
            with strict.connect() as sock:
                sock.sendall(sent)
                if linger:  # reset instead of an orderly end
                    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))


def test_a_client_that_goes_away_before_or_amid_the_answer(strict: Server, root: Path) -> None:
    source = "def output_fn(prediction, accept):\n    return b'x' * (30 << 20), 'text/plain'\n"
    script(root, "large", PREDICTING.format("return 1") + source)
    request = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + TARGET_MODEL.encode() + b": large\r\n\r\n[]"
    )
    for read in (0, 1, 1 << 16):
        with strict.connect() as sock:
            sock.sendall(request)
            while read > 0 and (data := sock.recv(read)):
                read -= len(data)
    assert len(strict.invoke("large", BODY).content) == 30 << 20


def test_two_thousand_requests_for_a_cold_model_are_one_load(strict: Server, root: Path, tmp_path: Path) -> None:
    counter = tmp_path / "loads"
    source = LOADING.format(f"open({str(counter)!r}, 'a').write('x')")
    script(root, "herd", source)
    request = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
        + TARGET_MODEL.encode()
        + b": herd\r\n\r\n[]"
    )

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
        writer.write(request)
        reply = await reader.read()
        writer.close()
        return reply

    async def all_at_once() -> list[bytes]:
        return list(await asyncio.gather(*(one() for _ in range(2000))))

    replies = asyncio.run(all_at_once())
    assert Counter(reply.split(b"\r\n", 1)[0] for reply in replies) == {b"HTTP/1.1 200 OK": 2000}
    assert all(reply.endswith(b"\r\n\r\n[1]") for reply in replies)
    assert counter.read_text() == "x"
    assert len(re.findall(r"loaded model=herd ", strict.log())) == 1

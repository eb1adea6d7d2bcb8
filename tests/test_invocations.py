"""``POST /invocations``: content types, headers, timings, and HTTP as clients write it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest
import scipy.sparse
from serving import BACKENDS, FLOWER, IRIS, TARGET_MODEL, Server, serve

pytestmark = pytest.mark.backends(*BACKENDS)

ROW = "5.1,3.5,1.4,0.2"


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, scipy.sparse.csr_matrix(array))
    return stream.getvalue()


def timings(reply: httpx.Response) -> set[str]:
    """Return the names in Server-Timing, each with a duration of milliseconds."""
    entries = reply.headers["server-timing"].split(", ")
    assert all(re.fullmatch(r"[a-z]+;dur=\d+\.\d+", entry) for entry in entries)
    return {entry.partition(";")[0] for entry in entries}


def post(*headers: bytes, body: bytes = b"[[5.1, 3.5, 1.4, 0.2]]", target: bytes = IRIS.encode()) -> bytes:
    """Return a request as bytes."""
    lines = [b"POST /invocations HTTP/1.1", b"Host: x", TARGET_MODEL.encode() + b": " + target, *headers]
    return b"\r\n".join([*lines, b"", body])


# -- Answers --


def test_answers_a_bare_list_with_a_bare_list(server: Server) -> None:
    reply = server.invoke(IRIS, [FLOWER, [6.7, 3.0, 5.2, 2.3]])
    assert reply.status_code == 200
    assert reply.json() == [0, 2]
    assert reply.headers["content-type"] == "application/json"
    UUID(reply.headers["x-request-id"])
    assert reply.headers["x-amzn-requestid"] == reply.headers["x-request-id"]


def test_answers_features_in_the_form_of_the_guide(server: Server) -> None:
    reply = server.invoke(IRIS, json.dumps({"features": [FLOWER]}), content_type="application/json")
    answer = reply.json()
    assert answer["predictions"] == [0]
    assert sum(answer["probabilities"][0]) == pytest.approx(1)
    assert len(answer["probabilities"][0]) == 3
    assert answer["model_metadata"]["owner"] == "botany"


@pytest.mark.parametrize(
    ("target_model", "answer"),
    [
        (IRIS, [0]),
        ("team/deep/iris.tar.gz", [0]),
        ("modèle.tar.gz", [0]),
        ("with space.tar.gz", [0]),
        ("%2e%2e.tar.gz", [0]),
        ("folder", [7.0]),
        ("model.joblib", [8.0]),
    ],
)
def test_serves_every_kind_of_artifact(server: Server, target_model: str, answer: list[float]) -> None:
    assert server.predict(target_model) == answer


def test_serves_xgboost(server: Server) -> None:
    answer = server.predict("booster.ubj")
    assert json.dumps(answer).count("0.") >= 1
    reply = server.invoke(
        "booster.ubj", f"0 1:{FLOWER[0]} 2:{FLOWER[1]} 3:{FLOWER[2]} 4:0.2\n", content_type="text/libsvm"
    )
    assert reply.status_code == 200, reply.text
    assert reply.json() == answer


# -- Content types in --


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", f"[[{ROW}]]".encode()),
        ("application/json; charset=utf-8", f"[[{ROW}]]".encode()),
        ("Application/JSON;CHARSET=UTF-8", f"[[{ROW}]]".encode()),
        ("application/json", f"[{ROW}]".encode()),
        ("text/csv", b" 5.1, 3.5 ,1.4, 0.2 \n"),
        ("text/csv; header=absent", b'"5.1","3.5","1.4","0.2"\r\n'),
        ("TEXT/CSV", ROW.encode()),
        ("application/jsonlines", f"[{ROW}]\n".encode()),
        ("application/x-npy", npy(np.array([FLOWER]))),
        ("application/x-npz", npz(np.array([FLOWER]))),
        ("text/libsvm", b"0 1:5.1 2:3.5 3:1.4 4:0.2\n"),
    ],
)
def test_reads_content_types(server: Server, content_type: str, body: bytes) -> None:
    reply = server.client.post("/invocations", content=body, headers={TARGET_MODEL: IRIS, "content-type": content_type})
    assert reply.status_code == 200, reply.text
    assert reply.json() == [0]


def test_takes_an_absent_content_type_for_json(server: Server) -> None:
    assert server.invoke(IRIS, f"[[{ROW}]]").json() == [0]


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/x-python-pickle", "nonsense", "application/json; charset=x-7"]
)
def test_refuses_other_content_types(server: Server, content_type: str) -> None:
    reply = server.invoke(IRIS, b"[[1]]", content_type=content_type)
    assert reply.status_code == 415
    assert reply.json()["type"] == "UnsupportedContentType"
    assert reply.json()["code"] == 415
    assert "is not supported; send one of" in reply.json()["message"]


# -- Content types out --


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("text/csv", "text/csv", b"0\n2\n"),
        ("application/jsonlines", "application/jsonlines", b"0\n2\n"),
        ("*/*", "application/json", b"[0,2]"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv", b"0\n2\n"),
        ("text/csv;q=0.1, */*;q=0.9", "application/json", b"[0,2]"),
        ("image/png, application/json; q=0.1", "application/json", b"[0,2]"),
        ("TEXT/CSV", "text/csv", b"0\n2\n"),
    ],
)
def test_writes_what_is_accepted(server: Server, accept: str, content_type: str, body: bytes) -> None:
    reply = server.invoke(IRIS, [FLOWER, [6.7, 3.0, 5.2, 2.3]], accept=accept)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].partition(";")[0] == content_type
    assert reply.content == body


def test_writes_npy(server: Server) -> None:
    reply = server.invoke(IRIS, [FLOWER], accept="application/x-npy")
    assert np.load(io.BytesIO(reply.content)).tolist() == [0]


def test_joins_several_accept_headers(server: Server) -> None:
    [reply] = server.exchange(
        post(b"Content-Length: 22", b"Accept: image/png", b"Accept: text/csv"),
    )
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "text/csv", b"0\n")


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "application/json;q=x"])
def test_refuses_other_accepts(server: Server, accept: str) -> None:
    reply = server.invoke(IRIS, [FLOWER], accept=accept)
    assert reply.status_code == 406
    assert reply.json()["type"] == "UnsupportedAccept"


@pytest.mark.backends("workers")  # in a single-model container on every backend: test_roles.py
def test_the_operator_chooses_where_the_client_does_not(store: Path, tmp_path: Path) -> None:
    env = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    with serve(tmp_path, store, "--workers", "1", env=env) as server:
        for accept in ("*/*", ""):
            reply = server.invoke(IRIS, [FLOWER], accept=accept)
            assert (reply.status_code, reply.content) == (200, b"0\n")
        assert server.invoke(IRIS, [FLOWER], accept="application/json").content == b"[0]"


# -- Timings and headers --


def test_says_where_the_time_went(server: Server) -> None:
    assert timings(server.invoke("timed", [FLOWER])) == {"queue", "predict", "fetch", "load", "total"}
    assert timings(server.invoke("timed", [FLOWER])) >= {"queue", "predict", "total"}
    assert timings(server.client.get("/ping")) == {"total"}


@pytest.mark.parametrize(
    ("target_model", "body", "status"), [(None, "", 400), ("missing", "", 404), (IRIS, "[", 400), (IRIS, "[[1]]", 400)]
)
def test_errors_have_timings_and_request_ids(server: Server, target_model: str | None, body: str, status: int) -> None:
    reply = server.invoke(target_model, body)
    assert reply.status_code == status
    assert timings(reply)
    UUID(reply.headers["x-request-id"])
    assert reply.headers["x-amzn-requestid"] == reply.headers["x-request-id"]
    assert set(reply.json()) == {"code", "type", "message"}
    assert reply.json()["code"] == status


def test_every_request_has_an_id_of_its_own(server: Server) -> None:
    ids = {server.invoke(IRIS, [FLOWER]).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_a_script_echoes_custom_attributes(server: Server) -> None:
    reply = server.invoke("echo", "{}", X_Amzn_SageMaker_Custom_Attributes="trace=7")
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=7"


def test_a_script_sets_the_status(server: Server) -> None:
    reply = server.invoke("echo", json.dumps({"status": 418}))
    assert reply.status_code == 418
    assert reply.json() == {"status": 418}


def test_a_script_cannot_forge_headers(server: Server) -> None:
    headers = {
        "X-Split": "a\r\nX-Forged: y",
        "X-Bad\r\nX-Forged": "y",
        "X-Unicode": "snow \u2603",
        "Content-Length": "1",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
    }
    body = {"headers": headers, "type": "text/plain\r\nX-Forged: y"}
    reply = server.invoke("echo", json.dumps(body))
    assert reply.status_code == 200
    assert "x-forged" not in reply.headers
    assert reply.headers["x-split"].split() == ["a", "X-Forged:", "y"]
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert "transfer-encoding" not in reply.headers
    assert reply.headers["content-type"].startswith("text/plain ")
    assert reply.json() == body


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml"],
)
def test_an_answer_that_browsers_run_scripts_of_is_sandboxed(server: Server, content_type: str) -> None:
    headers = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "none", "X-Tag": "7"}
    reply = server.invoke("echo", json.dumps({"type": content_type, "headers": headers}))
    assert reply.headers["content-type"] == content_type
    assert reply.headers.get_list("content-security-policy") == ["sandbox"]
    assert reply.headers.get_list("x-content-type-options") == ["nosniff"]
    assert reply.headers["x-tag"] == "7"


def test_other_answers_are_not_sandboxed(server: Server) -> None:
    for content_type in ("application/json", "text/plain", "text/csv", "application/vnd.openxmlformats"):
        reply = server.invoke("echo", json.dumps({"type": content_type}))
        assert reply.status_code == 200
        assert "content-security-policy" not in reply.headers
        assert "x-content-type-options" not in reply.headers


# -- HTTP --


def test_reads_chunked_bodies(server: Server) -> None:
    reply = server.client.post(
        "/invocations", content=iter([b"[[5.1, 3.5,", b" 1.4, 0.2]]"]), headers={TARGET_MODEL: IRIS}
    )
    assert reply.request.headers["transfer-encoding"] == "chunked"
    assert reply.json() == [0]


def test_says_that_it_will_take_the_body(server: Server) -> None:
    body = f"[[{ROW}]]".encode()
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(post(b"Content-Length: %d" % len(body), b"Expect: 100-continue", body=b""))
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert file.readline() == b"\r\n"
        sock.sendall(body)
        assert file.readline().startswith(b"HTTP/1.1 200 ")


def test_answers_pipelined_requests_in_their_order(server: Server) -> None:
    request = post(b"Content-Length: 22")
    other = post(b"Content-Length: 22", target=b"missing")
    replies = server.exchange(request + other + request, replies=3)
    assert [reply.status for reply in replies] == [200, 404, 200]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_takes_post_alone(server: Server, method: str) -> None:
    reply = server.client.request(method, "/invocations")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    if method != "HEAD":
        assert reply.json()["code"] == 405


@pytest.mark.parametrize("path", ["/nothing", "/invocations/", "/endpoints/x", "/pingg"])
def test_other_paths_are_not_found(server: Server, path: str) -> None:
    reply = server.client.post(path)
    assert reply.status_code == 404
    assert reply.json()["code"] == 404


def test_what_is_not_http_is_answered_with_400(server: Server) -> None:
    [reply] = server.exchange(b"GET nonsense\r\n\r\n")
    assert reply.status == 400
    assert server.predict(IRIS) == [0]

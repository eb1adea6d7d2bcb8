"""Answers that are sent while the model still makes them."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from serving import FLOWER, TARGET_MODEL, Server, constant, script, serve, until

from manymodels.http.events import _PAYLOAD, event
from manymodels.invocation import PART, Parts
from manymodels.server.messages import WINDOW
from manymodels.server.streams import Stream

#: Yields what a request says, step by step, and writes down how far it is.
STEPS = """
import json, os, time
from pathlib import Path
from manymodels.errors import BadInput

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(data, model, context):
    context.set_response_content_type(0, data.get("type", "text/plain"))
    if "id" in data:
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", data["id"])
    at = Path(data.get("at", os.devnull))
    try:
        for number, step in enumerate(data["steps"]):
            if isinstance(step, str):
                yield step
            elif "gate" in step:
                while not Path(step["gate"]).exists():
                    time.sleep(0.01)
            elif "bytes" in step:
                for count in range(step["times"]):
                    at.write_text(str(count))
                    yield bytes(step["bytes"])
            elif "refuse" in step:
                raise BadInput(step["refuse"])
            elif "exit" in step:
                os._exit(3)
            else:
                raise KeyError(step["raise"])
    finally:
        at.write_text("closed")
"""
#: The same through output_fn and transform_fn.
OUTPUT = """
def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body

def predict_fn(data, model):
    return data.split()

def output_fn(prediction, accept):
    yield b"<"
    for word in prediction:
        yield word.encode() + b"|"
"""
TRANSFORM = """
def model_fn(model_dir):
    return None

def transform_fn(model, data, content_type, accept):
    return (word + "|" for word in data.split()), "text/event-stream"
"""


@pytest.fixture(scope="module", params=[1, 2])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of streaming models, in one process and with fronts."""
    store = tmp_path_factory.mktemp("streams")
    script(store, "steps", STEPS)
    script(store, "output", OUTPUT)
    script(store, "transform", TRANSFORM)
    constant(store / "constant" / "model.joblib", 7.0)
    options = ("--workers", "1", "--fronts", str(request.param), "--max-body", "1MiB")
    with serve(tmp_path_factory.mktemp("server"), store, *options) as running:
        yield running


def stream(runtime: Any, *steps: Any, **more: Any) -> Any:
    """Ask the model of steps for a stream."""
    body = json.dumps({"steps": steps, **more})
    return runtime.invoke_endpoint_with_response_stream(EndpointName="e", InferenceComponentName="steps", Body=body)


def parts(reply: Any) -> Iterator[bytes]:
    """Yield the payloads of a stream."""
    with contextlib.closing(reply["Body"]) as happenings:
        for happening in happenings:
            yield happening["PayloadPart"]["Bytes"]


def test_parts_come_before_the_model_is_done(server: Server, runtime: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    reply = stream(runtime, "a", "é", {"gate": str(gate)}, "c", id="trace=9")
    assert reply["ContentType"] == "text/plain"
    assert reply["CustomAttributes"] == "trace=9"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    events = parts(reply)
    assert [next(events), next(events)] == [b"a", "é".encode()]
    assert server.predict("constant") == [7.0]  # others do not wait for it
    gate.touch()
    assert list(events) == [b"c"]


def test_plain_clients_get_chunks(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = json.dumps({"steps": ["a", {"gate": str(gate)}, "", "b"]})
    for path in ("/invocations", "/models/steps/invoke"):
        gate.unlink(missing_ok=True)
        with server.client.stream("POST", path, content=body, headers={TARGET_MODEL: "steps"}) as reply:
            assert reply.headers["transfer-encoding"] == "chunked"
            assert "content-length" not in reply.headers
            chunks = reply.iter_raw()
            assert next(chunks) == b"a"
            gate.touch()
            assert b"".join(chunks) == b"b"
    assert server.predict("constant") == [7.0]


def test_a_stream_that_browsers_run_scripts_of_is_sandboxed(server: Server, runtime: Any) -> None:
    reply = server.invoke("steps", json.dumps({"steps": ["a", "b"], "type": "text/html"}))
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers["content-security-policy"] == "sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"
    events = stream(runtime, "a", "b", type="text/html")
    assert list(parts(events)) == [b"a", b"b"]
    assert "content-security-policy" not in events["ResponseMetadata"]["HTTPHeaders"]


def test_a_client_of_http_1_0_gets_no_chunks(server: Server) -> None:
    body = json.dumps({"steps": ["a", "b"]})
    with server.connect() as sock, sock.makefile("rb") as file:
        sock.sendall(
            f"POST /invocations HTTP/1.0\r\n{TARGET_MODEL}: steps\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head, _, content = file.read().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert content == b"ab"


@pytest.mark.parametrize(
    ("model", "content", "content_type"),
    [("output", b"<x|y|", "application/x-words"), ("transform", b"x|y|", "text/event-stream")],
)
def test_the_functions_of_a_script_may_yield(
    runtime: Any, server: Server, model: str, content: bytes, content_type: str
) -> None:
    assert server.invoke(model, "x y", accept="application/x-words", content_type="text/csv").content == content
    reply = runtime.invoke_endpoint_with_response_stream(
        EndpointName="e", InferenceComponentName=model, Body="x y", ContentType="text/csv", Accept="application/x-words"
    )
    assert reply["ContentType"] == content_type
    assert b"".join(parts(reply)) == content


def test_invoke_endpoint_answers_in_one_piece(runtime: Any) -> None:
    body = json.dumps({"steps": ["a", "b"]})
    reply = runtime.invoke_endpoint(EndpointName="e", TargetModel="steps", Body=body)
    assert int(reply["ResponseMetadata"]["HTTPHeaders"]["content-length"]) == 2
    assert reply["Body"].read() == b"ab"


@pytest.mark.parametrize(
    ("steps", "status", "said"),
    [
        (["a", {"raise": "the key"}], 500, "the key"),
        (["a", {"refuse": "no such number"}], 400, "no such number"),
        ([{"bytes": 1 << 16, "times": 10_000}], 500, "more than 1048576 bytes"),
    ],
)
def test_what_cannot_be_collected_is_a_model_error(runtime: Any, steps: list[Any], status: int, said: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName="e", TargetModel="steps", Body=json.dumps({"steps": steps}))
    assert caught.value.response["OriginalStatusCode"] == status
    assert said in caught.value.response["OriginalMessage"]


def test_an_error_before_the_first_part_is_an_ordinary_one(runtime: Any, server: Server) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        stream(runtime, {"refuse": "no such number"})
    assert caught.value.response["OriginalStatusCode"] == 400
    assert server.invoke("steps", json.dumps({"steps": [{"refuse": "x"}]})).status_code == 400
    assert b"".join(parts(stream(runtime))) == b""


@pytest.mark.parametrize(
    ("step", "said"),
    [({"raise": "the key"}, "the key"), ({"exit": 1}, "exited with code 3"), ({"refuse": "that"}, "that")],
)
def test_a_stream_that_breaks_off_says_so(runtime: Any, step: dict[str, Any], said: str) -> None:
    events = parts(stream(runtime, "a", step))
    assert next(events) == b"a"
    with pytest.raises(botocore.exceptions.EventStreamError, match=said) as caught:
        next(events)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


def test_a_plain_reply_that_breaks_off_has_no_end(server: Server) -> None:
    body = json.dumps({"steps": ["a", {"raise": "the key"}]})
    with pytest.raises(httpx.RemoteProtocolError):
        server.client.post("/invocations", content=body, headers={TARGET_MODEL: "steps"})


def test_a_stream_over_the_deadline_breaks_off(server: Server, tmp_path: Path) -> None:
    at = tmp_path / "at"
    loaded = server.client.post("/invocations", content=b'{"steps": ["a"]}', headers={TARGET_MODEL: "steps"})
    assert loaded.status_code == 200
    before = server.workers("steps")
    body = json.dumps({"steps": ["a", {"bytes": 1, "times": 1 << 40}], "at": str(at)})
    reply = server.client.post(
        "/endpoints/e/invocations-response-stream",
        content=body,
        headers={TARGET_MODEL: "steps", "X-Envoy-Expected-Rq-Timeout-Ms": "2000"},
    )
    buffer = EventStreamBuffer()
    buffer.add_data(reply.content)
    *_, last = list(buffer)
    assert last.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(last.payload)["ErrorCode"] == "ModelInvocationTimeExceeded"
    assert "did not answer within 2 s" in json.loads(last.payload)["Message"]
    until(lambda: at.read_text() == "closed", "the generator is closed")
    assert server.predict("constant") == [7.0]
    assert server.workers("steps") == before


def ask(server: Server, **content: Any) -> http.client.HTTPConnection:
    """Ask the model of steps, and read nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/invocations", json.dumps(content), {TARGET_MODEL: "steps"})
    return connection


def test_a_client_that_does_not_read_holds_up_the_model_not_the_memory(server: Server, tmp_path: Path) -> None:
    at = tmp_path / "at"
    with contextlib.closing(ask(server, steps=[{"bytes": 1 << 20, "times": 100}], at=str(at))) as connection:
        until(at.exists, "the model has begun")
        threading.Event().wait(0.5)
        assert int(at.read_text()) < 20  # of the 100 that it would make at once
        assert len(connection.getresponse().read()) == 100 << 20
    assert at.read_text() == "closed"


def test_a_client_that_goes_away_ends_the_stream(server: Server, tmp_path: Path) -> None:
    at = tmp_path / "at"
    connection = ask(server, steps=[{"bytes": 1 << 16, "times": 1 << 40}], at=str(at))
    until(at.exists, "the model has begun")
    connection.close()
    until(lambda: at.read_text() == "closed", "the generator is closed")
    assert server.predict("constant") == [7.0]


def test_a_model_is_in_use_until_its_stream_ends(server: Server, runtime: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    events = parts(stream(runtime, "a", {"gate": str(gate)}, "b"))
    assert next(events) == b"a"
    unload = threading.Thread(target=server.client.delete, args=("/models/steps",))
    unload.start()
    unload.join(0.3)
    assert unload.is_alive()
    gate.touch()
    assert list(events) == [b"b"]
    unload.join()
    assert "steps" not in server.loaded()


def test_what_is_not_streamed_comes_in_parts_too(runtime: Any) -> None:
    reply = runtime.invoke_endpoint_with_response_stream(
        EndpointName="e", InferenceComponentName="constant", Body=json.dumps([FLOWER] * 30_000)[:-1] + "]"
    )
    assert reply["ContentType"] == "application/json"
    pieces = list(parts(reply))
    assert json.loads(b"".join(pieces)) == [7.0] * 30_000
    assert max(map(len, pieces)) == PART


def test_a_stream_opens_no_session(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="NEW_SESSION"):
        runtime.invoke_endpoint_with_response_stream(
            EndpointName="e", InferenceComponentName="constant", Body="[]", SessionId="NEW_SESSION"
        )


# -- By itself --


def test_an_event_is_what_aws_documents() -> None:
    assert event(_PAYLOAD, b"hi").hex() == (
        "0000006b00000059997770650b3a6576656e742d7479706507000b5061796c6f6164506172740d3a636f6e74656e742d7479706507"
        "00186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d747970650700056576656e746869f0e10a16"
    )


def test_a_worker_may_not_send_more_than_is_read() -> None:
    held = Stream(lambda _: None, lambda: None)
    for _ in range(WINDOW // PART + 1):
        held.feed(bytes(PART))
    with pytest.raises(LookupError, match="were asked for"):
        held.feed(b"1")


@pytest.mark.parametrize("wrong", [1, None, ["a"], "\ud800"])
def test_what_is_yielded_has_to_be_bytes_or_text(wrong: Any) -> None:
    made = Parts(iter([b"", bytearray(b"a"), "b" * (PART + 1), wrong]), lambda error: RuntimeError(str(error)))
    assert [len(next(made)) for _ in range(3)] == [1, PART, 1]
    with pytest.raises(RuntimeError):
        next(made)

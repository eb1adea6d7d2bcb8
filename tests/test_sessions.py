"""Stateful sessions: boto3 opens, uses and closes them, and each stays with the worker that opened it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import FLOWER, Server, script, serve, until, waits

#: Adds up numbers, in each session for itself.
SUMS = """
import uuid
from manymodels.errors import BadInput

SESSION = "X-Amzn-SageMaker-Session-Id"

def model_fn(model_dir):
    return {}

def input_fn(body, content_type):
    return body

def predict_fn(data, sums, context):
    session = context.get_request_header(0, SESSION)
    if session == "NEW_SESSION":
        session = str(uuid.uuid4())
        sums[session] = 0
        opened = session + "; Expires=2100-01-01T00:00:00Z" if data.isdigit() else data
        context.set_response_header(0, "X-Amzn-SageMaker-New-Session-Id", opened)
        data = "0" if opened == data else data
    if session not in sums:
        raise BadInput(f"there is no session {session}")
    if data == "close":
        context.set_response_header(0, "X-Amzn-SageMaker-Closed-Session-Id", session)
        return sums.pop(session)
    sums[session] += int(data)
    return sums[session]

def output_fn(prediction, accept):
    yield str(prediction)
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates") / "gate"


@pytest.fixture(scope="module")
def server(gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose only worker is soon held up."""
    store = tmp_path_factory.mktemp("store")
    script(store, "sums", SUMS)
    script(store, "slow", waits(gate))
    options = ("--workers", "1", "--slow-after", "0.05")
    with serve(tmp_path_factory.mktemp("server"), store, *options) as running:
        yield running


def ask(runtime: Any, body: str, session: str = "NEW_SESSION") -> Any:
    """Ask the model; return its reply with what it said."""
    reply = runtime.invoke_endpoint(
        EndpointName="e", TargetModel="sums", Body=body, ContentType="text/csv", SessionId=session
    )
    return {**reply, "said": reply["Body"].read()}


def test_a_session_is_opened_used_and_closed(runtime: Any) -> None:
    opened = [ask(runtime, "1"), ask(runtime, "10")]
    first, second = (reply["NewSessionId"].partition("; Expires=2100-01-01T00:00:00Z")[0] for reply in opened)
    assert [ask(runtime, "2", session)["said"] for session in (first, second, first)] == [b"3", b"12", b"5"]
    reply = runtime.invoke_endpoint_with_response_stream(
        EndpointName="e", InferenceComponentName="sums", Body="4", ContentType="text/csv", SessionId=second
    )
    assert [event["PayloadPart"]["Bytes"] for event in reply["Body"]] == [b"16"]
    closed = ask(runtime, "close", first)
    assert (closed["ClosedSessionId"], closed["said"]) == (first, b"5")
    with pytest.raises(runtime.exceptions.ModelError, match=first) as caught:
        ask(runtime, "1", first)
    assert caught.value.response["OriginalStatusCode"] == 400
    assert ask(runtime, "1", second)["said"] == b"17"


@pytest.mark.parametrize("opened", ["bare", "a_b; Expires=2100-01-01T00:00:00Z", "a; Expires=soon", "a" * 257])
def test_a_session_has_the_form_of_the_contract(runtime: Any, opened: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError, match="ID; Expires=YYYY-MM-DDThh:mm:ssZ") as caught:
        ask(runtime, opened)
    assert caught.value.response["OriginalStatusCode"] == 500


def test_a_session_waits_for_its_worker(server: Server, runtime: Any, gate: Path) -> None:
    """Others move to another worker when theirs is held up, where the session would not be known."""
    session = ask(runtime, "1")["NewSessionId"].partition(";")[0]
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(server.invoke, "slow", [FLOWER])
        until(gate.with_suffix(".waiting").exists, "the worker is held up")
        used = threads.submit(ask, runtime, "2", session)
        other = ask(runtime, "100")  # of the same model, and moves
        assert other["said"] == b"100"
        assert not used.done()
        gate.touch()
        assert used.result()["said"] == b"3"
        assert slow.result().status_code == 200
    assert len(server.workers("sums")) == 2
    # Each is known where it is.
    assert ask(runtime, "1", session)["said"] == b"4"
    assert ask(runtime, "1", other["NewSessionId"].partition(";")[0])["said"] == b"101"

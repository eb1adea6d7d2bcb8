"""The endpoint API as an unmodified boto3 client sees it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore import UNSIGNED
from serving import BACKENDS, FLOWER, IRIS, Server, as_json, constant, runtime_client, script, serve, until, waits

pytestmark = pytest.mark.backends(*BACKENDS)

BODY = as_json([FLOWER])
#: The members that a model is told of, and as what.
HEADERS = {
    "InferenceId": "x-amzn-sagemaker-inference-id",
    "PrefixAwareId": "x-amzn-sagemaker-prefix-aware-id",
    "SessionId": "x-amzn-sagemaker-session-id",
    "CustomAttributes": "x-amzn-sagemaker-custom-attributes",
    "ContentType": "content-type",
    "Accept": "accept",
}


def answer(reply: Any) -> Any:
    """Return the JSON of a reply."""
    with reply["Body"] as stream:
        return json.loads(stream.read())


# -- Answers --


@pytest.mark.parametrize(
    "target_model", [IRIS, "team/deep/iris.tar.gz", "with space.tar.gz", "modèle.tar.gz", "%2e%2e.tar.gz"]
)
def test_invokes_a_model_by_its_name(runtime: Any, target_model: str) -> None:
    reply = runtime.invoke_endpoint(
        EndpointName="any", TargetModel=target_model, ContentType="application/json", Body=BODY
    )
    assert answer(reply) == [0]
    assert reply["ContentType"] == "application/json"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    metadata = reply["ResponseMetadata"]
    assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-request-id"]
    assert metadata["HTTPStatusCode"] == 200
    assert metadata["RetryAttempts"] == 0


@pytest.mark.parametrize("kind", [bytes, bytes.decode, io.BytesIO, bytearray])
def test_takes_bodies_of_any_kind_without_a_content_type(runtime: Any, kind: Callable[[bytes], Any]) -> None:
    assert answer(runtime.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=kind(BODY))) == [0]


def test_reads_and_writes_csv(runtime: Any) -> None:
    reply = runtime.invoke_endpoint(
        EndpointName="e", TargetModel=IRIS, ContentType="text/csv", Accept="text/csv", Body="5.1,3.5,1.4,0.2\n"
    )
    assert reply["ContentType"].partition(";")[0] == "text/csv"
    with reply["Body"] as stream:
        assert stream.read() == b"0\n"


@pytest.mark.parametrize("endpoint", ["a b", "Prod-7", "a/b", "ü", "models", "%2F"])
def test_accepts_any_endpoint_name(runtime: Any, endpoint: str) -> None:
    assert answer(runtime.invoke_endpoint(EndpointName=endpoint, TargetModel=IRIS, Body=BODY)) == [0]


def test_passes_custom_attributes_both_ways(runtime: Any) -> None:
    reply = runtime.invoke_endpoint(EndpointName="e", TargetModel="echo", Body="{}", CustomAttributes="trace=9")
    assert reply["CustomAttributes"] == "trace=9"
    reply["Body"].close()


def test_members_reach_the_model(runtime: Any) -> None:
    members = {
        "InferenceId": "inference 7",
        "PrefixAwareId": "prefix-1",
        "SessionId": "session-1",
        "CustomAttributes": "c" * 1024,
        "ContentType": "application/json; charset=utf-8",
        "Accept": "application/json",
    }
    reply = runtime.invoke_endpoint(EndpointName="e", TargetModel="echo", Body='{"told": 1}', **members)
    told = answer(reply)["told"]
    assert told["x-amzn-sagemaker-target-model"] == "echo"
    assert {name: told[header] for name, header in HEADERS.items()} == members


@pytest.mark.parametrize("explanations", [{}, {"EnableExplanations": "`false`"}])
def test_the_variant_asked_for_answers(runtime: Any, explanations: dict[str, str]) -> None:
    reply = runtime.invoke_endpoint(
        EndpointName="e", TargetModel=IRIS, TargetVariant="blue-2", Body=BODY, **explanations
    )
    assert reply["InvokedProductionVariant"] == "blue-2"
    assert answer(reply) == [0]


@pytest.mark.parametrize("name", [IRIS, "modèle.tar.gz"])
def test_an_inference_component_is_a_model(runtime: Any, name: str) -> None:
    assert answer(runtime.invoke_endpoint(EndpointName="e", InferenceComponentName=name, Body=BODY)) == [0]


def test_answers_a_stream_in_parts(runtime: Any) -> None:
    for model, body, content in (("words", '"a b"', b"a|b|"), (IRIS, BODY, b"[0]")):
        reply = runtime.invoke_endpoint_with_response_stream(EndpointName="e", InferenceComponentName=model, Body=body)
        with closing(reply["Body"]) as events:
            assert b"".join(event["PayloadPart"]["Bytes"] for event in events) == content
        assert reply["ContentType"] == "application/json"


def test_needs_no_signature(server: Server) -> None:
    client = runtime_client(server.url, signature_version=UNSIGNED)
    assert answer(client.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=BODY)) == [0]
    client.close()


def test_is_found_by_an_environment_variable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("sagemaker-runtime", region_name="us-east-1")
    assert answer(client.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=BODY)) == [0]
    client.close()


# -- Errors --


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"TargetModel": "missing.tar.gz"}, "missing.tar.gz"),
        ({"TargetModel": "missing/é"}, "missing/é"),
        ({"TargetModel": "../iris.tar.gz"}, "'..'"),
        ({"TargetModel": "/etc/passwd"}, "absolute"),
        ({"TargetModel": "x" * 2000}, "2000 characters"),
        ({}, "TargetModel"),
    ],
)
def test_a_wrong_target_model_is_a_validation_error(runtime: Any, target: dict[str, str], said: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="e", Body=BODY, **target)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert said in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["ResponseMetadata"]["RequestId"]
    assert isinstance(caught.value, runtime.exceptions.ValidationError)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"ContentType": "t" * 1025}, "ContentType has 1025"),
        ({"Accept": "a" * 1025}, "Accept has 1025"),
        ({"CustomAttributes": "c" * 1025}, "CustomAttributes has 1025"),
        ({"InferenceId": "i" * 65}, "InferenceId has 65"),
        ({"PrefixAwareId": "p" * 65}, "PrefixAwareId has 65"),
        ({"SessionId": "s" * 257}, "SessionId has 257"),
        ({"SessionId": "a session"}, "SessionId is 'a session'"),
        ({"TargetVariant": "v" * 64}, "TargetVariant has 64"),
        ({"TargetVariant": "-"}, "TargetVariant is '-'"),
        ({"TargetContainerHostname": "second"}, "TargetContainerHostname"),
        ({"EnableExplanations": "`true`"}, "EnableExplanations"),
        ({"InferenceComponentName": "echo"}, "both name the model"),
    ],
)
def test_a_wrong_member_is_a_validation_error(runtime: Any, member: dict[str, str], said: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=BODY, **member)
    assert said in caught.value.response["Error"]["Message"]


@pytest.mark.parametrize("name", ["missing.tar.gz", "../iris.tar.gz"])
def test_a_wrong_inference_component_is_a_validation_error(runtime: Any, name: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match=r"missing|'\.\.'"):
        runtime.invoke_endpoint(EndpointName="e", InferenceComponentName=name, Body=BODY)


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"Body": "[[1, 2]]"}, 400, "4 features"),
        ({"Body": "[[NaN, 1, 1, 1]]"}, 400, "JSON"),
        ({"Body": "x", "ContentType": "image/png"}, 415, "image/png"),
        ({"Body": BODY, "Accept": "image/png"}, 406, "image/png"),
        ({"Body": "no json", "TargetModel": "echo"}, 500, "JSONDecodeError"),
        ({"Body": '{"status": 418}', "TargetModel": "echo"}, 418, '{"status": 418}'),
        ({"Body": '{"status": 503}', "TargetModel": "echo"}, 503, '{"status": 503}'),
    ],
)
def test_a_models_failure_is_a_model_error(runtime: Any, request_: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(**{"EndpointName": "my-endpoint", "TargetModel": IRIS, **request_})
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == status
    assert said in response["OriginalMessage"]
    assert response["OriginalMessage"] in response["Error"]["Message"]
    assert "/aws/sagemaker/Endpoints/my-endpoint" in response["LogStreamArn"]
    assert "Traceback" not in response["OriginalMessage"]


def test_a_broken_artifact_is_a_model_error(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName="e", TargetModel="broken.tar.gz", Body=BODY)
    assert caught.value.response["OriginalStatusCode"] == 400
    assert "gzip" in caught.value.response["OriginalMessage"]


def test_a_body_over_the_limit_is_a_validation_error(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="6291456"):
        runtime.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=b" " * (6291456 + 1))
    with pytest.raises(runtime.exceptions.ValidationError, match="6291456"):
        runtime.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=b" " * (50 << 20))
    reply = runtime.invoke_endpoint(EndpointName="e", TargetModel=IRIS, Body=BODY + b" " * (6291456 - len(BODY)))
    assert answer(reply) == [0]


def test_asynchronous_invocations_are_refused_where_they_are_not_wanted(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="start it with --async-output"):
        runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://b/k")


# -- Deadlines and queues --


@pytest.fixture(scope="module")
def gates(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def hasty(backend: str, gates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which invocations have two seconds and only one may wait."""
    store = tmp_path_factory.mktemp("hasty-store")
    constant(store / "fast" / "model.joblib", 1.0)
    for name in ("loads", "predicts", "queues"):
        script(store, name, waits(gates / name, "model_fn" if name == "loads" else "predict_fn"))
    options = ("--invocation-timeout", "2", "--queue-size", "1", "--slow-after", "0.1", "--workers", "2")
    with serve(tmp_path_factory.mktemp("hasty"), store, *options, backend=backend) as server:
        yield server


def test_a_load_that_outlasts_the_deadline_goes_on(hasty: Server, gates: Path) -> None:
    client = runtime_client(hasty.url)
    with pytest.raises(client.exceptions.ModelNotReadyException) as caught:
        client.invoke_endpoint(EndpointName="e", TargetModel="loads", Body=BODY)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert "loads" in caught.value.response["Error"]["Message"]
    reply = hasty.invoke("loads", [FLOWER])
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert hasty.predict("fast") == [1.0]
    (gates / "loads").touch()
    assert until(lambda: hasty.invoke("loads", [FLOWER]).status_code == 200, "the model is loaded")
    assert answer(client.invoke_endpoint(EndpointName="e", TargetModel="loads", Body=BODY)) == [1]
    client.close()


def test_an_invocation_over_its_deadline_has_no_original_status(hasty: Server) -> None:
    client = runtime_client(hasty.url)
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint(EndpointName="e", TargetModel="predicts", Body=BODY)
    assert caught.value.response["OriginalStatusCode"] == 0
    assert "did not answer within" in caught.value.response["OriginalMessage"]
    client.close()
    assert hasty.predict("fast") == [1.0]


def test_a_full_queue_is_service_unavailable(hasty: Server, gates: Path) -> None:
    client = runtime_client(hasty.url)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(hasty.invoke, "queues", [FLOWER])
        until((gates / "queues.waiting").exists, "the first invocation runs")
        with pytest.raises(client.exceptions.ServiceUnavailable) as caught:
            client.invoke_endpoint(EndpointName="e", TargetModel="queues", Body=BODY)
        (gates / "queues").touch()
        assert first.result().status_code in (200, 504)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    client.close()

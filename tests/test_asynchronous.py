"""`invoke_endpoint_async` as an unmodified boto3 client sees it: what is taken on is answered on S3, once."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import s3
from asked_later import BODY, Place, serving
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from s3 import BUCKET, S3
from serving import constant, runtime_client, script, until, uploads

from manymodels.asynchronous import Outcome, Queue, Queued, Runner
from manymodels.asynchronous.notices import Notices
from manymodels.asynchronous.queue import Begun
from manymodels.asynchronous.runner import NOTE
from manymodels.cli.parts import create_runner
from manymodels.endpoint import Topics
from manymodels.errors import BadMember, LoadFailed, ManyModelsError, Overloaded, SettingsError
from manymodels.invocation import Upload
from manymodels.metrics.record import Metrics
from manymodels.settings import load
from manymodels.spool import LARGE
from manymodels.store.exchange import Exchange

#: Says what it is asked with; slow enough that a queue does not empty at once.
TOLD = """
import json, time

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body.decode(), content_type

def predict_fn(data, model, context):
    time.sleep(0.01)
    return [*data, context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")]

def output_fn(prediction, accept):
    return json.dumps([*prediction, accept]), "application/told"
"""
#: Takes as many seconds as it is asked for.
SLOW = """
import time

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    time.sleep(float(data))
    return [1]
"""


def stored(folder: Path) -> None:
    constant(folder / "store" / "one.joblib", 1.0)
    constant(folder / "store" / "team" / "two.joblib", 2.0)
    script(folder / "store", "told", TOLD)
    script(folder / "store", "slow", SLOW)


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3]:
    with s3.running() as running:
        yield running


@pytest.fixture(scope="module")
def place(bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("asynchronous")
    stored(folder)
    with serving(folder, bucket.env, "--async-max-body", "1MiB", "--invocation-timeout", "0.5") as server:
        client = runtime_client(server.url)
        yield Place(bucket, server, client)
        client.close()


def test_is_answered_on_s3(place: Place) -> None:
    reply = place.ask(ContentType="application/json", Accept="text/csv")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert reply["OutputLocation"] == f"s3://{BUCKET}/out/{reply['InferenceId']}.out"
    answer = place.get(reply["OutputLocation"])
    assert (answer["Body"].read(), answer["ContentType"].partition(";")[0]) == (b"1.0\n", "text/csv")
    assert place.look(reply["FailureLocation"]) is None


def test_the_model_is_told_what_the_client_says(place: Place) -> None:
    reply = place.ask("told", ContentType="text/x", Accept="text/y", CustomAttributes="trace=9", Body=b"inline")
    answer = place.get(reply["OutputLocation"])
    assert json.loads(answer["Body"].read()) == ["inline", "text/x", "trace=9", "text/y"]
    assert answer["ContentType"] == "application/told"


def test_a_target_model_can_be_added(place: Place) -> None:
    client = runtime_client(place.server.url)
    event = "before-call.sagemaker-runtime.InvokeEndpointAsync"
    header = {"X-Amzn-SageMaker-Target-Model": "team/two.joblib"}
    client.meta.events.register(event, lambda params, **_: params["headers"].update(header))
    reply = client.invoke_endpoint_async(EndpointName="any", InputLocation=place.put("in/flower"))
    assert place.get(reply["OutputLocation"])["Body"].read() == b"[2.0]"
    client.close()


def test_an_input_may_have_any_name(place: Place) -> None:
    reply = place.ask(InputLocation=place.put("in/größe 1%.json"))
    assert place.get(reply["OutputLocation"])["Body"].read() == b"[1.0]"


def test_an_input_may_be_named_by_its_address_in_aws(place: Place) -> None:
    place.put("in/flower")
    for address in (
        f"https://s3.eu-central-1.amazonaws.com/{BUCKET}/in/flower",
        f"https://{BUCKET}.s3.amazonaws.com/in/flower",
    ):
        reply = place.ask(InputLocation=address)
        assert place.get(reply["OutputLocation"])["Body"].read() == b"[1.0]"


def test_a_large_input_comes_whole(place: Place) -> None:
    body = b"0123456789abcdef" * (LARGE // 16)
    reply = place.ask("told", ContentType="text/x", InputLocation=place.put("in/large", body))
    assert json.loads(place.get(reply["OutputLocation"])["Body"].read())[0] == body.decode()
    until(lambda: not uploads(place.server), "nothing is kept of it")


def test_names_of_outputs(place: Place) -> None:
    reply = place.ask(InferenceId="a b/c", S3OutputPathExtension="2026/11/", Filename="flower.json")
    assert (reply["InferenceId"], reply["OutputLocation"]) == ("a b/c", f"s3://{BUCKET}/out/2026/11/flower.json")
    reply = place.ask(InferenceId="../a b")
    assert reply["OutputLocation"] == f"s3://{BUCKET}/out/..%2Fa%20b.out"
    assert place.get(reply["OutputLocation"])["Body"].read() == b"[1.0]"


def test_one_that_is_sent_again_is_answered_once(place: Place) -> None:
    first = place.ask(InferenceId="again", CustomAttributes="1")
    again = place.ask(InferenceId="again", CustomAttributes="1")
    for member in ("InferenceId", "OutputLocation", "FailureLocation"):
        assert first[member] == again[member]
    with pytest.raises(place.client.exceptions.ValidationError, match="of another invocation already"):
        place.ask(InferenceId="again", CustomAttributes="2")
    place.get(first["OutputLocation"])


def test_what_is_there_is_left_as_it_is(place: Place) -> None:
    place.bucket.put("out/theirs.out", b"theirs")
    reply = place.ask(InferenceId="theirs")
    content = json.loads(place.get(reply["FailureLocation"])["Body"].read())
    assert "there is an object" in content["Message"]
    assert place.get(reply["OutputLocation"])["Body"].read() == b"theirs"


# -- Failures --


def test_a_body_that_cannot_be_unpacked_is_not_taken_on(place: Place) -> None:
    path = "/endpoints/one.joblib/async-invocations"
    reply = place.server.client.post(path, content=BODY, headers={"Content-Encoding": "gzip"})
    assert (reply.status_code, "not gzip" in reply.text) == (424, True), reply.text


def test_a_models_failure_is_told_as_a_waiting_client_is_told(place: Place) -> None:
    content = place.failure(place.ask(Body=b"[[1, 2]]"))
    assert content["OriginalStatusCode"] == 400
    assert "4 features" in content["OriginalMessage"]
    assert content["ErrorCode"] == "CLIENT_ERROR_FROM_MODEL"


@pytest.mark.parametrize(
    ("model", "key", "size", "said"),
    [
        ("none.joblib", "in/flower", 1, "none.joblib"),
        ("one.joblib", "in/none", 0, "there is no object 's3://models/in/none'"),
        ("one.joblib", "in/large", (1 << 20) + 1, "the limit is 1048576"),
    ],
)
def test_what_cannot_be_asked(place: Place, model: str, key: str, size: int, said: str) -> None:
    if size:
        place.put(key, bytes(size))
    content = place.failure(place.ask(model, InputLocation=f"s3://{BUCKET}/{key}"))
    assert said in content["Message"]


def test_the_model_has_the_time_that_the_client_gives_it(place: Place) -> None:
    reply = place.ask("slow", Body=b"0.7")  # more than a client that waits would be given
    assert place.get(reply["OutputLocation"])["Body"].read() == b"[1]"
    content = place.failure(place.ask("slow", Body=b"60", InvocationTimeoutSeconds=1))
    assert content["OriginalStatusCode"] == 0


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"InputLocation": "https://example.com/x"}, "write s3://BUCKET/KEY, or the https:// address that"),
        ({"InputLocation": f"s3://{BUCKET}"}, "write s3://BUCKET/KEY"),
        ({"InputLocation": "s3://b/k", "Body": b"x"}, "either InputLocation"),
        ({"Body": b""}, "either InputLocation"),
        ({"Body": bytes(128_001)}, "128000 bytes"),
        ({"Filename": "../x"}, "Filename is '../x'"),
        ({"S3OutputPathExtension": "a/../b"}, "'..'"),
        ({"S3OutputPathExtension": "a b"}, "S3OutputPathExtension is 'a b'"),
        ({"InferenceId": "x" * 65}, "it may have 64"),
        ({"RequestTTLSeconds": 21_601}, "60 to 21600"),
        ({"InvocationTimeoutSeconds": 3601}, "1 to 3600"),
    ],
)
def test_what_is_not_taken_on(place: Place, members: dict[str, Any], said: str) -> None:
    with pytest.raises(place.client.exceptions.ValidationError) as caught:
        place.ask(**members)
    assert said in caught.value.response["Error"]["Message"]


def test_has_metrics(place: Place) -> None:
    place.get(place.ask()["OutputLocation"])
    text = until(
        lambda: "manymodels_async_running 0.0" in (text := place.server.client.get("/metrics").text) and text,
        "all are answered",
    )
    assert "manymodels_async_queued 0.0" in text
    assert 'manymodels_async_invocations_total{outcome="done"}' in text


# -- S3 goes away; the server ends --


def test_whatever_is_taken_on_is_answered_once(bucket: S3, tmp_path: Path) -> None:
    stored(tmp_path)
    bucket.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    env = {**bucket.env, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_MAX_ATTEMPTS": "1"}
    moto = ThreadedMotoServer("127.0.0.1", port=port, verbose=False)  # it has the same buckets
    with serving(tmp_path, env) as server:
        place = Place(bucket, server, runtime_client(server.url))
        read = place.ask(InputLocation=place.put("in/flower"))
        written = place.ask(Body=BODY)
        until(lambda: "cannot be read yet" in server.log(), "the input was tried")
        until(lambda: "cannot be written yet" in server.log(), "the answer was tried")
        assert server.predict("one.joblib") == [1.0]
        moto.start()
        for reply in (read, written):
            assert place.get(reply["OutputLocation"])["Body"].read() == b"[1.0]"

        members = {"EndpointName": "told", "ContentType": "text/plain"}
        replies = [
            place.client.invoke_endpoint_async(**members, Body=b"%d" % number, InferenceId=f"k{number}")
            for number in range(60)
        ]
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.process.returncode = 0  # as is wanted here
        place.client.close()
    assert any(place.look(reply["OutputLocation"]) is None for reply in replies)
    with serving(tmp_path, env, "--fronts", "2"):
        for number, reply in enumerate(replies):
            answer = place.get(reply["OutputLocation"])
            assert json.loads(answer["Body"].read())[0] == str(number)
            assert place.look(reply["FailureLocation"]) is None
    moto.stop()
    versions = bucket.client.list_object_versions(Bucket=BUCKET, Prefix="out/k")["Versions"]
    assert sorted(version["Key"] for version in versions) == sorted(f"out/k{number}.out" for number in range(60))


# -- Settings --


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"async_output": "s3://b/out"}, "need both --async-output"),
        ({"async_queue": "queue"}, "need both --async-output"),
        ({"async_output": "gs://b/out", "async_queue": "queue"}, "async_output is 'gs://b/out'"),
    ],
)
def test_settings_that_do_not_do(options: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        create_runner(load(**options), Metrics(1))


# -- The queue --


def queued(name: str, model: str = "m", **members: Any) -> Queued:
    """Return an invocation whose input is its name."""
    output = f"s3://{BUCKET}/unit/{name}"
    wanted = Queued(
        f"id-{name}", "e", model, model, {}, None, name.encode(), output, f"{output}-error", time.time() + 60, 5
    )
    return msgspec.structs.replace(wanted, **members)


@pytest.mark.anyio
async def test_models_take_turns(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 100)
    for name in ("a1", "a2", "a3", "a4"):
        await queue.add(queued(name, "a"))
    assert (await taken(queue)).queued.body == b"a1"
    for name in ("b1", "b2", "c1"):
        await queue.add(queued(name, name[0]))
    await queue.close()
    queue = Queue(tmp_path, 100)  # a1 was not ended
    order = [(await taken(queue)).queued.body.decode() for _ in range(7)]
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    assert await queue.take() is None
    await queue.close()


async def taken(queue: Queue) -> Begun:
    begun = await queue.take()
    assert begun is not None
    return begun


@pytest.mark.anyio
async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 2)
    results = await asyncio.gather(*(queue.add(queued(str(n))) for n in range(4)), return_exceptions=True)
    assert results[:2] == ["id-0", "id-1"]
    assert [type(result) for result in results[2:]] == [Overloaded, Overloaded]
    first = await taken(queue)
    with pytest.raises(Overloaded):
        await queue.add(queued("4"))
    await queue.end(first, remember=True)
    assert await queue.add(queued("4")) == "id-4"
    assert await queue.add(queued("0", id="other")) == "id-0"  # it is remembered
    with pytest.raises(BadMember):
        await queue.add(queued("0", "another model"))
    await queue.end(await taken(queue), remember=False)
    assert await queue.add(queued("1", id="anew")) == "anew"
    await queue.close()


@pytest.mark.anyio
async def test_what_is_postponed_waits(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 2)
    await queue.add(queued("1"))
    await queue.postpone(await taken(queue), 600.0)
    assert (queue.waiting, queue.running) == (1, 0)
    assert await queue.take() is None
    await queue.add(queued("2"))
    await queue.postpone(await taken(queue), 0.1)
    while (begun := await queue.take()) is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    assert (begun.queued.id, begun.before) == ("id-2", 1)
    await queue.close()


@pytest.mark.anyio
async def test_a_queue_has_one_owner(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 2)
    with pytest.raises(SettingsError, match="another server uses it"):
        Queue(tmp_path, 2)
    await queue.close()
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(SettingsError, match="of version 7"):
        Queue(tmp_path, 2)


@pytest.mark.anyio
async def test_a_full_disk_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    queue = Queue(tmp_path, 10)
    await queue.add(queued("1"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        writes = [queue.add(queued("2")), queue.add(queued("3")), queue.take()]
        results = await asyncio.gather(*writes, return_exceptions=True)
        with pytest.raises(Overloaded):
            await queue.take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [type(result) for result in results] == [Overloaded] * 3
    assert "cannot be written: disk I/O error; see to its disk" in str(results[0])
    assert (queue.waiting, queue.running) == (1, 0)
    assert await queue.add(queued("2", id="again")) == "again"
    assert [record.getMessage().rpartition(" invocations ")[2] for record in caplog.records] == [
        "cannot be written; it is tried on",
        "can be written again",
    ]
    await queue.close()
    queue = Queue(tmp_path, 10)
    assert [(await taken(queue)).queued.id for _ in range(2)] == ["id-1", "again"]
    assert await queue.take() is None
    await queue.close()


@pytest.mark.anyio
async def test_a_closed_queue_keeps_nobody_waiting(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 10)
    await queue.close()
    with pytest.raises(Overloaded, match="cannot be written"):
        await queue.add(queued("2"))


# -- The runner --


class Echo:
    """Answers with the input."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def invoke(self, queued: Queued, body: bytes | Upload) -> Outcome:
        assert isinstance(body, bytes)
        self.asked.append(queued.id)
        passing = body == b"later" and len(self.asked) == 1
        return Outcome(body, "text/plain", succeeded=not passing, passing=passing)

    def failed(self, queued: Queued, error: ManyModelsError) -> Outcome:
        return Outcome(str(error).encode(), "text/plain", succeeded=False)


@pytest.fixture
def exchange(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> Exchange:
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    return Exchange(10)


async def answered(folder: Path, exchange: Exchange, *wanted: Queued) -> Echo:
    """Have invocations answered by an echo."""
    queue = Queue(folder, 10)
    runner = Runner(queue, exchange, Notices(), Metrics(1), at_a_time=1, max_input=100)
    for one in wanted:
        await runner.add(one)
    echo = Echo()
    runner.start(echo)
    while queue.waiting or queue.running:  # noqa: ASYNC110 - it reports to nobody
        await asyncio.sleep(0.01)
    await runner.stop()
    return echo


def content(bucket: S3, address: str) -> bytes | None:
    """Return an object's content; None if there is none."""
    try:
        reply = bucket.client.get_object(Bucket=BUCKET, Key=address.removeprefix(f"s3://{BUCKET}/"))
    except bucket.client.exceptions.NoSuchKey:
        return None
    body: bytes = reply["Body"].read()
    return body


@pytest.mark.anyio
async def test_one_that_expired_is_not_begun(bucket: S3, exchange: Exchange, tmp_path: Path) -> None:
    old = queued("old", expires=time.time() - 1, input="s3://nowhere/x")
    assert (await answered(tmp_path, exchange, old)).asked == []
    assert b"expired" in (content(bucket, old.failure) or b"")
    assert content(bucket, old.output) is None


@pytest.mark.anyio
async def test_what_cannot_be_written_is_in_no_others_way_and_given_up_at_last(
    exchange: Exchange, bucket: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("manymodels.asynchronous.runner.IN_HAND", 1)
    now = time.time()
    nowhere = [queued(name, expires=now + 6, output=f"s3://nowhere/{name}") for name in ("a", "b")]
    good = queued("good", expires=now + 5)  # by then it has to be begun
    assert (await answered(tmp_path, exchange, *nowhere, good)).asked == ["id-a", "id-b", "id-good"]
    assert content(bucket, good.output) == b"good"
    assert caplog.text.count("is given up, which expired: S3 answers NoSuchBucket for") == 2


@pytest.mark.anyio
async def test_what_cannot_be_answered_now_is_tried_again(bucket: S3, exchange: Exchange, tmp_path: Path) -> None:
    later = queued("later")
    assert (await answered(tmp_path, exchange, later)).asked == ["id-later"] * 2
    assert (content(bucket, later.output), content(bucket, later.failure)) == (b"later", None)


@pytest.mark.anyio
@pytest.mark.parametrize("succeeded", [True, False])
async def test_what_was_answered_when_the_server_ended_is_not_asked_again(
    bucket: S3, exchange: Exchange, tmp_path: Path, succeeded: bool
) -> None:
    wanted = queued(f"answered-{succeeded}")
    queue = Queue(tmp_path, 10)
    await queue.add(wanted)
    await queue.take()
    await queue.close()
    address = wanted.output if succeeded else wanted.failure
    assert await exchange.write(address, b"first", "text/plain", {NOTE: wanted.id}, replace=False)
    assert (await answered(tmp_path, exchange)).asked == []
    assert content(bucket, address) == b"first"
    assert content(bucket, wanted.failure if succeeded else wanted.output) is None


@pytest.mark.anyio
@pytest.mark.parametrize("row", [b"", b"\0", b"\x81\xa2id\xa1\xff", "text"])
async def test_what_is_damaged_in_the_queue_fails_and_the_rest_goes_on(
    bucket: S3, exchange: Exchange, tmp_path: Path, caplog: pytest.LogCaptureFixture, row: bytes | str
) -> None:
    name = f"damaged-{zlib.crc32(repr(row).encode())}"
    damaged, whole = queued(name), queued(f"{name}-not")
    queue = Queue(tmp_path, 10)
    await queue.add(damaged)
    await queue.close()
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        database.execute("UPDATE invocations SET content = ?", (row,))
    database.close()
    assert (await answered(tmp_path, exchange, whole)).asked == [whole.id]
    assert content(bucket, whole.output) == whole.body
    failure = content(bucket, f"s3://{BUCKET}/unit/{damaged.id}-error.out") or b""
    assert failure.startswith(b"the queue has lost what was asked")
    assert caplog.text.count("has lost what was asked") == 1


@pytest.mark.anyio
async def test_a_store_without_conditional_writes_is_asked_first(bucket: S3, exchange: Exchange) -> None:
    refused = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if "IfNoneMatch" in params:
            raise ClientError(refused, "PutObject")

    exchange._client().meta.events.register("before-parameter-build.s3.PutObject", refuse)
    address = f"s3://{BUCKET}/unit/plain"
    assert await exchange.write(address, b"1", "text/plain", {}, replace=False)
    assert not await exchange.write(address, b"2", "text/plain", {}, replace=False)
    assert content(bucket, address) == b"1"


@pytest.mark.anyio
async def test_notes_are_found_in_whatever_case_the_store_names_them(
    bucket: S3, exchange: Exchange, tmp_path: Path
) -> None:
    wanted = queued("cased")
    queue = Queue(tmp_path, 10)
    await queue.add(wanted)
    await queue.take()
    await queue.close()
    assert await exchange.write(wanted.output, b"first", "text/plain", {NOTE: wanted.id}, replace=False)

    def capitalised(parsed: dict[str, Any], **_: Any) -> None:  # as servers in Go write all headers
        parsed["Metadata"] = {name.title(): note for name, note in parsed.get("Metadata", {}).items()}

    exchange._client().meta.events.register("after-call.s3.HeadObject", capitalised)
    assert (await answered(tmp_path, exchange)).asked == []
    assert content(bucket, wanted.failure) is None


@pytest.mark.anyio
async def test_who_may_not_list_a_bucket_is_told_what_to_allow(bucket: S3, exchange: Exchange) -> None:
    denied = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}

    def deny(**_: Any) -> None:  # as S3 does where there is no object
        raise ClientError(denied, "GetObject")

    for operation in ("HeadObject", "GetObject"):
        exchange._client().meta.events.register(f"before-parameter-build.s3.{operation}", deny)
    with pytest.raises(LoadFailed, match=r"\(AccessDenied\); allow s3:GetObject on it, and s3:ListBucket"):
        await exchange.state(f"s3://{BUCKET}/unit/absent")


@pytest.mark.anyio
async def test_a_topic_without_a_region_keeps_no_invocation_in_the_queue(
    bucket: S3, exchange: Exchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = "arn:aws:sns::000000000000:told"
    topics = Topics(topic, topic, success_included=False, error_included=False)
    told = queued("regionless", topics=topics)
    assert (await answered(tmp_path, exchange, told)).asked == [told.id]
    assert f"{topic} is not told" in caplog.text

"""SageMaker's control plane as unmodified boto3 clients see it: a deployment script, then what may be wrong."""

from __future__ import annotations

import io
import json
import runpy
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import joblib
import pytest
import s3
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError
from installed import besides
from s3 import BUCKET, S3, packed
from serving import BACKENDS, FLOWER, Server, as_json, serve, until
from sklearn.dummy import DummyRegressor

from manymodels.cli.emulation import emulate
from manymodels.emulation import Failure, Shapes
from manymodels.emulation.locations import check_environment, container_of, locate
from manymodels.errors import SettingsError
from manymodels.settings import load

BODY = as_json([FLOWER])
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/manymodels:1"
ROLE = "arn:aws:iam::000000000000:role/any"
#: An endpoint's models are not known at the start, so the frameworks of all plugins would be imported.
OPTIONS = ("--emulate-sagemaker", "--block-plugins", besides("sklearn"))
INSTANCES = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


def archive(value: float) -> bytes:
    """Return an artifact whose model answers with a number."""
    buffer = io.BytesIO()
    joblib.dump(DummyRegressor(strategy="constant", constant=value).fit([FLOWER], [value]), buffer)
    return packed({"model.joblib": buffer.getvalue()})


class Aws:
    """Clients of a server, as `AWS_ENDPOINT_URL_SAGEMAKER` and `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` would make them."""

    def __init__(self, url: str) -> None:
        made = {
            "endpoint_url": url,
            "region_name": "us-east-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "config": Config(retries={"max_attempts": 0}),
        }
        self.sagemaker: Any = boto3.client("sagemaker", **made)
        self.runtime: Any = boto3.client("sagemaker-runtime", **made)

    def model(self, name: str, key: str, mode: str = "MultiModel", **members: Any) -> None:
        """Create a model at a key of the bucket."""
        container = {"Image": IMAGE, "Mode": mode, "ModelDataUrl": f"s3://{BUCKET}/{key}", **members}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)

    def config(self, name: str, **weights: float) -> None:
        """Create a configuration with a variant for each model, which has its name."""
        variants = [
            {"VariantName": model, "ModelName": model, "InitialVariantWeight": weight, **INSTANCES}
            for model, weight in weights.items()
        ]
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)

    def endpoint(self, name: str, config: str) -> None:
        """Create an endpoint and wait for it."""
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)

    def ask(self, endpoint: str, target_model: str | None = None, **members: str) -> tuple[float, str]:
        """Return a prediction, and the variant that made it."""
        if target_model is not None:
            members["TargetModel"] = target_model
        reply = self.runtime.invoke_endpoint(EndpointName=endpoint, Body=BODY, **members)
        with reply["Body"] as stream:
            [value] = json.loads(stream.read())
        return value, reply["InvokedProductionVariant"]

    def close(self) -> None:
        """Close the connections."""
        self.sagemaker.close()
        self.runtime.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3]:
    with s3.running() as running:
        for name, value in {"a/x": 1.0, "b/x": 2.0, "b/sub/y": 3.0, "single/one": 4.0}.items():
            running.put(f"{name}.tar.gz", archive(value))
        running.put("single/broken.tar.gz", b"no archive")
        yield running


@pytest.fixture(scope="module")
def server(backend: str, bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    options = (*OPTIONS, "--workers", "2", "--async-queue", folder / "queue", "--cache-dir", folder / "cache")
    env = {**bucket.env, "AWS_ENDPOINT_URL_SNS": bucket.endpoint}
    with serve(folder, *options, env=env, backend=backend) as running:
        yield running


@pytest.fixture(scope="module")
def aws(server: Server) -> Iterator[Aws]:
    """Clients of a server that has the models a and b, of a prefix each, and an endpoint of a."""
    aws = Aws(server.url)
    aws.model("a", "a/")
    aws.model("b", "b/")
    aws.config("only-a", a=1)
    aws.endpoint("kept", "only-a")
    yield aws
    aws.close()


def refused(call: Any, code: str = "ValidationException", **members: Any) -> str:
    """Return the message with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    message: str = caught.value.response["Error"]["Message"]
    return message


# -- A deployment --


def test_deploy_says_why_an_endpoint_failed(aws: Aws, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**s3.CREDENTIALS, "AWS_ENDPOINT_URL_SAGEMAKER": server.url}.items():
        monkeypatch.setenv(name, value)
    main = runpy.run_path(str(Path(__file__).parent.parent / "docker" / "deploy.py"))["main"]
    up = ["up", "--name", "lost", "--image", IMAGE, "--role", ROLE, "--store", "s3://no-such-bucket/models/"]
    with pytest.raises(SystemExit, match=r"is not in service: The models of .* there is no bucket 'no-such-bucket'"):
        main(up)
    main(["down", "--name", "lost"])


@pytest.mark.backends(*BACKENDS)
def test_a_deployment_script_runs(aws: Aws, bucket: S3, server: Server) -> None:
    sagemaker = aws.sagemaker
    created = sagemaker.create_model(
        ModelName="shops",
        ExecutionRoleArn=ROLE,
        Containers=[
            {
                "Image": IMAGE,
                "Mode": "MultiModel",
                "ModelDataUrl": f"https://s3-us-east-1.amazonaws.com/{BUCKET}/shops/",
                "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
                "Environment": {"SAGEMAKER_PROGRAM": "inference.py", "COLOUR": "blue"},
            }
        ],
        Tags=[{"Key": "team", "Value": "shops"}],
    )
    assert created["ModelArn"] == "arn:aws:sagemaker:us-east-1:000000000000:model/shops"
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "shops",
        "ModelDataDownloadTimeoutInSeconds": 600,
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        **INSTANCES,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="shops", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="shops", EndpointConfigName="shops")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="shops")

    assert "no artifact" in refused(aws.ask, "ValidationError", endpoint="shops", target_model="new.tar.gz")
    bucket.put("shops/new.tar.gz", archive(5.0))  # a model is added by an upload, nothing else
    assert aws.ask("shops", "new.tar.gz") == (5.0, "AllTraffic")
    assert "shops/AllTraffic/new.tar.gz" in server.loaded()
    assert "variables that its models will not see: COLOUR" in server.log()

    bucket.delete("shops/new.tar.gz")
    sagemaker.delete_endpoint(EndpointName="shops")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="shops")
    sagemaker.delete_endpoint_config(EndpointConfigName="shops")
    sagemaker.delete_model(ModelName="shops")
    assert "shops/AllTraffic/new.tar.gz" not in server.loaded()
    assert "Endpoint shops" in refused(aws.ask, "ValidationError", endpoint="shops", target_model="new.tar.gz")
    assert "Could not find model" in refused(sagemaker.describe_model, ModelName="shops")


def test_what_was_created_is_described(aws: Aws) -> None:
    model = aws.sagemaker.describe_model(ModelName="a")
    assert model["PrimaryContainer"] == {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/a/"}
    assert model["ExecutionRoleArn"] == ROLE
    config = aws.sagemaker.describe_endpoint_config(EndpointConfigName="only-a")
    assert config["ProductionVariants"] == [
        {"VariantName": "a", "ModelName": "a", "InitialVariantWeight": 1.0, **INSTANCES}
    ]
    endpoint = aws.sagemaker.describe_endpoint(EndpointName="kept")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "only-a")
    [variant] = endpoint["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (1.0, 1)
    assert endpoint["CreationTime"] >= config["CreationTime"] >= model["CreationTime"]


@pytest.mark.backends(*BACKENDS)
def test_models_of_one_name_in_two_endpoints(aws: Aws) -> None:
    aws.config("only-b", b=1)
    aws.endpoint("second", "only-b")
    assert aws.ask("kept", "x.tar.gz") == (1.0, "a")
    assert aws.ask("second", "x.tar.gz") == (2.0, "b")
    assert aws.ask("second", "sub/y.tar.gz") == (3.0, "b")


def test_an_update_moves_all_invocations(aws: Aws, server: Server) -> None:
    aws.config("both", a=0, b=1)
    aws.endpoint("updated", "only-a")
    assert aws.ask("updated", "x.tar.gz") == (1.0, "a")
    aws.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="both")
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="updated")
    assert {aws.ask("updated", "x.tar.gz") for _ in range(20)} == {(2.0, "b")}
    assert aws.ask("updated", "x.tar.gz", TargetVariant="a") == (1.0, "a")
    weights = [
        {"VariantName": "a", "DesiredWeight": 1.0, "DesiredInstanceCount": 3},
        {"VariantName": "b", "DesiredWeight": 0.0},
    ]
    aws.sagemaker.update_endpoint_weights_and_capacities(EndpointName="updated", DesiredWeightsAndCapacities=weights)
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="updated")
    assert {aws.ask("updated", "x.tar.gz") for _ in range(20)} == {(1.0, "a")}
    described = aws.sagemaker.describe_endpoint(EndpointName="updated")
    assert [variant["CurrentWeight"] for variant in described["ProductionVariants"]] == [1.0, 0.0]
    assert [variant["DesiredInstanceCount"] for variant in described["ProductionVariants"]] == [3, 1]
    # The weights that were set last are kept if that is asked for, and the old variant's models go.
    aws.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="both", RetainAllVariantProperties=True)
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="updated")
    assert aws.ask("updated", "x.tar.gz") == (1.0, "a")
    described = aws.sagemaker.describe_endpoint(EndpointName="updated")
    assert [variant["CurrentInstanceCount"] for variant in described["ProductionVariants"]] == [3, 1]
    aws.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="only-b")
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="updated")
    assert "updated/a/x.tar.gz" not in server.loaded()


def test_a_model_that_is_created_anew_is_another(aws: Aws) -> None:
    aws.model("again", "a/")
    aws.config("again", again=1)
    aws.endpoint("again", "again")
    assert aws.ask("again", "x.tar.gz")[0] == 1.0
    aws.sagemaker.delete_model(ModelName="again")
    aws.model("again", "b/")
    assert aws.ask("again", "x.tar.gz")[0] == 1.0  # an endpoint keeps what it was made of
    aws.sagemaker.update_endpoint(EndpointName="again", EndpointConfigName="again")
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="again")
    assert aws.ask("again", "x.tar.gz")[0] == 2.0


def test_an_asynchronous_endpoint(aws: Aws, bucket: S3) -> None:
    output = {"S3OutputPath": f"s3://{BUCKET}/out/", "S3FailurePath": f"s3://{BUCKET}/bad/"}
    aws.model("later", "single/one.tar.gz", "SingleModel")
    config = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4}}
    variants = [{**VARIANT, "ModelName": "later"}]
    aws.sagemaker.create_endpoint_config(
        EndpointConfigName="later", ProductionVariants=variants, AsyncInferenceConfig=config
    )
    aws.endpoint("later", "later")
    assert aws.sagemaker.describe_endpoint(EndpointName="later")["AsyncInferenceConfig"] == config
    bucket.put("in", BODY)
    taken = aws.runtime.invoke_endpoint_async(EndpointName="later", InputLocation=f"s3://{BUCKET}/in")
    assert taken["OutputLocation"].startswith(f"s3://{BUCKET}/out/")
    assert taken["FailureLocation"].startswith(f"s3://{BUCKET}/bad/")
    key = taken["OutputLocation"].removeprefix(f"s3://{BUCKET}/")
    bucket.client.get_waiter("object_exists").wait(Bucket=BUCKET, Key=key, WaiterConfig={"Delay": 0.1})
    assert json.loads(bucket.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) == [4.0]
    assert "asynchronous invocations only" in refused(aws.ask, "ValidationError", endpoint="later")
    later = {"EndpointName": "kept", "InputLocation": f"s3://{BUCKET}/in"}
    assert "AsyncInferenceConfig" in refused(aws.runtime.invoke_endpoint_async, "ValidationError", **later)


class Topic:
    """A topic of SNS, and a queue that has what it is told; of the same stand-in as S3."""

    def __init__(self, bucket: S3, name: str) -> None:
        made = {
            "endpoint_url": bucket.endpoint,
            "region_name": "eu-west-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
        }
        sns, self._sqs = boto3.client("sns", **made), boto3.client("sqs", **made)
        self.arn = sns.create_topic(Name=name)["TopicArn"]
        self._url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        queue = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        sns.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=queue["Attributes"]["QueueArn"])
        sns.close()
        self.close = self._sqs.close

    def told(self) -> Any:
        """Return the next message."""
        [message] = until(lambda: self._sqs.receive_message(QueueUrl=self._url).get("Messages"), "SNS is told")
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return json.loads(json.loads(message["Body"])["Message"])


@pytest.mark.parametrize("included", [[], ["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"]])
def test_topics_are_told(aws: Aws, bucket: S3, included: list[str]) -> None:
    name = f"told-{len(included)}"
    with closing(Topic(bucket, f"{name}-success")) as success, closing(Topic(bucket, f"{name}-error")) as error:
        _topics_are_told(aws, bucket, name, included, success, error)


def _topics_are_told(aws: Aws, bucket: S3, name: str, included: list[str], success: Topic, error: Topic) -> None:
    topics = {"SuccessTopic": success.arn, "ErrorTopic": error.arn, "IncludeInferenceResponseIn": included}
    aws.model(name, "single/one.tar.gz", "SingleModel")
    aws.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{**VARIANT, "ModelName": name}],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out/", "NotificationConfig": topics},
        },
    )
    aws.endpoint(name, name)
    members = {"EndpointName": name, "ContentType": "application/json", "InferenceId": name}
    taken = aws.runtime.invoke_endpoint_async(**members, Accept="text/csv", CustomAttributes="a=1", Body=BODY)
    told = success.told()
    assert bucket.client.get_object(Bucket=BUCKET, Key=f"out/{name}.out")["Body"].read() == b"4.0\n"
    assert told.pop("receivedTime") <= told.pop("eventTime") <= f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.999Z}"
    body = {"responseBody": {"content": "NC4wCg==", "encoding": "BASE64"}} if included else {}
    common = {"awsRegion": "eu-west-1", "eventVersion": "1.0", "eventSource": "aws:sagemaker"}
    common |= {"eventName": "InferenceResult"}
    assert told == {
        **common,
        "invocationStatus": "Completed",
        "requestParameters": {
            "accept": "text/csv",
            "contentType": "application/json",
            "customAttributes": "a=1",
            "endpointName": name,
        },
        "responseParameters": {"contentType": "text/csv", "outputLocation": taken["OutputLocation"]},
        "inferenceId": name,
        **body,
    }
    location = f"s3://{BUCKET}/not-there"
    taken = aws.runtime.invoke_endpoint_async(EndpointName=name, InputLocation=location)
    told = error.told()
    key = taken["FailureLocation"].removeprefix(f"s3://{BUCKET}/")
    failure = bucket.client.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    del told["receivedTime"], told["eventTime"]
    assert told == {
        **common,
        "invocationStatus": "Failed",
        "failureReason": f"ClientError: {json.loads(failure)['Message']}",
        "requestParameters": {"endpointName": name, "inputLocation": location},
        "inferenceId": taken["InferenceId"],
        **({"responseBody": {"content": failure}} if included else {}),
    }


def test_a_topic_that_cannot_be_told_costs_no_answer(aws: Aws, bucket: S3, server: Server) -> None:
    aws.model("untold", "single/one.tar.gz", "SingleModel")
    topic = "arn:aws:sns:eu-west-1:000000000000:none"
    output = {"S3OutputPath": f"s3://{BUCKET}/out/", "NotificationConfig": {"SuccessTopic": topic}}
    aws.sagemaker.create_endpoint_config(
        EndpointConfigName="untold",
        ProductionVariants=[{**VARIANT, "ModelName": "untold"}],
        AsyncInferenceConfig={"OutputConfig": output},
    )
    aws.endpoint("untold", "untold")
    aws.runtime.invoke_endpoint_async(EndpointName="untold", InferenceId="untold", Body=BODY)
    until(lambda: f"{topic} is not told: " in server.log(), "the log says so")
    assert bucket.client.get_object(Bucket=BUCKET, Key="out/untold.out")["Body"].read() == b"[4.0]"


def test_a_single_model(aws: Aws) -> None:
    aws.model("single", "single/one.tar.gz", "SingleModel")
    aws.config("single", single=1)
    aws.endpoint("single", "single")
    assert aws.ask("single") == (4.0, "single")
    message = refused(aws.ask, "ValidationError", endpoint="single", target_model="one.tar.gz")
    assert message == "Endpoint single is not a multi-model endpoint and does not support target model header."


# -- What fails --


def failure_reason(aws: Aws, name: str) -> str:
    """Deploy a model that cannot be; return why."""
    aws.config(name, **{name: 1})
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    with pytest.raises(WaiterError, match="Failed"):
        aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
    described = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointStatus"] == "Failed"
    assert "Endpoint" in refused(aws.ask, "ValidationError", endpoint=name)
    assert "which failed" in refused(aws.sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name)
    aws.sagemaker.delete_endpoint(EndpointName=name)
    reason: str = described["FailureReason"]
    return reason


def test_an_endpoint_of_a_bucket_that_is_not_there_fails(aws: Aws) -> None:
    aws.model("nowhere", "", ModelDataUrl="s3://no-such-bucket/models/")
    assert "no-such-bucket" in failure_reason(aws, "nowhere")


def test_an_endpoint_whose_single_model_cannot_be_loaded_fails(aws: Aws) -> None:
    aws.model("broken", "single/broken.tar.gz", "SingleModel")
    assert "did not pass the ping health check" in failure_reason(aws, "broken")


def test_a_failed_update_leaves_the_endpoint_as_it_was(aws: Aws) -> None:
    aws.model("gone", "", ModelDataUrl="s3://no-such-bucket/models/")
    aws.config("gone", a=1, gone=1)
    aws.sagemaker.update_endpoint(EndpointName="kept", EndpointConfigName="gone")
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="kept")
    described = aws.sagemaker.describe_endpoint(EndpointName="kept")
    assert described["EndpointConfigName"] == "only-a"
    assert "no-such-bucket" in described["FailureReason"]
    assert aws.ask("kept", "x.tar.gz") == (1.0, "a")


VARIANT = {"VariantName": "v", "ModelName": "a", **INSTANCES}
PLACE = "arn:aws:sagemaker:us-east-1:000000000000"


@pytest.mark.parametrize(
    ("operation", "members", "said"),
    [
        ("describe_model", {"ModelName": "x"}, f'Could not find model "{PLACE}:model/x".'),
        ("delete_model", {"ModelName": "x"}, f'Could not find model "{PLACE}:model/x".'),
        ("describe_endpoint", {"EndpointName": "X"}, f'Could not find endpoint "{PLACE}:endpoint/x".'),
        ("delete_endpoint", {"EndpointName": "x"}, "Could not find endpoint"),
        (
            "describe_endpoint_config",
            {"EndpointConfigName": "x"},
            f'Could not find endpoint configuration "{PLACE}:endpoint-config/x".',
        ),
        ("delete_endpoint_config", {"EndpointConfigName": "x"}, "Could not find endpoint configuration"),
        ("create_endpoint", {"EndpointName": "x", "EndpointConfigName": "x"}, "Could not find endpoint configuration"),
        ("create_endpoint", {"EndpointName": "kept", "EndpointConfigName": "only-a"}, "Cannot create already existing"),
        ("create_endpoint", {"EndpointName": "Kept", "EndpointConfigName": "only-a"}, "Cannot create already existing"),
        ("update_endpoint", {"EndpointName": "x", "EndpointConfigName": "only-a"}, "Could not find endpoint"),
        (
            "create_endpoint",
            {"EndpointName": "a_b", "EndpointConfigName": "x" * 64},
            "2 validation errors detected: Value 'a_b' at 'endpointName' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; "
            f"Value '{'x' * 64}' at 'endpointConfigName' failed to satisfy constraint: "
            "Member must have length less than or equal to 63",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{**VARIANT, "InstanceType": "ml.huge"}]},
            "Value 'ml.huge' at 'productionVariants.1.member.instanceType' failed to satisfy constraint: Member must "
            "satisfy enum value set: [",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{**VARIANT, "VolumeSizeInGB": 600}]},
            "Value '600' at 'productionVariants.1.member.volumeSizeInGB' failed to satisfy constraint: "
            "Member must have value less than or equal to 512",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{**VARIANT, "ModelName": "x"}]},
            "Could not find model",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [VARIANT, VARIANT]},
            "names of their own",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{"VariantName": "v", "ModelName": "a"}]},
            "needs InstanceType",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{**VARIANT, "InitialVariantWeight": 0.0}]},
            "above 0",
        ),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "x", "ProductionVariants": [{"VariantName": "v", **INSTANCES}]},
            "names no model",
        ),
        (
            "create_endpoint_config",
            {
                "EndpointConfigName": "x",
                "ProductionVariants": [VARIANT],
                "ShadowProductionVariants": [{**VARIANT, "VariantName": "w"}],
            },
            "ShadowProductionVariants is not emulated",
        ),
        (
            "update_endpoint_weights_and_capacities",
            {"EndpointName": "kept", "DesiredWeightsAndCapacities": [{"VariantName": "b", "DesiredWeight": 1.0}]},
            'The variant name(s) "b" is/are not present within endpoint configuration "only-a".',
        ),
        ("list_models", {"NextToken": "x"}, "Invalid NextToken"),
        ("list_models", {"MaxResults": 101}, "less than or equal to 100"),
    ],
)
def test_wrong_calls_are_refused_as_aws_words_it(aws: Aws, operation: str, members: Any, said: str) -> None:
    assert said in refused(getattr(aws.sagemaker, operation), **members)


def test_a_model_is_created_once(aws: Aws) -> None:
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        aws.model("a", "a/")


def test_a_single_model_has_to_be_there(aws: Aws) -> None:
    with pytest.raises(ClientError, match=rf"Could not find model data at s3://{BUCKET}/single/none.tar.gz\."):
        aws.model("none", "single/none.tar.gz", "SingleModel")


def test_other_operations_are_named(aws: Aws) -> None:
    message = refused(aws.sagemaker.list_training_jobs, "UnknownOperationException")
    assert "'ListTrainingJobs' is not emulated" in message
    assert "CreateModel" in message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b'{"ModelName": 1}', "SerializationException"),
        (b'{"ModelName": "x", "Containers": {}}', "SerializationException"),
        (b'{"ModelName": null}', "ValidationException"),
        (b'{"ModelName": "x", "PrimaryContainer": {"Image": "i", "Environment": null}}', "ValidationException"),
        (b"[" * 100_000, "SerializationException"),
        (b'{"ModelName": "x", "Containers": ' + b"[" * 900 + b"]" * 900 + b"}", "SerializationException"),
        (b"\xff", "SerializationException"),
        (b"", "ValidationException"),
        (b"x" * (6 << 20) + b"x", "ValidationException"),
    ],
    ids=range(11),
)
def test_bodies_that_boto3_would_not_send(server: Server, body: bytes, code: str) -> None:
    reply = server.client.post("/", content=body, headers={"X-Amz-Target": "SageMaker.CreateModel"})
    assert (reply.status_code, reply.json()["__type"]) == (400, code)
    assert reply.json()["message"]
    assert reply.headers["content-type"] == "application/x-amz-json-1.1"


@pytest.mark.parametrize("weight", [b"1e39", b"1" + b"0" * 400])
def test_weights_are_floats_of_32_bits(server: Server, weight: bytes) -> None:
    variant = b'[{"VariantName": "v", "ModelName": "m", "InitialVariantWeight": ' + weight + b"}]"
    body = b'{"EndpointConfigName": "huge", "ProductionVariants": ' + variant + b"}"
    reply = server.client.post("/", content=body, headers={"X-Amz-Target": "SageMaker.CreateEndpointConfig"})
    assert (reply.status_code, reply.json()["__type"]) == (400, "SerializationException")
    assert "initialVariantWeight is out of the range of a number" in reply.json()["message"]


def test_browsers_get_the_page_of_the_server_where_boto3_sends_its_calls(server: Server) -> None:
    assert server.client.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_arns_have_the_region_of_who_asks(server: Server, aws: Aws) -> None:
    for scope, region in (("k/20260101/eu-west-3/sagemaker/aws4_request", "eu-west-3"), ("k/none", "local")):
        signed = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        headers = {"X-Amz-Target": "SageMaker.DescribeModel", "Authorization": signed}
        reply = server.client.post("/", content=b'{"ModelName": "a"}', headers=headers)
        assert reply.json()["ModelArn"] == f"arn:aws:sagemaker:{region}:000000000000:model/a"


def test_a_body_above_the_limit_of_aws(aws: Aws) -> None:
    members = {"EndpointName": "kept", "TargetModel": "x.tar.gz", "Body": b" " * (6291456 + 1)}
    assert "6291456" in refused(aws.runtime.invoke_endpoint, "ValidationError", **members)


def test_an_answer_above_the_limit_of_aws(aws: Aws, bucket: S3) -> None:
    bucket.put("a/long.tar.gz", archive(0.12345678901234567))
    members = {"EndpointName": "kept", "TargetModel": "long.tar.gz", "ContentType": "text/csv"}
    with pytest.raises(aws.runtime.exceptions.ModelError, match="passes on at most 6291456"):
        aws.runtime.invoke_endpoint(Body=b"0,0,0,0\n" * 350_000, **members)


# -- Lists and tags --


def test_lists_are_sorted_filtered_and_paged(aws: Aws) -> None:
    for number in range(12):
        aws.model(f"listed-{number:02}", "a/")
    aws.model("other", "a/")
    pages = aws.sagemaker.get_paginator("list_models").paginate(
        NameContains="LISTED", SortBy="Name", SortOrder="Ascending", MaxResults=5
    )
    names = [[model["ModelName"] for model in page["Models"]] for page in pages]
    assert [len(page) for page in names] == [5, 5, 2]
    assert [name for page in names for name in page] == [f"listed-{number:02}" for number in range(12)]
    newest = aws.sagemaker.list_models(MaxResults=1)["Models"]
    assert newest[0]["ModelName"] == "other"
    before = aws.sagemaker.list_models(CreationTimeBefore=newest[0]["CreationTime"], MaxResults=1)["Models"]
    assert before[0]["ModelName"] == "listed-11"
    after = aws.sagemaker.list_models(CreationTimeAfter=newest[0]["CreationTime"])["Models"]
    assert [model["ModelName"] for model in after] == ["other"]
    endpoints = aws.sagemaker.list_endpoints(StatusEquals="InService", NameContains="kept")["Endpoints"]
    assert [(each["EndpointName"], each["EndpointStatus"]) for each in endpoints] == [("kept", "InService")]
    configs = aws.sagemaker.list_endpoint_configs(NameContains="only-a")["EndpointConfigs"]
    assert configs[0]["EndpointConfigArn"] == f"{PLACE}:endpoint-config/only-a"


def test_tags(aws: Aws) -> None:
    arn = f"{PLACE}:endpoint/kept"
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "3"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["b"])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
    refused(aws.sagemaker.list_tags, "ResourceNotFound", ResourceArn=f"{PLACE}:endpoint/x")


# -- A restart --


def test_a_restart_keeps_endpoints_and_folders_stand_for_buckets(aws: Aws, server: Server, tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "cache").mkdir()
    shutil.copy(server.log_file.parent / "cache" / "sagemaker.json", tmp_path / "cache")
    with serve(tmp_path, tmp_path / "s3", *OPTIONS, "--workers", "1", "--cache-dir", tmp_path / "cache") as other:
        away = Aws(other.url)
        assert away.sagemaker.describe_endpoint(EndpointName="kept")["EndpointStatus"] == "Failed"
        away.close()
    (tmp_path / "s3" / BUCKET / "a").mkdir(parents=True)
    (tmp_path / "s3" / BUCKET / "a" / "x.tar.gz").write_bytes(archive(6.0))
    with serve(tmp_path, tmp_path / "s3", *OPTIONS, "--workers", "1", "--cache-dir", tmp_path / "cache") as other:
        again = Aws(other.url)
        again.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="kept")
        assert again.ask("kept", "x.tar.gz") == (6.0, "a")
        assert again.sagemaker.describe_model(ModelName="a") == {
            **aws.sagemaker.describe_model(ModelName="a"),
            "ResponseMetadata": ANY,
        }
        again.close()


# -- Without a server --


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"max_body": "7MiB"}, "max_body is at most 6291456"),
        ({"invocation_timeout": 61}, "invocation_timeout is at most 60"),
        ({"endpoints": __file__}, "leave --endpoints out"),
        ({"names": __file__}, "leave --names out"),
    ],
)
def test_limits_beyond_those_of_aws_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        emulate(None, None, None, None, None, load(**flags))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "mode", "found"),
    [
        ("s3://b/p/", "MultiModel", ("s3://b/p", None)),
        ("s3://b", "MultiModel", ("s3://b", None)),
        ("https://s3.amazonaws.com/b/p/", "MultiModel", ("s3://b/p", None)),
        ("https://s3.eu-central-1.amazonaws.com/b/p/q/", "MultiModel", ("s3://b/p/q", None)),
        ("https://b.c.s3.eu-central-1.amazonaws.com/p/", "MultiModel", ("s3://b.c/p", None)),
        ("https://s3-eu-west-1.amazonaws.com/b/m.tar.gz", "SingleModel", ("s3://b", "m.tar.gz")),
        ("s3://b/p/q/m.tar.gz", "SingleModel", ("s3://b/p/q", "m.tar.gz")),
    ],
)
def test_addresses_of_model_data(url: str, mode: str, found: tuple[str, str | None]) -> None:
    container = {"Image": "i", "Mode": mode, "ModelDataUrl": url}
    assert locate(container, None) == found
    [store, artifact] = locate(container, Path("/buckets"))
    assert (store, artifact) == (Path("/buckets", found[0].removeprefix("s3://")), found[1])


@pytest.mark.parametrize(
    "container",
    [
        {"Image": "i", "Mode": "MultiModel"},
        {"Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://b/../../etc/"},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://../etc/"},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://b/.."},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3:///etc/"},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "https://example.com/b/p/"},
        {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "file:///etc/"},
        {"Image": "i", "ModelDataUrl": "s3://b/p/"},
        {"Image": "i", "ModelPackageName": "p"},
        {"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz", "ModelDataSource": {}},
    ],
)
def test_model_data_that_cannot_be_found_is_refused(container: dict[str, Any]) -> None:
    with pytest.raises(Failure):
        locate(container, Path("/buckets"))


def test_a_folder_as_the_data_of_a_single_model() -> None:
    source = {"S3DataSource": {"S3Uri": "s3://b/p/iris/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    assert locate({"Image": "i", "ModelDataSource": source}, None) == ("s3://b/p", "iris")


def test_pipelines_are_refused() -> None:
    models: list[dict[str, Any]] = [{}, {"Containers": []}, {"Containers": [{}, {}]}]
    for model in (*models, {"PrimaryContainer": {}, "Containers": [{}]}):
        with pytest.raises(Failure, match="pipelines"):
            container_of(model)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SAGEMAKER_PROGRAM": "predict.py"}, "start it with SAGEMAKER_PROGRAM=predict.py"),
        ({"SAGEMAKER_SUBMIT_DIRECTORY": "s3://b/source.tar.gz"}, "Start the server with SAGEMAKER_SUBMIT_DIRECTORY"),
        ({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}, "start it with"),
        ({"MANYMODELS_ACCELERATE": "off"}, "runs with MANYMODELS_ACCELERATE=on"),
        ({"MANYMODELS_ACCELERATE": "maybe"}, "MANYMODELS_ACCELERATE=maybe is no value"),
        ({"MANYMODELS_POLICY": "/opt/policy.json"}, "MANYMODELS_POLICY=/opt/policy.json is no value"),
    ],
)
def test_an_environment_that_would_change_answers_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(Failure, match=said):
        check_environment("m", environment, load())


def test_an_environment_that_the_server_has_is_taken() -> None:
    same = {"SAGEMAKER_PROGRAM": "inference", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
    check_environment("m", {**same, "SAGEMAKER_REGION": "us-east-1"}, load())


def test_an_environment_that_answers_do_not_depend_on_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check_environment(
        "m", {"MANYMODELS_MAX_BATCH": "7", "MANYMODELS_QUEUE_SIZE": "5", "COLOUR": "blue"}, load(max_batch=7)
    )
    assert caplog.messages == [
        "MANYMODELS_QUEUE_SIZE=5 is a setting of the server, which has 4096",
        "variables that its models will not see: COLOUR",
    ]


def test_every_operation_is_one_of_the_service() -> None:
    shapes = Shapes()
    tags = [{"Key": "é_1", "Value": "a b"}]
    assert shapes.checked("AddTags", {"ResourceArn": f"{PLACE}:model/x", "Tags": tags})["Tags"] == tags
    for value in ("a#b", "x" * 129):
        with pytest.raises(Failure, match=r"tags\.1\.member\.key"):
            shapes.checked("AddTags", {"ResourceArn": f"{PLACE}:model/x", "Tags": [{"Key": value, "Value": ""}]})

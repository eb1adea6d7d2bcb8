"""Deployment to SageMaker: deploy.py against a stand-in of AWS and a server of ours, build_and_push by what it runs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from serving import FLOWER, IRIS, Server, archive, as_json

from manymodels.sagemaker import UNSUPPORTED
from manymodels.settings import Settings, variables

DOCKER = Path(__file__).resolve().parent.parent / "docker"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/manymodels:latest"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"
#: Those that the package of multi-model-server reads.
MMS_VARIABLES = {"SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_MODEL_SERVER_VMARGS"}
UP = ("up", "--name", "shops", "--image", IMAGE, "--role", ROLE, "--store", "s3://models/shops")


@pytest.fixture(scope="module")
def deploy() -> Callable[..., None]:
    """The command line of deploy.py."""
    main = runpy.run_path(str(DOCKER / "deploy.py"))["main"]
    return lambda *arguments: main(list(arguments))


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region, and credentials that are nobody's."""
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "eu-central-1")


@pytest.fixture
def aws(region: None) -> Iterator[None]:
    """AWS, without its models."""
    with mock_aws():
        yield


def test_up_creates_a_multi_model_endpoint(aws: None, deploy: Any) -> None:
    deploy(*UP, "--env", "MANYMODELS_LOG_LEVEL=debug", "--env", "A=b=c", "--instances", "3")

    sagemaker = boto3.client("sagemaker")
    (container,) = sagemaker.describe_model(ModelName="shops")["Containers"]
    assert container["Image"] == IMAGE
    assert container["Mode"] == "MultiModel"
    assert container["ModelDataUrl"] == "s3://models/shops/"
    assert container["Environment"] == {"MANYMODELS_LOG_LEVEL": "debug", "A": "b=c"}
    endpoint = sagemaker.describe_endpoint(EndpointName="shops")
    assert endpoint["EndpointStatus"] == "InService"
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    assert (variant["ModelName"], variant["InitialInstanceCount"]) == ("shops", 3)


def test_down_deletes_all_that_up_created(aws: None, deploy: Any) -> None:
    deploy(*UP)
    deploy("down", "--name", "shops")
    sagemaker = boto3.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []


def test_down_deletes_what_is_there(aws: None, deploy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(*UP)
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName="shops")
    with pytest.raises(SystemExit, match="not all of it"):
        deploy("down", "--name", "shops")
    assert "DeleteEndpoint" in capsys.readouterr().err
    assert sagemaker.list_models()["Models"] == []


@pytest.mark.parametrize(
    ("store", "key"),
    [("s3://models/shops", "shops/iris.tar.gz"), ("s3://models/a/b/", "a/b/iris.tar.gz"), ("s3://models", IRIS)],
)
def test_add_uploads_an_artifact(aws: None, deploy: Any, tmp_path: Path, store: str, key: str) -> None:
    artifact = archive(tmp_path / IRIS, {"model.joblib": b"model"})
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    deploy("add", "--store", store, str(artifact))
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="models")["Contents"]] == [key]
    with s3.get_object(Bucket="models", Key=key)["Body"] as body:
        assert body.read() == artifact.read_bytes()


def test_ask_invokes_a_model(
    region: None, deploy: Any, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    deploy("ask", "--name", "shops", IRIS, as_json([FLOWER]).decode())
    assert capsys.readouterr().out == "[0]\n"
    with pytest.raises(SystemExit, match=r"missing\.tar\.gz"):
        deploy("ask", "--name", "shops", "missing.tar.gz", "[]")


def test_dry_run_prints_the_calls(deploy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = archive(tmp_path / IRIS, {"model.joblib": b"model"})
    for arguments in (
        UP,
        ("add", "--store", "s3://models/shops", str(artifact)),
        ("ask", "--name", "shops", IRIS, "[]"),
        ("down", "--name", "shops"),
    ):
        deploy("--dry-run", *arguments)
    printed = capsys.readouterr().out
    assert re.findall(r"^(?:sagemaker|s3)\S* .*?(?= \{)", printed, re.MULTILINE) == [
        "sagemaker create_model",
        "sagemaker create_endpoint_config",
        "sagemaker create_endpoint",
        "sagemaker wait endpoint_in_service",
        "s3 put_object",
        "sagemaker-runtime invoke_endpoint",
        "sagemaker delete_endpoint",
        "sagemaker delete_endpoint_config",
        "sagemaker delete_model",
    ]
    assert '"Mode": "MultiModel"' in printed
    assert '"ModelDataUrl": "s3://models/shops/"' in printed
    assert '"Key": "shops/iris.tar.gz"' in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "--store", "models/", IRIS), "'models/' is not like s3://bucket/folder/"),
        ((*UP, "--env", "DEBUG"), "'DEBUG' is not like NAME=VALUE"),
    ],
)
def test_arguments_are_checked(
    deploy: Any, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        deploy(*arguments)
    assert said in capsys.readouterr().err


def test_errors_are_one_line(aws: None, deploy: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"missing\.tar\.gz"):
        deploy("add", "--store", "s3://models/", str(tmp_path / "missing.tar.gz"))
    artifact = archive(tmp_path / IRIS, {"model.joblib": b"model"})
    with pytest.raises(SystemExit, match="NoSuchBucket"):
        deploy("add", "--store", "s3://nobodys/", str(artifact))


def test_build_and_push_runs_docker_and_prints_the_address(tmp_path: Path) -> None:
    """Programs that say what they were asked stand for those that would need an account."""
    for name, answer in (("aws", '[ "$2" != get-caller-identity ] || echo 123456789012'), ("docker", "echo noise")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $@" >>"$ASKED"\n{answer}\n')
        (tmp_path / name).chmod(0o755)
    asked = tmp_path / "asked"
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "ASKED": str(asked),
        "AWS_REGION": "eu-central-1",
    }
    done = subprocess.run(
        [DOCKER / "build_and_push", "manymodels", "--target", "training"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{IMAGE}\n"
    lines = asked.read_text().splitlines()
    (build,) = [line for line in lines if line.startswith("docker build")]
    assert build.endswith(f"-f docker/Dockerfile -t {IMAGE} --target training .")
    assert lines[-1] == f"docker push {IMAGE}"


def test_every_variable_of_sagemaker_is_in_the_page() -> None:
    rows = [
        line.split("|")[1:3]
        for line in (DOCKER.parent / "docs" / "sagemaker.md").read_text().splitlines()
        if "|" in line
    ]
    told = {name: text.strip() for names, text in rows for name in re.findall(r"`([A-Z_]{6,})`", names)}
    honoured = {name for setting in Settings.model_fields for name in variables(setting)} | MMS_VARIABLES
    assert {name for name, text in told.items() if text.startswith("honoured")} == {
        name for name in honoured if not name.startswith("MANYMODELS_")
    }
    assert {name for name, text in told.items() if text.startswith("not supported")} == set(UNSUPPORTED)

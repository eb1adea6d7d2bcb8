"""Deploy the image as a SageMaker multi-model endpoint, add models, ask one, and tear down.

    python docker/deploy.py up    --name shops --image IMAGE --role ROLE --store s3://bucket/models/
    python docker/deploy.py add   --store s3://bucket/models/ iris.tar.gz
    python docker/deploy.py ask   --name shops iris.tar.gz '[[5.1, 3.5, 1.4, 0.2]]'
    python docker/deploy.py down  --name shops

With --dry-run before the command, the calls of the AWS API are printed instead of made. Needs
boto3, and credentials and a region as boto3 finds them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

#: Seconds; longer than the 60 that a model has, so that its error arrives and not the client's own.
READ_TIMEOUT = 70


class Aws:
    """The AWS API, or with `dry_run` what would be asked of it."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run

    def call(self, service: str, operation: str, **arguments: Any) -> Any:
        """Make one call, or print it and return None."""
        if self._dry_run:
            shown = {name: f"{len(value)} bytes" if name == "Body" else value for name, value in arguments.items()}
            print(f"{service} {operation} {json.dumps(shown, indent=2)}")
            return None
        return getattr(self._client(service), operation)(**arguments)

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        """Wait until something is so, or print what for."""
        if self._dry_run:
            print(f"{service} wait {waiter} {json.dumps(arguments)}")
            return
        self._client(service).get_waiter(waiter).wait(**arguments)

    def _client(self, service: str) -> Any:
        return boto3.client(service, config=Config(read_timeout=READ_TIMEOUT))


def up(aws: Aws, args: argparse.Namespace) -> None:
    """Create model, endpoint configuration and endpoint, and wait until it is in service."""
    container = {
        "Image": args.image,
        "Mode": "MultiModel",
        # A prefix: what is uploaded below it can be invoked, without an update of the endpoint.
        "ModelDataUrl": args.store,
        "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
        "Environment": dict(args.env),
    }
    aws.call("sagemaker", "create_model", ModelName=args.name, ExecutionRoleArn=args.role, Containers=[container])
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": args.name,
        "InstanceType": args.instance_type,
        "InitialInstanceCount": args.instances,
        "InitialVariantWeight": 1.0,
    }
    aws.call("sagemaker", "create_endpoint_config", EndpointConfigName=args.name, ProductionVariants=[variant])
    aws.call("sagemaker", "create_endpoint", EndpointName=args.name, EndpointConfigName=args.name)
    print(f"it takes some minutes; its log is /aws/sagemaker/Endpoints/{args.name} in CloudWatch", file=sys.stderr)
    try:
        aws.wait("sagemaker", "endpoint_in_service", EndpointName=args.name)
    except WaiterError as error:
        sys.exit(f"the endpoint is not in service: {error.last_response.get('FailureReason', error)}")


def add(aws: Aws, args: argparse.Namespace) -> None:
    """Upload an artifact below the store's prefix; its file name is its TargetModel."""
    address = urlsplit(args.store)
    key = address.path.lstrip("/") + args.artifact.name
    aws.call("s3", "put_object", Bucket=address.netloc, Key=key, Body=args.artifact.read_bytes())
    print(f"TargetModel: {args.artifact.name}", file=sys.stderr)


def ask(aws: Aws, args: argparse.Namespace) -> None:
    """Invoke a model and print its answer."""
    reply = aws.call(
        "sagemaker-runtime",
        "invoke_endpoint",
        EndpointName=args.name,
        TargetModel=args.target_model,
        ContentType=args.content_type,
        Body=args.body.encode(),
    )
    if reply is not None:
        with reply["Body"] as body:
            print(body.read().decode())


def down(aws: Aws, args: argparse.Namespace) -> None:
    """Delete endpoint, configuration and model, as many as there are; the store is left as it is."""
    failed = False
    for operation, name in (
        ("delete_endpoint", "EndpointName"),
        ("delete_endpoint_config", "EndpointConfigName"),
        ("delete_model", "ModelName"),
    ):
        try:
            aws.call("sagemaker", operation, **{name: args.name})
        except ClientError as error:
            print(error, file=sys.stderr)
            failed = True
    if failed:
        sys.exit("not all of it could be deleted")


def prefix(text: str) -> str:
    """Return the address of a folder in S3, with a slash at its end."""
    address = urlsplit(text)
    if address.scheme != "s3" or not address.netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is not like s3://bucket/folder/")
    return text.rstrip("/") + "/"


def variable(text: str) -> tuple[str, str]:
    """Return the name and the value of a variable."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not like NAME=VALUE")
    return name, value


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print the calls instead of making them")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="create the endpoint")
    command.add_argument("--name", required=True, help="name of endpoint, configuration and model")
    command.add_argument("--image", required=True, help="the image in ECR, as build_and_push prints it")
    command.add_argument("--role", required=True, help="ARN of the execution role")
    command.add_argument("--store", required=True, type=prefix, help="s3://bucket/folder/ of the artifacts")
    command.add_argument("--instance-type", default="ml.m5.large", help="(ml.m5.large)")
    command.add_argument("--instances", type=int, default=2, help="how many (2, which AWS advises for availability)")
    command.add_argument(
        "--env", action="append", default=[], type=variable, metavar="NAME=VALUE", help="of the container"
    )
    command.set_defaults(run=up)

    command = commands.add_parser("add", help="upload an artifact")
    command.add_argument("--store", required=True, type=prefix, help="s3://bucket/folder/ of the artifacts")
    command.add_argument("artifact", type=Path, help="a .tar.gz, as 'manymodels package' makes it")
    command.set_defaults(run=add)

    command = commands.add_parser("ask", help="invoke a model")
    command.add_argument("--name", required=True, help="name of the endpoint")
    command.add_argument("--content-type", default="application/json", help="of the body (application/json)")
    command.add_argument("target_model")
    command.add_argument("body")
    command.set_defaults(run=ask)

    command = commands.add_parser("down", help="delete the endpoint")
    command.add_argument("--name", required=True, help="name of endpoint, configuration and model")
    command.set_defaults(run=down)

    args = parser.parse_args(argv)
    try:
        args.run(Aws(dry_run=args.dry_run), args)
    except (BotoCoreError, ClientError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()

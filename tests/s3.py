"""An S3 of the tests: moto's server, in this process, spoken to over HTTP; and what breaks the way to it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

BUCKET = "models"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class S3:
    """A bucket, and boto3's client of it."""

    endpoint: str
    client: Any
    #: What a server, or this process, needs to reach it.
    env: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.env = {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": self.endpoint}

    def put(self, key: str, body: bytes) -> None:
        """Put an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=BUCKET, Key=key)


@contextlib.contextmanager
def running() -> Iterator[S3]:
    """Run an S3 with an empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        # What it has belongs to the process: a bucket that another test had versions of would keep them.
        httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=BUCKET)
        yield S3(endpoint, client)
        client.close()
    finally:
        server.stop()


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a ``.tar.gz`` of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()

"""Servers that take on asynchronous invocations, and what a client of theirs sees."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3 import BUCKET, S3
from serving import FLOWER, Server, as_json, serve, until

BODY = as_json([FLOWER])


@dataclass
class Place:
    """A server that takes on asynchronous invocations, and clients of it and of its S3."""

    bucket: S3
    server: Server
    client: Any

    def put(self, key: str, body: bytes = BODY) -> str:
        """Put an input; return its address."""
        self.bucket.put(key, body)
        return f"s3://{BUCKET}/{key}"

    def ask(self, model: str = "one.joblib", **members: Any) -> Any:
        """Invoke a model; its input is the flower unless told otherwise."""
        if not {"InputLocation", "Body"} & members.keys():
            members["InputLocation"] = self.put("in/flower")
        return self.client.invoke_endpoint_async(EndpointName=model, **members)

    def get(self, address: str) -> Any:
        """Return an object once it is there."""
        return until(lambda: self.look(address), f"{address} is there")

    def look(self, address: str) -> Any:
        """Return an object; None if there is none."""
        bucket, _, key = address.removeprefix("s3://").partition("/")
        try:
            return self.bucket.client.get_object(Bucket=bucket, Key=key)
        except self.bucket.client.exceptions.NoSuchKey:
            return None

    def failure(self, reply: Any) -> Any:
        """Return what an invocation failed by."""
        content = json.loads(self.get(reply["FailureLocation"])["Body"].read())
        assert self.look(reply["OutputLocation"]) is None
        return content


def serving(folder: Path, env: Any, *options: str | Path) -> AbstractContextManager[Server]:
    return serve(
        folder,
        folder / "store",
        *("--workers", "2", "--async-output", f"s3://{BUCKET}/out/", "--async-queue", folder / "queue"),
        *options,
        env=env,
    )

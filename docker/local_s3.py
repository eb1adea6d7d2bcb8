"""An S3 on this machine, filled with a folder; docker/compose-s3.yaml runs it. It forgets all when it ends.

`python docker/local_s3.py FOLDER BUCKET [PORT]` needs `pip install 'moto[s3]' flask flask-cors`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer


def main(folder: Path, bucket: str, port: int = 5000) -> None:
    """Serve until it is told to end."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in all threads: it may be process 1, which has no default
    server = ThreadedMotoServer("0.0.0.0", port=port, verbose=False)  # noqa: S104 - other containers are to reach it
    server.start()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - any will do
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())
    print(f"{folder} is in s3://{bucket} of {client.meta.endpoint_url}", flush=True)
    signal.sigwait(ends)
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4]))

"""The S3 on this machine that docker/compose-s3.yaml gives the image as its store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3
import yaml
from serving import constant, serve

DOCKER = Path(__file__).resolve().parent.parent / "docker"


def test_a_folder_is_served_from_a_local_s3(tmp_path: Path) -> None:
    services = yaml.safe_load((DOCKER / "compose-s3.yaml").read_text())["services"]
    _, script, _, bucket = services["s3"]["command"]
    command, address = services["manymodels"]["command"]
    assert (command, address) == ("serve", f"s3://{bucket}")
    env = services["manymodels"]["environment"]
    models = tmp_path / "models"
    constant(models / "five.joblib", 5.0)
    constant(models / "folder" / "model.joblib", 6.0)
    local = [sys.executable, DOCKER / Path(script).name, models, bucket, "0"]
    with subprocess.Popen(local, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        env["AWS_ENDPOINT_URL_S3"] = process.stdout.readline().split()[-1]
        with serve(tmp_path, address, "--workers", "1", "--store-refresh", "0", env=env) as server:
            assert server.predict("five.joblib") == [5.0]
            assert server.predict("folder") == [6.0]
            client = boto3.client(
                "s3",
                endpoint_url=env["AWS_ENDPOINT_URL_S3"],
                region_name=env["AWS_DEFAULT_REGION"],
                aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            )
            client.upload_file(str(models / "five.joblib"), bucket, "added.joblib")
            assert server.predict("added.joblib") == [5.0]
        process.terminate()
    assert process.returncode == 0

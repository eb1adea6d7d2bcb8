"""docs/training.md, done: from CSV files to a model that is invoked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from serving import FLOWER, PATIENCE, Server, serve

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"


def blocks() -> list[tuple[str, str | None, str]]:
    """Return language, file name and code of the document's blocks."""
    found = re.findall(
        r"(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$",
        PAGE.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    return [(language, file or None, code) for file, language, code in found]


def bash(code: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-ec", code], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_documentation_from_csv_to_an_invoked_model(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    local = [block for block in blocks() if "image_uri" not in block[2]]
    start = next(number for number, block in enumerate(local) if "manymodels serve store" in block[2])
    for language, file, code in local[:start]:
        assert file is None
        if language == "python":
            subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
        else:
            bash(code, tmp_path)
    metadata = json.loads((tmp_path / "job/model/metadata.json").read_bytes())
    assert (metadata["n_features"], metadata["n_classes"]) == (4, 3)
    assert 0.95 < metadata["train_accuracy"] <= 1
    assert sorted(os.listdir(tmp_path / "job/model")) == ["metadata.json", "model.joblib"]

    with serve(tmp_path, tmp_path / "store", "--workers", "1") as server:
        invoke = local[start + 1][2].replace("manymodels invoke", f"manymodels invoke --url {server.url}")
        told = json.loads(bash(invoke, tmp_path))
        assert told == by_boto3(server)
    assert told["predictions"] == ["setosa"]
    assert told["model_metadata"] == metadata
    (row,) = told["probabilities"]
    assert row[0] > 0.9
    assert sum(row) == pytest.approx(1)

    (_, file, script), (_, _, command) = local[start + 2 :]
    assert file is not None
    (tmp_path / "job/code").mkdir()
    (tmp_path / file).write_text(script)
    before = (tmp_path / "job/model/model.joblib").stat().st_mtime_ns
    bash(command, tmp_path)
    assert (tmp_path / "job/model/model.joblib").stat().st_mtime_ns > before


def by_boto3(server: Server) -> Any:
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}),
    )
    body = json.dumps({"features": [FLOWER]})
    reply = client.invoke_endpoint(
        EndpointName="any", TargetModel="iris.tar.gz", ContentType="application/json", Body=body
    )
    with reply["Body"] as stream:
        answer = json.loads(stream.read())
    client.close()
    return answer


def test_sagemakers_snippets_are_python() -> None:
    snippets = [code for _, _, code in blocks() if "image_uri" in code]
    assert len(snippets) == 2
    for code in snippets:
        compile(code, "training.md", "exec")

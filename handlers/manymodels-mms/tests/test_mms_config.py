"""What multi-model-server is told, as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from manymodels_mms import config
from manymodels_mms.java import find_java
from manymodels_mms.settings import load as load_mms

from manymodels.settings import load

FOLDER = Path("/run/x")


def read(text: str) -> dict[str, str]:
    """Return the entries of a properties file that escapes nothing."""
    entries = dict(line.split("=", 1) for line in text.splitlines())
    assert len(entries) == len(text.splitlines()), "no entry is there twice"
    return entries


def test_properties() -> None:
    settings = load(invocation_timeout=60.5, load_timeout=10.0, max_body="1MiB", queue_size=7)
    assert read(config.properties(settings, FOLDER / "http.sock", FOLDER / "models")) == {
        "inference_address": "unix:/run/x/http.sock",
        "management_address": "unix:/run/x/http.sock",
        "model_store": "/run/x/models",
        "load_models": "",
        "default_service_handler": "manymodels_mms.service:handle",
        "default_workers_per_model": "1",
        "default_response_timeout_seconds": "121",
        "job_queue_size": "7",
        "max_request_size": str(2 << 20),
        "max_response_size": str(1 << 30),
        "decode_input_request": "false",
        "preload_model": "false",
        "number_of_netty_threads": "8",
        "netty_client_threads": "2",
        "metric_time_interval": "2147483647",
    }


def test_values_are_escaped() -> None:
    text = config.properties(load(), Path("/\u00e9\U0001f600\\n\n/s"), FOLDER)
    assert "inference_address=unix:/\\u00e9\\ud83d\\ude00\\\\n\\u000a/s\n" in text
    assert text.isascii()


def test_the_log_goes_to_standard_output_alone() -> None:
    entries = read(config.logging())
    assert entries["appender.out.type"] == "Console"
    assert [name for name in entries if name.endswith(".type")] == ["appender.out.type", "appender.out.layout.type"]
    assert entries["appender.out.layout.pattern"].startswith("\\u001f%level{")


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_VMARGS", "-Xmx1g '-Dx=a b'")
    assert config.command(Path("/jre/bin/java"), load_mms(), FOLDER, Path("/site/mms/frontend")) == [
        "/jre/bin/java",
        "-Xmx1g",
        "-Dx=a b",
        "-Djava.io.tmpdir=/run/x",
        "-Dlog4j2.configurationFile=file:///run/x/log4j2.properties",
        "-Dlog4j2.disableJmx=true",
        "-cp",
        "/site/mms/frontend/*",
        "com.amazonaws.ml.mms.ModelServer",
        "--python",
        sys.executable,
        "--mms-config",
        "/run/x/mms.properties",
    ]


def test_java_is_found_by_java_home_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java = find_java()
    assert b"version" in subprocess.run([java, "-version"], capture_output=True, check=True).stderr
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(java)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == tmp_path / "bin" / "java"

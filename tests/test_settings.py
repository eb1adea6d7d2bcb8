"""The settings: declared once, and from flags, environment and defaults in that order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import manymodels
from manymodels.context import ModelSettings
from manymodels.errors import SettingsError
from manymodels.settings import Settings, load, mistyped, source, variables

SOURCES = Path(manymodels.__file__).parent
#: The names SageMaker, its SDK and its containers use.
SAGEMAKER = {
    "SAGEMAKER_BIND_TO_PORT": ("port", "9000", 9000),
    "SAGEMAKER_MULTI_MODEL": ("multi_model", "true", True),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": ("invocation_timeout", "7", 7.0),
    "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": ("queue_size", "5", 5),
    "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": ("default_accept", "text/csv", "text/csv"),
    "SAGEMAKER_BATCH": ("batch_transform", "true", True),
    "SAGEMAKER_PROGRAM": ("program", "serve.py", "serve.py"),
    "SAGEMAKER_SUBMIT_DIRECTORY": ("submit_directory", "/code", "/code"),
    "SAGEMAKER_BASE_DIR": ("base_dir", "/elsewhere", Path("/elsewhere")),
    "SAGEMAKER_CONTAINER_LOG_LEVEL": ("log_level", "20", "info"),
    "MAX_CONTENT_LENGTH": ("max_body", "1000", 1000),
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_description_and_a_variable(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description[0].isupper()
    assert description.endswith(".")
    assert variables(name)[0] == f"MANYMODELS_{name.upper()}"


def test_no_variable_is_of_two_settings() -> None:
    names = [variable for name in Settings.model_fields for variable in variables(name)]
    assert len(names) == len(set(names))
    assert set(SAGEMAKER) == {name for name in names if not name.startswith("MANYMODELS_")}


@pytest.mark.parametrize("variable", SAGEMAKER)
def test_sagemakers_variables_are_taken(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, text, value = SAGEMAKER[variable]
    monkeypatch.setenv(variable, text)
    assert getattr(load(), name) == value
    assert source(name, {}) == f"from {variable}"


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().port == 8080
    assert source("port", {}) == "default"
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "9001")
    assert load().port == 9001
    monkeypatch.setenv("MANYMODELS_PORT", "9002")
    assert load().port == 9002
    assert source("port", {}) == "from MANYMODELS_PORT"
    assert load(port=9003).port == 9003
    assert source("port", {"port": 9003}) == "from --port"
    assert load(port=None).port == 9002


def test_other_variables_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("port", "PORT", "manymodels_port", "host", "HOST"):
        monkeypatch.setenv(name, "9004")
    assert (load().port, load().host) == (8080, None)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("MANYMODELS_WORKERS", "many", "workers is 'many' (from MANYMODELS_WORKERS): input should be a valid integer"),
        ("MANYMODELS_PORT", "70000", "port is '70000' (from MANYMODELS_PORT): input should be less than or equal to"),
        ("SAGEMAKER_BIND_TO_PORT", "x", "port is 'x' (from SAGEMAKER_BIND_TO_PORT)"),
        ("MANYMODELS_MEMORY", "much", "memory is 'much' (from MANYMODELS_MEMORY): write bytes, such as"),
        ("MANYMODELS_LOG_LEVEL", "loud", "log_level is 'loud' (from MANYMODELS_LOG_LEVEL): input should be 'debug'"),
        ("MANYMODELS_START_METHOD", "thread", "start_method is 'thread' (from MANYMODELS_START_METHOD)"),
        ("MANYMODELS_BATCHING", "maybe", "batching is 'maybe' (from MANYMODELS_BATCHING)"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(
    variable: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
        load()


def test_bad_flags_are_named_with_their_values() -> None:
    with pytest.raises(SettingsError) as error:
        load(workers=0, slow_after=-1)
    assert str(error.value) == (
        "workers is 0 (from --workers): input should be greater than or equal to 1; "
        "slow_after is -1 (from --slow-after): input should be greater than 0"
    )


def test_a_variable_that_is_nearly_a_settings_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MANYMODELS_MEMROY", "manymodels_store_refresh", "MANYMODELS_WORKERS"):
        monkeypatch.setenv(name, "1")
    for name in ("MANYMODELS_SERVICE_PORT", "MANYMODELS_PORT_8080_TCP_ADDR", "MANYMODELS_MMS_WORKERS_PER_MODEL"):
        monkeypatch.setenv(name, "1")  # of Kubernetes, and of another package
    assert mistyped() == {
        "MANYMODELS_MEMROY": "MANYMODELS_MEMORY",
        "manymodels_store_refresh": "MANYMODELS_STORE_REFRESH",
    }


@pytest.mark.parametrize(
    "name", ["workers", "memory", "max_body", "max_batch", "threads", "queue_size", "load_timeout"]
)
def test_no_size_or_time_may_be_zero(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is 0 "):
        load(**{name: 0})


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("block_plugins", "a, b,,", ("a", "b")),
        ("block_plugins", "", ()),
        ("memory", "2GiB", 2 << 30),
        ("max_body", "6MB", 6_000_000),
        ("log_level", "WARNING", "warning"),
        ("log_level", "10", "debug"),
        ("log_level", 40, "error"),
        ("batching", "off", False),
        ("cache_dir", "/var/cache/m", Path("/var/cache/m")),
    ],
)
def test_forms_of_values(name: str, value: Any, parsed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert getattr(load(**{name: value}), name) == parsed
    monkeypatch.setenv(f"MANYMODELS_{name.upper()}", str(value))
    assert getattr(load(), name) == parsed


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_plugins_see_the_operators_settings() -> None:
    flags = {"default_accept": "text/csv", "batch_transform": True}
    settings = load(threads=3, program="serve.py", batching=False, multi_model=True, **flags)
    seen = settings.model_settings()
    for name in ModelSettings.__struct_fields__:
        assert getattr(seen, name) == getattr(settings, name)


def test_nothing_else_reads_the_environment() -> None:
    readers = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(r"\benviron\b|\bgetenv\b|\benvironb\b", path.read_text())
    }
    assert readers <= {
        "settings.py",
        "server/launcher.py",  # hands it on to workers
        "testing/processes.py",  # looks whether a plugin changes it
        "training/script.py",  # hands it on to the user's script
    }

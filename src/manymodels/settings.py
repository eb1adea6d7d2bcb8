"""Every setting, declared once: name, type, default, help, environment variables.

Nothing else reads the environment. A flag (``--max-body``) wins over the environment
(``MANYMODELS_MAX_BODY``, then the names SageMaker uses), and that over the default.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AliasChoices,
    ByteSize,
    DirectoryPath,
    Field,
    FilePath,
    InstanceOf,
    ValidationError,
    field_serializer,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import policy, sagemaker
from .context import ModelSettings
from .errors import SettingsError
from .policy import Policy

PREFIX = "MANYMODELS_"


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _env(name: str, *sagemaker_names: str) -> AliasChoices:
    return AliasChoices(PREFIX + name.upper(), *sagemaker_names)


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, case_sensitive=True)

    host: str | None = Field(
        None,
        validation_alias=_env("host"),
        description="Address to listen on; 127.0.0.1 for a store of your own, 0.0.0.0 in SageMaker.",
    )
    port: int = Field(
        8080, ge=0, le=65535, validation_alias=_env("port", "SAGEMAKER_BIND_TO_PORT"), description="Port to listen on."
    )
    endpoints: FilePath | None = Field(
        None,
        validation_alias=_env("endpoints"),
        description="JSON file that maps EndpointNames to stores; unless set, any EndpointName stands for STORE.",
        json_schema_extra={"metavar": "FILE"},
    )
    emulate_sagemaker: bool = Field(
        False,
        validation_alias=_env("emulate_sagemaker"),
        description="Answer the calls of SageMaker that create, describe and delete models and endpoints; the folders "
        "of STORE, if there is one, stand for buckets.",
    )
    workers: int = Field(
        default_factory=_cpus,
        ge=1,
        le=1024,
        validation_alias=_env("workers"),
        description="Worker processes; as many as processors unless set. Each holds many models.",
    )
    fronts: int = Field(
        1,
        ge=1,
        le=64,
        validation_alias=_env("fronts"),
        description="Processes that speak HTTP; with 1 it is the one that also decides which models are loaded.",
    )
    memory: ByteSize | None = Field(
        None,
        ge=1 << 20,
        validation_alias=_env("memory"),
        description="Memory for loaded models, such as 2GiB; a share of the container's limit unless set.",
    )
    backend: str = Field(
        "workers", validation_alias=_env("backend"), description="Model server: workers, or one that a package adds."
    )
    cache_dir: Path | None = Field(
        None,
        validation_alias=_env("cache_dir"),
        description="Folder for unpacked artifacts, which a server that starts again finds there, and several may "
        "share; a temporary one, removed at the end, unless set. And for environments, which are otherwise in the "
        "user's cache.",
    )
    cache_size: ByteSize | None = Field(
        None,
        ge=1 << 20,
        validation_alias=_env("cache_size"),
        description="Bytes that unpacked artifacts may take on the disk; what was not used for longest is deleted, "
        "never what a loaded model uses. Half of what the disk has for them unless set.",
    )
    block_plugins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=_env("block_plugins"), description="Names of plugins to leave out, separated by commas."
    )
    policy: Annotated[InstanceOf[Policy] | None, NoDecode] = Field(
        None,
        validation_alias=_env("policy"),
        description="JSON file of what may be loaded: which plugins may serve, what pickles may import, which "
        "artifacts. Anything may, unless set.",
        json_schema_extra={"metavar": "FILE"},
    )
    trusted_keys: FilePath | None = Field(
        None,
        validation_alias=_env("trusted_keys"),
        description="File of public keys, as of ssh-keygen -t ed25519: only artifacts that one of them signed are "
        "loaded. Any artifact is, unless set.",
        json_schema_extra={"metavar": "FILE"},
    )
    environments: Literal["off", "built", "build"] = Field(
        "off",
        validation_alias=_env("environments"),
        description="What a model's requirements.txt leads to: off, nothing; built, an environment of its own that "
        "manymodels environments build made; build, one that is made when the model is first asked for.",
    )
    environment_wheels: DirectoryPath | None = Field(
        None,
        validation_alias=_env("environment_wheels"),
        description="Folder with all wheels that environments may be made of; nothing is downloaded then.",
        json_schema_extra={"metavar": "FOLDER"},
    )
    environment_timeout: float = Field(
        900.0,
        gt=0,
        validation_alias=_env("environment_timeout"),
        description="Seconds that making an environment may take.",
    )
    environment_size: ByteSize = Field(
        ByteSize(8 << 30),
        gt=0,
        validation_alias=_env("environment_size"),
        description="Most bytes an environment may take on disk.",
    )
    max_body: ByteSize = Field(
        ByteSize(sagemaker.BODY_LIMIT),
        gt=0,
        validation_alias=_env("max_body", "MAX_CONTENT_LENGTH"),
        description="Largest request body.",
    )
    max_members: int = Field(
        10_000, ge=1, validation_alias=_env("max_members"), description="Most files an archive may hold."
    )
    max_unpacked: ByteSize = Field(
        ByteSize(8 << 30),
        gt=0,
        validation_alias=_env("max_unpacked"),
        description="Most bytes an archive may unpack to.",
    )
    receive_timeout: float = Field(
        60.0,
        gt=0,
        validation_alias=_env("receive_timeout"),
        description="Seconds a client may take to send a request, body included; or not read its answer.",
    )
    invocation_timeout: float = Field(
        sagemaker.INVOCATION_TIMEOUT,
        gt=0,
        validation_alias=_env("invocation_timeout", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS"),
        description="Seconds a client waits for an answer.",
    )
    load_timeout: float = Field(
        sagemaker.LOAD_TIMEOUT,
        gt=0,
        validation_alias=_env("load_timeout"),
        description="Seconds a model may take to load, and each of its files to be fetched from a remote store.",
    )
    slow_after: float = Field(
        0.3,
        gt=0,
        validation_alias=_env("slow_after"),
        description="Seconds a model may hold a worker before the others there are served elsewhere.",
    )
    store_refresh: float = Field(
        1.0,
        ge=0,
        validation_alias=_env("store_refresh"),
        description="Most seconds for which a loaded model is served before the store is asked again if it changed; "
        "never, as in SageMaker: it is served until it is unloaded.",
    )
    eviction: Literal["lhd", "lru"] = Field(
        "lhd",
        validation_alias=_env("eviction"),
        description="Which model leaves when there is no room: lhd, the one whose bytes save the fewest seconds of "
        "loading, or lru, the least recently used.",
    )
    pin: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_env("pin"),
        description="Names of models, or patterns such as team/*, separated by commas: they are loaded at the start "
        "and never leave to make room.",
    )
    idle_ttl: float | None = Field(
        None,
        gt=0,
        validation_alias=_env("idle_ttl"),
        description="Seconds after which a model that nobody asks for is unloaded; never unless set.",
    )
    trace: Path | None = Field(
        None,
        validation_alias=_env("trace"),
        description="File to which invocations are appended, for manymodels replay and --warm-up; about 40 bytes each.",
        json_schema_extra={"metavar": "FILE"},
    )
    warm_up: FilePath | None = Field(
        None,
        validation_alias=_env("warm_up"),
        description="A trace: what it asks for most is loaded at the start, as far as there is room.",
        json_schema_extra={"metavar": "FILE"},
    )
    names: FilePath | None = Field(
        None,
        validation_alias=_env("names"),
        description="JSON file of names above artifacts: versions, aliases, canaries and shadows. It is read anew "
        "when it changes.",
        json_schema_extra={"metavar": "FILE"},
    )
    queue_size: int = Field(
        4096,
        ge=1,
        validation_alias=_env("queue_size", "SAGEMAKER_MODEL_JOB_QUEUE_SIZE"),
        description="Most invocations of one model that wait or run at a time.",
    )
    max_waiting: int = Field(
        16_384,
        ge=1,
        validation_alias=_env("max_waiting"),
        description="Most invocations of all models that wait or run at a time; any more are refused at once.",
    )
    max_batch: int = Field(
        64, ge=1, validation_alias=_env("max_batch"), description="Most invocations joined into one prediction."
    )
    batching: bool = Field(
        True,
        validation_alias=_env("batching"),
        description="Join invocations that wait into one prediction; answers agree to rounding. Off: bit for bit.",
    )
    accelerate: Literal["on", "off", "strict"] = Field(
        "on",
        validation_alias=_env("accelerate"),
        description="Serve by a plugin's faster predictor once it agrees with the original; strict: bit for bit.",
    )
    accelerate_tolerance: float = Field(
        1e-9,
        ge=0,
        validation_alias=_env("accelerate_tolerance"),
        description="How far its values may be from the original's, relative to the larger of 1 and the value.",
    )
    golden: Literal["refuse", "flag", "off"] = Field(
        "refuse",
        validation_alias=_env("golden"),
        description="What becomes of a model that fails the golden requests of its artifact: refuse; flag, which "
        "serves it with a note; off, which does not ask them.",
    )
    threads: int = Field(1, ge=1, validation_alias=_env("threads"), description="Threads one prediction may use.")
    start_method: Literal["fork", "spawn"] = Field(
        "fork" if sys.platform == "linux" else "spawn",
        validation_alias=_env("start_method"),
        description="How workers start: as forks of a warm process, or as fresh interpreters.",
    )
    default_accept: str = Field(
        "application/json",
        validation_alias=_env("default_accept", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"),
        description="Type of the answer where the client names none.",
    )
    batch_transform: bool = Field(
        False,
        validation_alias=_env("batch_transform", "SAGEMAKER_BATCH"),
        description="Lay out answers for the files of SageMaker's batch transform, as XGBoost's plugin does in CSV.",
    )
    program: str = Field(
        "inference.py",
        validation_alias=_env("program", "SAGEMAKER_PROGRAM"),
        description="File name of a model's own script.",
    )
    submit_directory: str | None = Field(
        None,
        validation_alias=_env("submit_directory", "SAGEMAKER_SUBMIT_DIRECTORY"),
        description="Folder or .tar.gz with one script for all models.",
    )
    access_keys: FilePath | None = Field(
        None,
        validation_alias=_env("access_keys"),
        description="JSON file of access key ids and their secrets: requests must then be signed with one of them, as "
        "boto3 does (Signature Version 4), but for GET /ping and /metrics. Signatures are ignored unless set.",
        json_schema_extra={"metavar": "FILE"},
    )
    async_output: str | None = Field(
        None,
        pattern=r"^s3://[^/]+(/.*)?$",
        validation_alias=_env("async_output"),
        description="Where answers to invoke_endpoint_async are written, s3://BUCKET/PREFIX; refused unless set.",
        json_schema_extra={"metavar": "ADDRESS"},
    )
    async_queue: Path | None = Field(
        None,
        validation_alias=_env("async_queue"),
        description="Folder of the queue of asynchronous invocations, on a disk that outlasts the server; needed "
        "with --async-output.",
    )
    async_queue_size: int = Field(
        10_000,
        ge=1,
        validation_alias=_env("async_queue_size"),
        description="Most asynchronous invocations that wait or run at a time; any more are refused at once.",
    )
    async_concurrency: int | None = Field(
        None,
        ge=1,
        validation_alias=_env("async_concurrency"),
        description="Most asynchronous invocations that models run at a time; half as many as workers unless set.",
    )
    async_max_body: ByteSize = Field(
        ByteSize(64 << 20),
        gt=0,
        validation_alias=_env("async_max_body"),
        description="Largest input of an asynchronous invocation, and most bytes of inputs in memory at a time.",
    )
    cloudwatch: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        validation_alias=_env("cloudwatch"),
        description="EndpointName under which CloudWatch gets metrics: one line of its embedded metric format "
        "on standard output a minute. None unless set.",
    )
    metrics_models: int = Field(
        50,
        ge=0,
        le=1000,
        validation_alias=_env("metrics_models"),
        description='Models that GET /metrics shows one by one, the most active; the rest are together, as "other".',
    )
    multi_model: bool = Field(
        False,
        validation_alias=_env("multi_model", "SAGEMAKER_MULTI_MODEL"),
        description="Without a store: be a multi-model container, which SageMaker tells what to load.",
    )
    base_dir: Path = Field(
        Path(sagemaker.BASE_DIR),
        validation_alias=_env("base_dir", "SAGEMAKER_BASE_DIR"),
        description="SageMaker's folder in a container.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=_env("log_level", "SAGEMAKER_CONTAINER_LOG_LEVEL"),
        description="Lowest level logged.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=_env("log_format"), description="Log lines for people or for machines."
    )

    @field_validator("port", mode="before")
    @classmethod
    def _port(cls, value: Any) -> Any:
        """Ignore what Kubernetes sets for a Service named ``manymodels``: MANYMODELS_PORT=tcp://10.0.0.1:8080."""
        return 8080 if str(value).startswith("tcp://") else value

    @field_validator("policy", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Read the file once, so that all processes have the same policy."""
        return policy.read(Path(value)) if isinstance(value, str) else value

    @field_serializer("policy")
    def _as_json(self, value: Policy | None) -> Any:
        return None if value is None else msgspec.to_builtins(value)

    @field_validator("block_plugins", "pin", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("store_refresh", mode="before")
    @classmethod
    def _never(cls, value: Any) -> Any:
        return math.inf if str(value).lower() == "never" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level(cls, value: Any) -> Any:
        """Take Python's numbers too: SageMaker's SDK sets SAGEMAKER_CONTAINER_LOG_LEVEL=20."""
        numbers = {"10": "debug", "20": "info", "30": "warning", "40": "error", "50": "error"}
        return numbers.get(str(value), str(value).lower())

    def model_settings(self) -> ModelSettings:
        """Return what plugins may know."""
        return ModelSettings(
            default_accept=self.default_accept,
            threads=self.threads,
            program=self.program,
            submit_directory=self.submit_directory,
            multi_model=self.multi_model,
            batch_transform=self.batch_transform,
            batching=self.batching,
            accelerate=self.accelerate,
            accelerate_tolerance=self.accelerate_tolerance,
            golden=self.golden,
            policy=self.policy,
        )


def load(**flags: Any) -> Settings:
    """Return the settings; `flags` that are None count as not given.

    :raises SettingsError: naming the setting, its value and where it came from.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        # The flag goes under its variable's name: were the field's own accepted, so would a variable `port` be.
        return Settings(**{variables(name)[0]: value for name, value in given.items()})
    except ValidationError as error:
        problems = []
        for item in error.errors():
            name = next(name for name in Settings.model_fields if item["loc"][0] in variables(name))
            fault = "write bytes, such as 500MB or 2GiB" if item["type"] == "byte_size" else item["msg"].lower()
            problems.append(f"{name} is {item['input']!r} ({source(name, given)}): {fault}")
        raise SettingsError("; ".join(problems)) from error


def source(name: str, flags: dict[str, Any]) -> str:
    """Return where a setting's value came from, for people."""
    if flags.get(name) is not None:
        return f"from --{name.replace('_', '-')}"
    for variable in variables(name):
        if variable in os.environ:
            return f"from {variable}"
    return "default"


def unsupported() -> dict[str, str]:
    """Return SageMaker's variables that are set and not read, each with what to do instead."""
    return {name: remedy for name, remedy in sagemaker.UNSUPPORTED.items() if name in os.environ}


def mistyped() -> dict[str, str]:
    """Return variables that are set and not read, and look like one that is, each with that one.

    Others may be of other programs: Kubernetes sets some for a Service named ``manymodels``.
    """
    known = {variables(name)[0].removeprefix(PREFIX): variables(name)[0] for name in Settings.model_fields}
    meant = {}
    for variable in os.environ:
        name = variable.upper().removeprefix(PREFIX)
        if name != variable.upper() and variable not in known.values():
            for close in difflib.get_close_matches(name, known, 1, 0.8):
                meant[variable] = known[close]
    return meant


def variables(name: str) -> list[str]:
    """Return the environment variables of a setting, the first that is set wins."""
    alias = Settings.model_fields[name].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices]

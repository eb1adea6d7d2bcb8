"""What SageMaker tells a training job, read from below its folder.

Source: the AWS developer guide, "How Amazon SageMaker provides training information". Every file may be
absent, so that a job can be tried anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from ..errors import TrainingFailed

#: Bytes of a configuration file; 100 hyperparameters of the longest names and values are 276 kB.
LIMIT = 1 << 20
#: Hyperparameter that chooses among several plugins that train.
PLUGIN = "manymodels_plugin"
#: Prefixes of hyperparameters that SageMaker and its SDK add; tuning adds `_tuning_objective_metric`.
RESERVED = ("sagemaker_", "_")

Content = TypeVar("Content")


class Group(msgspec.Struct, frozen=True):
    """Hosts of one instance type."""

    instance_group_name: str
    instance_type: str = ""
    hosts: list[str] = []


class Resources(msgspec.Struct, frozen=True):
    """The content of ``resourceconfig.json``."""

    current_host: str = "algo-1"
    hosts: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["algo-1"])
    network_interface_name: str = "eth0"
    current_instance_type: str = "local"
    current_group_name: str = "homogeneousCluster"
    instance_groups: list[Group] = []
    topology: Any = None


@dataclass(frozen=True)
class Job:
    """A training job."""

    #: SageMaker's folder, ``/opt/ml`` in a container.
    base: Path
    #: The user's, as text, without the reserved ones.
    hyperparameters: dict[str, str]
    #: The reserved ones, decoded.
    reserved: dict[str, Any]
    #: The folder of each channel; it is there unless the channel is in Pipe mode.
    channels: dict[str, Path]
    #: The content of ``inputdataconfig.json``.
    input_data: dict[str, dict[str, Any]]
    resources: Resources

    @property
    def model_dir(self) -> Path:
        """Folder that becomes the model."""
        return self.base / "model"

    @property
    def output_dir(self) -> Path:
        """Folder of everything else that is written."""
        return self.base / "output"

    def make_folders(self) -> None:
        """Make the folders that are written to."""
        for folder in (self.model_dir, self.output_dir / "data", self.output_dir / "intermediate"):
            folder.mkdir(parents=True, exist_ok=True)

    def reserved_text(self, name: str) -> str | None:
        """Return a reserved hyperparameter that is text; None if it is not given."""
        value = self.reserved.get(name)
        return None if value is None else str(value)


def read_job(base: Path) -> Job:
    """Read a job.

    :raises TrainingFailed: naming the file that is not valid.
    """
    config = base / "input" / "config"
    given = _read(config / "hyperparameters.json", dict[str, Any], {})
    # SageMaker writes strings only; a file written by hand for a local try need not.
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    own = {name for name in texts if name.startswith(RESERVED) or name == PLUGIN}
    input_data = _read(config / "inputdataconfig.json", dict[str, dict[str, Any]], {})
    return Job(
        base=base,
        hyperparameters={name: text for name, text in texts.items() if name not in own},
        reserved={name: decode(texts[name]) for name in own},
        channels=_channels(base / "input" / "data", set(input_data)),
        input_data=input_data,
        resources=_read(config / "resourceconfig.json", Resources, Resources()),
    )


def decode(text: str) -> Any:
    """Return what a hyperparameter's text stands for: SageMaker's SDK encodes values as JSON, other clients do not."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def plain(text: str) -> str:
    """Return a hyperparameter's text without the quotes that the SDK puts around strings."""
    value = decode(text)
    return value if isinstance(value, str) else text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")  # it stays text


def _channels(folder: Path, declared: set[str]) -> dict[str, Path]:
    there = {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
    names = declared | {name for name in there if not name.startswith(".")}
    return {name: folder / name for name in sorted(names)}


def _read(path: Path, kind: type[Content], default: Content) -> Content:
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except FileNotFoundError:
        return default
    except OSError as error:
        raise TrainingFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LIMIT:
        raise TrainingFailed(f"{path} has more than {LIMIT} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrainingFailed(f"{path} is not valid: {error}") from error

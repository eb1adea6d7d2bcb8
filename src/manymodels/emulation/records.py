"""What was created: kept in memory, and in a file where it is to outlive the server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..errors import SettingsError

Status = Literal["Creating", "InService", "Updating", "Deleting", "Failed"]


def now() -> float:
    """Return the time, in seconds; as AWS, to the millisecond, which clients can send back as it is."""
    return round(time.time(), 3)


class Record(msgspec.Struct):
    """A model or an endpoint configuration."""

    #: As it was created; its members are those of the service model.
    request: dict[str, Any]
    created: float = msgspec.field(default_factory=now)


class Deployed(msgspec.Struct):
    """A variant, with the container that its model had when the endpoint was made or updated."""

    variant: dict[str, Any]
    container: dict[str, Any]
    #: Its share of invocations, as last set.
    weight: float

    @property
    def name(self) -> str:
        """The variant's name."""
        name: str = self.variant["VariantName"]
        return name


class Deployment(msgspec.Struct):
    """What an endpoint serves, which no later change to models and configurations touches."""

    #: The configuration's name.
    config: str
    variants: list[Deployed]
    #: The AsyncInferenceConfig; None: clients wait for their answers.
    asynchronous: dict[str, Any] | None = None


class EndpointRecord(Record, kw_only=True):
    """An endpoint."""

    deployment: Deployment
    status: Status = "Creating"
    reason: str | None = None
    modified: float = msgspec.field(default_factory=now)
    #: Whether it was in service before the server was started anew: if it fails then, the next start tries it again.
    served: bool = False

    def change(self, status: Status, reason: str | None = None) -> None:
        """Take note of another status."""
        self.status, self.reason, self.modified = status, reason, now()


class _Kept(msgspec.Struct):
    models: dict[str, Record] = {}
    configs: dict[str, Record] = {}
    endpoints: dict[str, EndpointRecord] = {}


class Records:
    """All models, endpoint configurations and endpoints, by name."""

    def __init__(self, path: Path | None) -> None:
        """Begin with what an earlier server wrote down.

        :param path: the file; None: nothing is kept.
        :raises SettingsError: if it cannot be read.
        """
        self._path = path
        kept = _Kept()
        if path is not None and path.exists():
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise SettingsError(
                    f"what was created earlier cannot be read from {str(path)!r}: {error}; "
                    f"delete the file to begin anew"
                ) from error
        self.models, self.configs, self.endpoints = kept.models, kept.configs, kept.endpoints

    def save(self) -> None:
        """Write everything down: a few kilobytes, replaced at once."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(_Kept(self.models, self.configs, self.endpoints)))
        new.replace(self._path)

"""One request to a model and its answer, as they travel between processes."""

from __future__ import annotations

import math

import msgspec


class Invocation(msgspec.Struct, array_like=True, frozen=True):
    """A request to one model."""

    body: bytes
    #: As the client sent it, parameters included; None if absent.
    content_type: str | None = None
    accept: str | None = None
    #: The request's headers, names in lower case.
    headers: dict[str, str] = {}
    request_id: str = ""
    #: When the client has no use for an answer any more, by the monotonic clock.
    deadline: float = math.inf
    #: Seconds the model has for it; None: as many as the settings say.
    timeout: float | None = None


class Answer(msgspec.Struct, array_like=True):
    """What the model answered."""

    body: bytes
    content_type: str
    status: int = 200
    headers: dict[str, str] = {}
    #: Seconds spent by stage (`queue`, `fetch`, `load`, `predict`), for Server-Timing.
    timings: dict[str, float] = {}
    #: The version of the artifact that answered; empty where there is no store that has versions.
    version: str = ""
    #: The artifact that answered, where a name above artifacts was asked for.
    target_model: str | None = None

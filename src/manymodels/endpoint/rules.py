"""The operator's file of names above artifacts: versions, aliases, weighted canaries and shadows."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec

from ..errors import BadTargetModel, SettingsError
from ..sagemaker import SESSION_ID, TARGET_MODEL
from ..store import check_target_model

#: Most bytes of the file.
LIMIT = 4 << 20
#: A name with a version: `churn@3`, `churn@1.2.0`.
_VERSIONED = re.compile(r"(?P<name>.+)@(?P<version>\d+(?:\.\d+)*)", re.ASCII)
_FIELD = re.compile(r"\{(name|version)\}")
#: Of a client's headers those that SageMaker passes on, which are all that an invocation has.
_STICKY = re.compile(r"x-amzn-sagemaker-[a-z0-9-]+")

_Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second artifact that is asked the same, and whose answers are compared and not given."""

    model: str
    #: Of all requests, how many it is asked.
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: How far its numbers may be off, relative to ``max(1, |value|)``.
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 1e-9


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule as it stands in the file."""

    serve: str | dict[str, _Weight]
    sticky: str | None = None
    shadow: Shadow | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    names: dict[str, Any] = {}
    versions: str | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a name stands for."""

    name: str
    #: The artifacts that answer, and how often each does in relation to the others.
    serve: dict[str, float]
    #: The request header whose value picks among them, in lower case.
    sticky: str | None = None
    shadow: Shadow | None = None

    def choose(self, headers: Mapping[str, str]) -> str:
        """Return the artifact for a request.

        The sticky header's value picks it by weighted rendezvous hashing: where the weights change, clients only move
        to artifacts that gain. Requests without the header are drawn. Those of a session are for the artifact that
        answers most often: what opened the session has to be asked on, and of that nothing is kept here.

        :param headers: their names in lower case.
        """
        if len(self.serve) == 1:
            return next(iter(self.serve))
        if SESSION_ID in headers:
            return self.main
        if self.sticky is None or (value := headers.get(self.sticky)) is None:
            return random.choices(list(self.serve), list(self.serve.values()))[0]  # noqa: S311 - no secret
        return min(self.serve, key=lambda artifact: self._distance(value, artifact))

    def _distance(self, value: str, artifact: str) -> float:
        weight = self.serve[artifact]
        if not weight:
            return math.inf
        key = f"{self.name}\0{value}\0{artifact}".encode()
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")
        return -math.log((drawn + 1) / (1 << 56)) / weight

    @property
    def main(self) -> str:
        """The artifact that answers most often."""
        return max(self.serve, key=self.serve.__getitem__)

    @property
    def artifacts(self) -> list[str]:
        """All artifacts, the shadow's last."""
        return [*self.serve, *(() if self.shadow is None else (self.shadow.model,))]


class Rules:
    """A file of names, read and found to be valid."""

    def __init__(self, rules: dict[str, Rule], versions: str | None) -> None:
        self._rules = rules
        self._versions = versions
        #: The rule of a name, if it has one.
        self.get = rules.get

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules.values())

    def version(self, name: str) -> str | None:
        """Return the artifact of a name with a version; None if it is none, or the file says of none where they are."""
        return _version(name, self._versions)


def read(path: Path) -> Rules:
    """Return the rules of a file.

    :raises SettingsError: if it cannot be read, or is not valid; names the culprit.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise SettingsError(f"names {str(path)!r} cannot be read: {error.strerror}") from error
    return parse(content, str(path))


def parse(content: bytes, path: str) -> Rules:
    """Return the rules of a file's content.

    :param path: the file's, for messages.
    :raises SettingsError: if it is not valid; names the culprit.
    """
    try:
        if len(content) > LIMIT:
            raise ValueError(f"has more than {LIMIT} bytes")
        file = msgspec.convert(json.loads(content, object_pairs_hook=_once, parse_constant=_no_constant), _File)
        if file.versions is not None:
            _check_versions(file.versions)
        return Rules({name: _rule(name, written, file) for name, written in file.names.items()}, file.versions)
    except (ValueError, RecursionError) as error:  # msgspec's and json's errors are of the first kind
        raise SettingsError(f"names {path!r} is not valid: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice; leave one out")
    return content


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_versions(template: str) -> None:
    fields = _FIELD.findall(template)
    if sorted(fields) != ["name", "version"] or set("{}") & set(_FIELD.sub("", template)):
        raise ValueError(
            f"versions is {template!r}; say once each where {{name}} and {{version}} stand in an artifact's path, "
            f"such as '{{name}}/{{version}}.tar.gz'"
        )


def _version(name: str, template: str | None) -> str | None:
    if template is None or "@" not in name or (parts := _VERSIONED.fullmatch(name)) is None:
        return None
    return _FIELD.sub(lambda field: parts[field[1]], template)


def _rule(name: str, content: Any, file: _File) -> Rule:
    try:
        check_target_model(name)
        written = _Written(serve=content) if isinstance(content, str) else msgspec.convert(content, _Written)
        weights = {written.serve: 1.0} if isinstance(written.serve, str) else written.serve
        serve = {_artifact(target, name, file): weight for target, weight in weights.items()}
        if len(serve) < len(weights):
            raise ValueError("two of what it serves are the same artifact; add up their weights")
        if not any(serve.values()):
            raise ValueError("it serves nothing; give an artifact a weight above 0")
        sticky = None if written.sticky is None else _header(written.sticky)
        return Rule(name=name, serve=serve, sticky=sticky, shadow=_shadow(written.shadow, serve, name, file))
    except (ValueError, BadTargetModel) as error:
        raise ValueError(f"{name!r}: {error}") from error


def _shadow(shadow: Shadow | None, serve: dict[str, float], name: str, file: _File) -> Shadow | None:
    if shadow is None:
        return None
    model = _artifact(shadow.model, name, file)
    if [model] == [artifact for artifact, weight in serve.items() if weight]:
        raise ValueError(f"its shadow {model!r} is what it serves; name another artifact")
    return msgspec.structs.replace(shadow, model=model)


def _artifact(target: str, name: str, file: _File) -> str:
    """Return the artifact that a rule names, by its path or with a version."""
    if target == name:  # a canary in front of what clients ask for already
        return target
    if target in file.names:
        raise ValueError(f"{target!r} is a name of this file itself; say which artifact it is to be")
    return check_target_model(_version(target, file.versions) or target)


def _header(name: str) -> str:
    lower = name.lower()
    if not _STICKY.fullmatch(lower) or lower in (TARGET_MODEL, SESSION_ID):
        raise ValueError(
            f"sticky is {name!r}; name a header that starts with X-Amzn-SageMaker-, other than those of TargetModel "
            f"and SessionId, such as X-Amzn-SageMaker-Custom-Attributes"
        )
    return lower

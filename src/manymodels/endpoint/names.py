"""Names above artifacts: what the operator's file says of them, as long as it says it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ..errors import BadTargetModel, LoadFailed, ManyModelsError, ModelNotFound, SettingsError
from ..invocation import Answer, Invocation
from ..metrics import Metrics
from ..metrics.record import ShadowCounts
from ..watched import Watched
from . import rules
from .rules import Rule
from .shadows import Shadows

logger = logging.getLogger(__name__)


class ShadowDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A shadow, and what came of asking it since its rule stands in the file."""

    model: str
    share: float
    tolerance: float
    agreed: int
    differed: int
    failed: int
    dropped: int
    #: The largest difference of those that agreed, relative to ``max(1, |value|)``.
    largest_difference: float
    #: Why it last differed or failed.
    last: str


class NameDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A name and what it stands for."""

    name: str
    #: Weights by artifact.
    serve: dict[str, float]
    sticky: str | None = None
    shadow: ShadowDescription | None = None


class Names:
    """The names of an endpoint."""

    def __init__(
        self,
        path: Path,
        answer: Callable[[str, Invocation], Awaitable[Answer]],
        ask: Callable[[str, Invocation], Awaitable[Answer]],
        find: Callable[[str], object],
        metrics: Metrics,
    ) -> None:
        """Read the file.

        :param answer: answers a client's invocation of an artifact.
        :param ask: answers one of nobody's, which is not counted as a client's.
        :param find: looks an artifact up in the store, and blocks; see `Store.find`.
        :raises SettingsError: if it is not valid.
        """
        self._path = path
        self._answer = answer
        self._find = find
        self._counts = metrics.shadows
        self._shadows = Shadows(ask)
        self._looking_up: asyncio.Task[None] | None = None
        self._file = Watched(path, "names", self._changed, self._adopt)
        self._rules = rules.read(path)
        self._adopt(self._rules)

    def start(self) -> None:
        """Begin to look whether the file changes."""
        self._looking_up = asyncio.create_task(asyncio.to_thread(self._look_up))
        self._file.start()

    def stop(self) -> None:
        """End it, and whatever shadows are asked."""
        if self._looking_up is not None:
            self._looking_up.cancel()
        self._file.stop()
        self._shadows.stop()

    @property
    def fault(self) -> str:
        """Why the file, as it is now, is not in force; empty if it is."""
        return self._file.fault

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        """Answer an invocation of a name, or of an artifact that has no other."""
        rule = self._rules.get(name)
        artifact = self._rules.version(name) if rule is None else rule.choose(invocation.headers)
        if artifact is None:
            return await self._answer(name, invocation)
        shadow = None if rule is None else rule.shadow
        # Of now: when the answer is there, the file may say something else.
        counts = None if shadow is None else self._counts[name, shadow.model]
        try:
            answer = await self._answer(artifact, invocation)
        except ManyModelsError as error:
            error.target_model = artifact
            raise
        answer.target_model = artifact
        if shadow is not None and counts is not None:
            self._shadows.begin(name, shadow, invocation, answer, counts)
        return answer

    def artifact(self, name: str) -> str:
        """Return the artifact that answers to a name, most often if there are several; the name if it has no other."""
        rule = self._rules.get(name)
        return (self._rules.version(name) or name) if rule is None else rule.main

    def describe(self, artifact: str | None = None) -> list[NameDescription]:
        """Return all names, or those that lead to an artifact."""
        return [self._described(rule) for rule in self._rules if artifact is None or artifact in rule.artifacts]

    def _described(self, rule: Rule) -> NameDescription:
        shadow = rule.shadow
        described = None
        if shadow is not None:
            counts = self._counts[rule.name, shadow.model]
            described = ShadowDescription(
                model=shadow.model,
                share=shadow.share,
                tolerance=shadow.tolerance,
                agreed=counts.agreed,
                differed=counts.differed,
                failed=counts.failed,
                dropped=counts.dropped,
                largest_difference=counts.largest,
                last=counts.last,
            )
        return NameDescription(name=rule.name, serve=rule.serve, sticky=rule.sticky, shadow=described)

    # -- The file --

    def _look_up(self) -> None:
        """Say which of the artifacts that are named at the start are not there; they may still come."""
        for name, artifact in [(rule.name, artifact) for rule in self._rules for artifact in rule.artifacts]:
            try:
                self._find(artifact)
            except ManyModelsError as error:
                logger.warning("names %r: %r: %s", str(self._path), name, error)

    def _changed(self) -> rules.Rules:
        """Return what the file says now.

        :raises ManyModelsError: if it is not valid, or names an artifact that was not named before and is not there.
        """
        changed = rules.read(self._path)
        known = {artifact for rule in self._rules for artifact in rule.artifacts}
        for rule in changed:
            for artifact in rule.artifacts:
                if artifact not in known:
                    try:
                        self._find(artifact)
                    except (ModelNotFound, BadTargetModel) as error:
                        raise SettingsError(f"names {str(self._path)!r}: {rule.name!r}: {error}") from error
                    except LoadFailed as error:  # of that its clients are told
                        logger.warning("%s", error, extra={"model": artifact})
                    known.add(artifact)
        return changed

    def _adopt(self, changed: rules.Rules) -> None:
        """Put rules in force; a shadow whose rule is another than it was is counted from zero."""
        counts = {}
        for rule in changed:
            if rule.shadow is not None:
                key = (rule.name, rule.shadow.model)
                before = self._rules.get(rule.name)
                same = before is not None and before.shadow == rule.shadow and key in self._counts
                counts[key] = self._counts[key] if same else ShadowCounts()
        self._rules = changed
        self._counts.clear()
        self._counts.update(counts)

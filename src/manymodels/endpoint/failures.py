"""Loads that failed, each remembered for a while by the version of its artifact."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from ..errors import ManyModelsError
from ..store import Found

#: Seconds a failed load is remembered: at first, and at most. It doubles each time.
FORGET_FIRST = 1.0
FORGET_MOST = 60.0
#: Failed loads remembered; beyond, the oldest are forgotten.
FAILURES = 10_000


@dataclass
class _Failure:
    version: str
    error: ManyModelsError
    delay: float
    until: float


class Failures:
    """What cannot be loaded, so that it is not tried again at once."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    def version(self, target_model: str) -> str | None:
        """Return the version of an artifact that is not to be tried yet, if there is one."""
        failure = self._failures.get(target_model)
        return failure.version if failure is not None and time.monotonic() < failure.until else None

    def why(self, target_model: str) -> str:
        """Return why an artifact could not be loaded when it was last tried; empty if it could, or was not tried."""
        failure = self._failures.get(target_model)
        return "" if failure is None else str(failure.error)

    def check(self, found: Found) -> None:
        """Raise the error of an artifact that is not to be tried yet.

        :raises ManyModelsError: why it could not be loaded.
        """
        if self.version(found.target_model) == found.version:
            raise self._failures[found.target_model].error.again()

    def remember(self, found: Found, error: ManyModelsError) -> None:
        """Take note of a load that failed."""
        old = self._failures.pop(found.target_model, None)
        repeated = old is not None and old.version == found.version
        delay = min(old.delay * 2, FORGET_MOST) if old is not None and repeated else FORGET_FIRST
        self._failures[found.target_model] = _Failure(found.version, error.again(), delay, time.monotonic() + delay)
        while len(self._failures) > FAILURES:
            self._failures.popitem(last=False)

    def forget(self, target_model: str) -> None:
        """Forget a failure: the artifact was loaded."""
        self._failures.pop(target_model, None)

"""How a check ends."""

from __future__ import annotations

from typing import Literal

import msgspec


class Failed(Exception):
    """Raised by a check that the plugin does not pass; says what it did, in a sentence."""


class NotApplicable(Exception):
    """Raised by a check that has nothing to ask of this plugin; says why."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a check."""

    status: Literal["passed", "failed", "skipped"]
    #: What was done or, of a failure, what the plugin did; one sentence.
    why: str = ""
    seconds: float = 0.0
    #: What was printed and logged meanwhile, tracebacks included.
    output: str = ""

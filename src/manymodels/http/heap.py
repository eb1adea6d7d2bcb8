"""The garbage collector of a process that answers thousands of requests a second."""

from __future__ import annotations

import gc

#: Objects made between collections. A request leaves hardly any behind that refer to each other.
THRESHOLD = 10_000


def freeze() -> None:
    """Leave all that was imported and started by now out of collections, each of which would walk through it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)

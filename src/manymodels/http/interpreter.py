"""Python's garbage collector and lock, as they suit a process that answers thousands of requests a second."""

from __future__ import annotations

import gc
import sys

#: Objects made between collections. A request leaves hardly any behind that refer to each other.
THRESHOLD = 10_000
#: Seconds for which the event loop keeps the interpreter's lock while another thread waits for it. A thread that looks
#: at the store waits for it after every call to the system, of which an artifact takes a dozen.
SWITCH = 0.0001


def tune() -> None:
    """Leave what was imported and started by now out of collections, and have the event loop make way for threads."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
    sys.setswitchinterval(SWITCH)

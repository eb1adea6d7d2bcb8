"""Whether the server has much to do, told by how much of a processor its front takes."""

from __future__ import annotations

import sys
import time

#: Share of a processor from which the front is busy: some 300 requests a second.
SHARE = 0.1
#: Seconds between looks.
LOOK = 0.1


class Busy:
    """Says whether another process has had more than its share of a processor lately."""

    def __init__(self, pid: int) -> None:
        """Begin to look.

        :param pid: of the process; 0: none, which is never busy.
        """
        # The processor time of a process, as clock_getcpuclockid(3) makes it; see MAKE_PROCESS_CPUCLOCK of Linux.
        self._clock = ~pid << 3 | 2 if pid and sys.platform == "linux" else None
        self._busy = False
        self._since = time.monotonic()
        self._had = self._processor()

    def _processor(self) -> float:
        if self._clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it has ended, or the system does not say it of others
            self._clock = None
            return 0.0

    def __call__(self) -> bool:
        """Say whether it is busy."""
        now = time.monotonic()
        if now - self._since > LOOK:
            had = self._processor()
            self._busy = had - self._had > SHARE * (now - self._since)
            self._had, self._since = had, now
        return self._busy

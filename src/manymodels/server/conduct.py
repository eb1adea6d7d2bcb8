"""Remember which models end their workers or hold them up, and what follows from it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from ..errors import ModelRefused

#: Ended workers after which a model gets one of its own; any more and it is refused for a while.
KILLS = 2
#: Long jobs after which a model gets a worker of its own.
SLOW = 3
#: Seconds of the first refusal; each further one lasts twice as long.
REFUSED = 10.0
REFUSED_MOST = 600.0
#: Seconds without an incident after which a model's record is clean again.
FORGIVEN = 600.0
#: Models remembered.
MOST = 10_000


@dataclass
class _Record:
    kills: int = 0
    slow: int = 0
    last: float = 0.0
    refused_until: float = 0.0
    may_try: bool = True
    reason: str = ""


class Conduct:
    """The records of all models, by name and version: another content of an artifact starts anew."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def check(self, name: str, version: str) -> None:
        """Refuse a model whose time is not up.

        :raises ModelRefused: with the reason and the seconds left.
        """
        if self._records and (reason := self.refusal(name, version)) is not None:
            raise ModelRefused(reason)

    def refusal(self, name: str, version: str) -> str | None:
        """Return why a model is refused, and for how long yet; None if it is not."""
        record = self._records.get((name, version))
        if record is None or (left := record.refused_until - time.monotonic()) <= 0:
            return None
        return (
            f"{name!r} is refused for another {left:.0f} s: its worker process {record.reason}, "
            f"{record.kills} times; mend the artifact and put it into the store again"
        )

    def check_all(self, name: str) -> None:
        """Refuse a model of which a version is refused.

        :raises ModelRefused: with the reason and the seconds left.
        """
        for model, version in self._records:
            if model == name:
                self.check(name, version)

    def isolated(self, name: str, version: str) -> bool:
        """Say whether a model is to have a worker of its own."""
        record = self._records.get((name, version))
        return record is not None and (record.kills >= KILLS or record.slow >= SLOW)

    def killed(self, name: str, version: str, reason: str) -> None:
        """Take note that a worker ended while it ran the model."""
        record = self._record(name, version)
        record.kills += 1
        record.reason = reason
        if record.kills > KILLS:
            seconds = min(REFUSED * 2 ** (record.kills - KILLS - 1), REFUSED_MOST)
            record.refused_until = time.monotonic() + seconds

    def slow(self, name: str, version: str) -> bool:
        """Take note that the model held up its worker; say whether it is to have its own from now on."""
        record = self._record(name, version)
        record.slow += 1
        return record.slow >= SLOW

    def failed_trial(self, name: str, version: str) -> None:
        """Take note that a worker ended while a faster predictor of the model was tried."""
        self._record(name, version).may_try = False

    def may_try(self, name: str, version: str) -> bool:
        """Say whether a faster predictor of the model may be tried."""
        record = self._records.get((name, version))
        return record is None or record.may_try

    def _record(self, name: str, version: str) -> _Record:
        now = time.monotonic()
        record = self._records.setdefault((name, version), _Record())
        if now - record.last > FORGIVEN:
            record.kills = record.slow = 0
        record.last = now
        self._records.move_to_end((name, version))
        while len(self._records) > MOST:
            self._records.popitem(last=False)
        return record

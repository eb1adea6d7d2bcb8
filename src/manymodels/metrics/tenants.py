"""Which models have series of their own, and the counts of each.

Ten thousand models with twenty series each would be too many for Prometheus, so only some have their own, a *seat*.
The others share those of the model ``other``. An event is counted in one place for good: what a model did before
it had a seat stays with the others. So no counter ever decreases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .histogram import SECONDS, Histogram

#: The label of all models without a seat.
OTHER = "other"
#: Seconds between looks at who should have a seat; those for which a model keeps one at least, because
#: series that come and go cost Prometheus as much as if there were more; and those in which a past request
#: loses half of its weight.
REVIEW = 60.0
TERM = 600.0
HALF_LIFE = 600.0
#: Times the requests of a seated model that another must have to take its seat.
AHEAD = 2.0
#: Models whose requests are counted to find the most active; beyond, the least active are forgotten.
MOST = 10_000
#: Weight below which a model's requests are forgotten.
FORGOTTEN = 0.5
#: Invocations are counted by the hundreds of their status; there is none where the client has gone away.
GONE = 0
STATUSES = ("gone", "1xx", "2xx", "3xx", "4xx", "5xx")


class Series:
    """What is counted for one model, or for all that have no seat."""

    __slots__ = ("latency", "statuses")

    def __init__(self) -> None:
        self.latency = Histogram(SECONDS)
        self.statuses = [0] * len(STATUSES)

    def add(self, other: Series) -> None:
        """Take over the counts of another."""
        self.latency.add(other.latency)
        self.statuses = [mine + theirs for mine, theirs in zip(self.statuses, other.statuses, strict=True)]


class _Tenant:
    """A model that was asked for lately."""

    __slots__ = ("name", "requests", "seated", "series")

    def __init__(self, name: str, series: Series) -> None:
        self.name = name
        self.series = series
        #: Those of the past weigh less.
        self.requests = 0.0
        #: When it got its seat; None without one.
        self.seated: float | None = None


class Tenants:
    """The models that were asked for lately; the most active of them have seats."""

    def __init__(self, seats: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seats = seats
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._seated: list[_Tenant] = []
        self._reviewed = clock()
        #: The counts of models without a seat, and those of seats that were lost, which are not shown any more.
        self.others = Series()
        self._past = Series()

    def series(self, name: str) -> Series:
        """Return where to count an invocation of a model."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._enter(name)
        tenant.requests += 1.0
        return tenant.series

    def known(self, name: str) -> Series:
        """Return where to count an invocation of what may be no model."""
        tenant = self._tenants.get(name)
        return self.others if tenant is None else tenant.series

    def shown(self) -> Iterator[tuple[str, Series]]:
        """Yield each label and its counts."""
        yield OTHER, self.others
        for tenant in self._seated:
            yield tenant.name, tenant.series

    def total(self) -> Series:
        """Return the counts of all models together."""
        total = Series()
        for series in (self._past, self.others, *(tenant.series for tenant in self._seated)):
            total.add(series)
        return total

    def review(self) -> None:
        """Give seats to models that have become far more active than those who have them; once in a while."""
        now = self._clock()
        if (past := now - self._reviewed) < REVIEW:
            return
        self._reviewed = now
        weight: float = 0.5 ** (past / HALF_LIFE)
        for tenant in self._tenants.values():
            tenant.requests *= weight
        self._forget([tenant for tenant in self._tenants.values() if tenant.requests < FORGOTTEN])
        self._reseat(now)

    def _reseat(self, now: float) -> None:
        """Let the most active models without a seat take those of the least active."""
        by_requests = sorted(self._tenants.values(), key=lambda tenant: tenant.requests)
        standing = [tenant for tenant in by_requests if tenant.seated is None and tenant.name != OTHER]
        leaving = [tenant for tenant in by_requests if tenant.seated is not None and now - tenant.seated >= TERM]
        for tenant, weakest in zip(reversed(standing), leaving, strict=False):
            if tenant.requests <= AHEAD * weakest.requests:
                break
            self._past.add(weakest.series)
            self._seated.remove(weakest)
            weakest.series, weakest.seated = self.others, None
            self._seat(tenant, now)

    def _enter(self, name: str) -> _Tenant:
        if len(self._tenants) >= MOST:
            by_requests = sorted(self._tenants.values(), key=lambda tenant: tenant.requests)
            self._forget(by_requests[: MOST // 2])
        tenant = self._tenants[name] = _Tenant(name, self.others)
        if len(self._seated) < self._seats and name != OTHER:
            self._seat(tenant, self._clock())
        return tenant

    def _seat(self, tenant: _Tenant, now: float) -> None:
        tenant.series, tenant.seated = Series(), now
        self._seated.append(tenant)

    def _forget(self, tenants: list[_Tenant]) -> None:
        for tenant in tenants:
            if tenant.seated is None:
                del self._tenants[tenant.name]

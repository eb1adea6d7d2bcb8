"""What happens, counted; rendered by `exposition` and `cloudwatch`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import (
    BY_NAME,
    BadTargetModel,
    LoadFailed,
    ManyModelsError,
    ModelNotFound,
    ModelNotReady,
    OutOfMemory,
    Overloaded,
    StoreDenied,
    StoreUnavailable,
    WorkerDied,
)
from ..invocation import Answer
from .histogram import SECONDS, SIZES, Histogram
from .state import DiskCacheState
from .tenants import GONE, Tenants

#: Why models are unloaded, and how the log says it.
EVICTIONS = {
    "room": "to make room",
    "idle": "because nobody asked for it",
    "replaced": "its artifact was replaced",
    "gone": "its artifact is gone",
    "request": "on request",
}
#: Why worker processes are started again.
RESTARTS = ("died", "timeout", "leak")

#: Errors that come of names too that no model has: a store that denies access, or is away, does not say that it has it.
_UNPROVEN = (BadTargetModel, ModelNotFound, ModelNotReady, Overloaded, StoreDenied, StoreUnavailable)


@dataclass
class ShadowCounts:
    """What came of asking a shadow."""

    agreed: int = 0
    differed: int = 0
    failed: int = 0
    #: Requests it was not asked, because too many were under way.
    dropped: int = 0
    #: The largest difference of those that agreed, relative to ``max(1, |value|)``.
    largest: float = 0.0
    #: Why it last differed or failed.
    last: str = ""


class Metrics:
    """The counts of one server.

    All times are in seconds. Times that a worker says are not trusted: it runs code from artifacts.
    """

    def __init__(self, models: int, *, split: bool = False) -> None:
        """Count from zero.

        :param models: models that are counted one by one.
        :param split: whether CloudWatch wants to know which part of the time was the model's.
        """
        self.tenants = Tenants(models)
        self.queue = Histogram(SECONDS)
        self.predict = Histogram(SECONDS)
        #: Whether the next two are wanted: the model's share of an invocation's time, its queue included, and the rest.
        self.split = split
        self.model_latency = Histogram(SECONDS)
        self.overhead_latency = Histogram(SECONDS)
        self.batch = Histogram(SIZES)
        self.fetch = Histogram(SECONDS)
        self.load = Histogram(SECONDS)
        self.load_wait = Histogram(SECONDS)
        self.unload = Histogram(SECONDS)
        self.hits = 0
        self.misses = 0
        # Those that can be foreseen are there from the start: a rate cannot be had of the first value of a series.
        self.errors = dict.fromkeys(BY_NAME, 0)
        self.load_failures = {
            name: 0 for name, error in BY_NAME.items() if issubclass(error, LoadFailed | OutOfMemory | WorkerDied)
        }
        #: Models that were loaded although they fail golden requests.
        self.golden_failures = 0
        #: Models served in an older version than that of the store, which cannot be loaded.
        self.outdated = 0
        self.disk_cache = DiskCacheState()
        self.evictions = dict.fromkeys(EVICTIONS, 0)
        self.restarts = dict.fromkeys(RESTARTS, 0)
        #: Asynchronous invocations that wait in their queue, that are in hand, and that are answered.
        self.async_queued = 0
        self.async_running = 0
        self.async_ended = {"done": 0, "failed": 0}
        #: By name and artifact.
        self.shadows: dict[tuple[str, str], ShadowCounts] = {}

    # -- Invocations --

    def answered(self, name: str, answer: Answer, seconds: float) -> None:
        """Take note of an answer."""
        series = self.tenants.series(name)
        status = answer.status
        series.statuses[status // 100 if 200 <= status < 600 else 5] += 1
        series.latency.observe(seconds)
        queue = answer.timings.get("queue", 0.0)
        predict = answer.timings.get("predict", 0.0)
        self.queue.observe(queue)
        if 0.0 <= predict <= seconds:
            self.predict.observe(predict)
            if self.split:
                self.model_latency.observe(queue + predict)
                self.overhead_latency.observe(max(seconds - queue - predict, 0.0))

    def failed(self, name: str, error: type[ManyModelsError], seconds: float) -> None:
        """Take note of an invocation that was answered with an error."""
        # Names of nothing are the client's invention, and would push models out.
        unproven = issubclass(error, _UNPROVEN)
        series = self.tenants.known(name) if unproven else self.tenants.series(name)
        series.statuses[error.status // 100] += 1
        series.latency.observe(seconds)
        _count(self.errors, error)

    def abandoned(self, seconds: float) -> None:
        """Take note of an invocation whose client went away, be it that its model exists or not."""
        self.tenants.others.statuses[GONE] += 1
        self.tenants.others.latency.observe(seconds)

    def batched(self, count: int) -> None:
        """Take note of invocations that are sent to a worker together, for one prediction."""
        self.batch.observe(count)

    # -- Models --

    def loaded(self, seconds: float, fetch: float | None = None) -> None:
        """Take note of a load.

        :param fetch: what finding and unpacking the artifact took, where that was ours to do.
        """
        self.load.observe(seconds)
        if fetch is not None:
            self.fetch.observe(fetch)

    def load_failed(self, error: ManyModelsError) -> None:
        """Take note of a load that failed."""
        _count(self.load_failures, type(error))

    def missed(self, waited: float) -> None:
        """Take note of an invocation that found its model not loaded, and how long it waited for that."""
        self.misses += 1
        self.load_wait.observe(waited)

    def evicted(self, reason: str, seconds: float) -> None:
        """Take note of a model that was unloaded, and how long that took.

        :param reason: a key of `EVICTIONS`.
        """
        self.evictions[reason] += 1
        self.unload.observe(seconds)

    # -- Workers --

    def restarted(self, reason: str) -> None:
        """Take note of a worker that is started again.

        :param reason: one of `RESTARTS`.
        """
        self.restarts[reason] += 1


def _count(counts: dict[str, int], error: type[ManyModelsError]) -> None:
    counts[error.__name__] = counts.get(error.__name__, 0) + 1

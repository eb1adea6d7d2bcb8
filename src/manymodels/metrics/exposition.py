"""The metrics as Prometheus reads them: each is defined once, with its help and where its values come from."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ..invocation import Answer
from .histogram import Histogram
from .record import Metrics
from .state import ServerState
from .tenants import STATUSES

Labels = tuple[str, ...]
Value = float | Histogram
Read = Callable[[Metrics, ServerState], Iterable[tuple[Labels, Value]]]


@dataclass(frozen=True)
class Definition:
    """One metric."""

    #: Without the suffix ``_total``, which counters get.
    family: str
    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    help: str
    read: Read
    labels: Labels = ()

    @property
    def name(self) -> str:
        """The name as PromQL knows it."""
        return self.family + ("_total" if self.kind is CounterMetricFamily else "")


def _one(read: Callable[[Metrics, ServerState], Value]) -> Read:
    return lambda metrics, state: [((), read(metrics, state))]


def _each(read: Callable[[Metrics], Mapping[str, int]]) -> Read:
    return lambda metrics, _: [((name,), value) for name, value in read(metrics).items()]


def _statuses(metrics: Metrics, _: ServerState) -> Iterator[tuple[Labels, Value]]:
    for name, series in metrics.tenants.shown():
        for status, count in zip(STATUSES, series.statuses, strict=True):
            # Most models never have most of them; the usual ones are there from the start, for their rates.
            if count or status in ("2xx", "4xx", "5xx"):
                yield (name, status), count


def _latencies(metrics: Metrics, _: ServerState) -> Iterator[tuple[Labels, Value]]:
    for name, series in metrics.tenants.shown():
        yield (name,), series.latency


def _shadows(metrics: Metrics, _: ServerState) -> Iterator[tuple[Labels, Value]]:
    for (name, model), counts in metrics.shadows.items():
        for result in ("agreed", "differed", "failed", "dropped"):
            yield (name, model, result), getattr(counts, result)


_COUNTER, _GAUGE, _HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
DEFINITIONS = (
    Definition(
        "manymodels_invocations",
        _COUNTER,
        "Invocations by model and status class; gone: the client went away.",
        _statuses,
        ("model", "status"),
    ),
    Definition(
        "manymodels_invocation_seconds",
        _HISTOGRAM,
        "Time from an invocation's arrival to its answer, loading included.",
        _latencies,
        ("model",),
    ),
    Definition(
        "manymodels_errors",
        _COUNTER,
        "Invocations answered with an error, by its class.",
        _each(lambda metrics: metrics.errors),
        ("error",),
    ),
    Definition(
        "manymodels_queue_seconds",
        _HISTOGRAM,
        "Time an invocation waited until a worker began it.",
        _one(lambda metrics, _: metrics.queue),
    ),
    Definition(
        "manymodels_predict_seconds",
        _HISTOGRAM,
        "Time of the prediction that answered an invocation.",
        _one(lambda metrics, _: metrics.predict),
    ),
    Definition(
        "manymodels_batch_size",
        _HISTOGRAM,
        "Invocations of one model that were sent to a worker together.",
        _one(lambda metrics, _: metrics.batch),
    ),
    Definition(
        "manymodels_waiting_invocations",
        _GAUGE,
        "Invocations that wait or run.",
        _one(lambda _, state: state.waiting),
    ),
    Definition(
        "manymodels_cache_hits",
        _COUNTER,
        "Invocations whose model was loaded already.",
        _one(lambda metrics, _: metrics.hits),
    ),
    Definition(
        "manymodels_cache_misses",
        _COUNTER,
        "Invocations that waited for their model to be loaded.",
        _one(lambda metrics, _: metrics.misses),
    ),
    Definition(
        "manymodels_load_wait_seconds",
        _HISTOGRAM,
        "Time an invocation waited for its model to be fetched and loaded.",
        _one(lambda metrics, _: metrics.load_wait),
    ),
    Definition(
        "manymodels_fetch_seconds",
        _HISTOGRAM,
        "Time to find and unpack an artifact.",
        _one(lambda metrics, _: metrics.fetch),
    ),
    Definition(
        "manymodels_load_seconds",
        _HISTOGRAM,
        "Time to load a model, making room for it included; its count is the number of loads.",
        _one(lambda metrics, _: metrics.load),
    ),
    Definition(
        "manymodels_load_failures",
        _COUNTER,
        "Loads that failed, by the class of the error.",
        _each(lambda metrics: metrics.load_failures),
        ("error",),
    ),
    Definition(
        "manymodels_golden_failures",
        _COUNTER,
        "Models loaded although they fail golden requests; those that are refused are load failures.",
        _one(lambda metrics, _: metrics.golden_failures),
    ),
    Definition(
        "manymodels_outdated_models",
        _GAUGE,
        "Models served in an older version than the store's, because that cannot be loaded.",
        _one(lambda metrics, _: metrics.outdated),
    ),
    Definition(
        "manymodels_evictions",
        _COUNTER,
        "Models unloaded: to make room, idle, because the artifact was replaced or is gone, or on request.",
        _each(lambda metrics: metrics.evictions),
        ("reason",),
    ),
    Definition(
        "manymodels_unload_seconds",
        _HISTOGRAM,
        "Time to unload a model, the wait for its running invocations included.",
        _one(lambda metrics, _: metrics.unload),
    ),
    Definition(
        "manymodels_shadows",
        _COUNTER,
        "Requests for a shadow by what came of it; dropped: it was not asked, because too many were under way.",
        _shadows,
        ("name", "model", "result"),
    ),
    Definition(
        "manymodels_resident_models",
        _GAUGE,
        "Models that are loaded.",
        _one(lambda _, state: state.models),
    ),
    Definition(
        "manymodels_resident_bytes",
        _GAUGE,
        "Memory of loaded models, those being loaded included.",
        _one(lambda _, state: state.bytes),
    ),
    Definition(
        "manymodels_memory_budget_bytes",
        _GAUGE,
        "Memory that loaded models may take.",
        _one(lambda _, state: state.budget),
    ),
    Definition(
        "manymodels_disk_cache_hits",
        _COUNTER,
        "Artifacts that were found on the local disk, so that the store was not asked for them.",
        _one(lambda metrics, _: metrics.disk_cache.hits),
    ),
    Definition(
        "manymodels_disk_cache_misses",
        _COUNTER,
        "Artifacts that were fetched or unpacked onto the local disk.",
        _one(lambda metrics, _: metrics.disk_cache.misses),
    ),
    Definition(
        "manymodels_disk_cache_evictions",
        _COUNTER,
        "Artifacts deleted from the local disk to make room there.",
        _one(lambda metrics, _: metrics.disk_cache.evictions),
    ),
    Definition(
        "manymodels_disk_cache_damaged",
        _COUNTER,
        "Artifacts on the local disk that were not what they had been, and were thrown away.",
        _one(lambda metrics, _: metrics.disk_cache.damaged),
    ),
    Definition(
        "manymodels_disk_cache_bytes",
        _GAUGE,
        "Bytes of artifacts on the local disk, those of other servers with the same cache folder included.",
        _one(lambda metrics, _: metrics.disk_cache.bytes),
    ),
    Definition(
        "manymodels_disk_cache_budget_bytes",
        _GAUGE,
        "Bytes that artifacts may take on the local disk.",
        _one(lambda metrics, _: metrics.disk_cache.budget),
    ),
    Definition(
        "manymodels_workers",
        _GAUGE,
        "Worker processes.",
        _one(lambda _, state: state.workers),
    ),
    Definition(
        "manymodels_worker_restarts",
        _COUNTER,
        "Worker processes started again: because they died, were over a time limit, or leaked memory.",
        _each(lambda metrics: metrics.restarts),
        ("reason",),
    ),
    Definition(
        "manymodels_async_queued",
        _GAUGE,
        "Asynchronous invocations that wait in the queue.",
        _one(lambda metrics, _: metrics.async_queued),
    ),
    Definition(
        "manymodels_async_running",
        _GAUGE,
        "Asynchronous invocations whose input is read, that run, or whose answer is written.",
        _one(lambda metrics, _: metrics.async_running),
    ),
    Definition(
        "manymodels_async_invocations",
        _COUNTER,
        "Asynchronous invocations whose answer is in S3: done, the output; failed, what it failed by.",
        _each(lambda metrics: metrics.async_ended),
        ("outcome",),
    ),
)


@functools.cache
def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else repr(bound)


class Snapshot(Collector):
    """All metrics at a moment; taking it is quick, and rendering it can be left to another thread."""

    def __init__(self, metrics: Metrics, state: ServerState) -> None:
        metrics.tenants.review()
        self._families = [_family(definition, metrics, state) for definition in DEFINITIONS]

    def collect(self) -> list[Metric]:
        """Return every metric with its values."""
        return self._families

    def render(self, accept: str) -> Answer:
        """Return the body of ``GET /metrics``.

        :param accept: the Accept header: Prometheus asks for OpenMetrics in it.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return Answer(encode(registry), content_type)


def _family(definition: Definition, metrics: Metrics, state: ServerState) -> Metric:
    family = definition.kind(definition.family, definition.help, labels=definition.labels)
    for labels, value in definition.read(metrics, state):
        # Names of files that are not UTF-8 come with lone surrogates.
        shown = [label.encode(errors="backslashreplace").decode() for label in labels]
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, Histogram)
            buckets = [(_bound(bound), float(count)) for bound, count in value.cumulative()]
            family.add_metric(shown, buckets, value.sum)
        else:
            assert not isinstance(value, Histogram)
            family.add_metric(shown, value)
    return family

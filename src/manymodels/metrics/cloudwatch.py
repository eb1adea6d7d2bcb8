"""What CloudWatch shows of a multi-model endpoint, as lines of its embedded metric format.

The names and units are those that SageMaker gives its own metrics. The format is at
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html;
distributions are written as AWS's exporter for OpenTelemetry does
(https://github.com/open-telemetry/opentelemetry-collector-contrib/pull/22626).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ..sagemaker import VARIANT
from .histogram import Histogram
from .record import Metrics
from .state import ServerState

logger = logging.getLogger(__name__)

#: Seconds between reports: CloudWatch's own resolution.
PERIOD = 60.0
#: Names that begin with ``AWS/`` are AWS's own.
NAMESPACE = "manymodels"
#: Dimensions that SageMaker's metrics have.
DIMENSIONS = ("EndpointName", "VariantName")


class CloudWatch:
    """Reports what happened since the last report."""

    def __init__(self, metrics: Metrics, state: Callable[[], ServerState], endpoint: str) -> None:
        self._metrics = metrics
        self._state = state
        self._endpoint = endpoint
        self._counted: dict[str, int] = {}
        self._observed: dict[str, Histogram] = {}

    async def run(self) -> None:
        """Write a line every minute, and one more when this is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(PERIOD)
                # Whoever reads the output may be slow.
                await loop.run_in_executor(None, _write, self.report())
        finally:
            _write(self.report())

    def report(self) -> bytes:
        """Return one line."""
        values: dict[str, Any] = {}
        units: dict[str, str] = {}
        for name, unit, value in self._values():
            values[name] = value
            units[name] = unit
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [DIMENSIONS],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
        }
        document = {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            **dict(zip(DIMENSIONS, (self._endpoint, VARIANT), strict=True)),
            **values,
        }
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)

    def _values(self) -> Iterator[tuple[str, str, Any]]:
        """Yield name, unit and value of what there is something to say of."""
        metrics = self._metrics
        statuses = metrics.tenants.total().statuses
        invocations = self._new("Invocations", sum(statuses))
        yield "Invocations", "Count", invocations
        failures = {
            "Invocation4XXErrors": statuses[4],
            "Invocation5XXErrors": statuses[5],
            "InvocationModelErrors": sum(statuses) - statuses[2],
        }
        shares = {name: (self._new(name, count), invocations) for name, count in failures.items()}
        hits, misses = self._new("hits", metrics.hits), self._new("misses", metrics.misses)
        for name, (count, most) in {**shares, "ModelCacheHit": (hits, hits + misses)}.items():
            if most:
                # One value for each invocation: the average is the share of those it is true of.
                yield name, "Count" if name in shares else "None", _distribution({0.0: most - count, 1.0: count}, count)
        yield "LoadedModelCount", "Count", self._state().models
        times = {
            "ModelLatency": metrics.model_latency,
            "OverheadLatency": metrics.overhead_latency,
            "ModelLoadingWaitTime": metrics.load_wait,
            "ModelDownloadingTime": metrics.fetch,
            "ModelLoadingTime": metrics.load,
            "ModelUnloadingTime": metrics.unload,
        }
        for name, histogram in times.items():
            new = histogram.since(self._observed.get(name))
            self._observed[name] = histogram.copy()
            if any(new.counts):
                yield name, "Microseconds", _microseconds(new)

    def _new(self, name: str, count: int) -> int:
        new = count - self._counted.get(name, 0)
        self._counted[name] = count
        return new


def _write(line: bytes) -> None:
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
    except OSError as error:
        logger.error("metrics for CloudWatch cannot be written to standard output: %s", error)


def _microseconds(histogram: Histogram) -> dict[str, Any]:
    """Return a distribution in which the middle of each bucket stands for what is in it."""
    edges = (0.0, *histogram.bounds, histogram.bounds[-1])
    middles = ((low + high) / 2 * 1e6 for low, high in itertools.pairwise(edges))
    return _distribution(dict(zip(middles, histogram.counts, strict=True)), histogram.sum * 1e6)


def _distribution(counts: dict[float, int], total: float) -> dict[str, Any]:
    there = {round(value, 1): count for value, count in counts.items() if count}
    return {
        "Values": list(there),
        "Counts": list(there.values()),
        "Min": min(there),
        "Max": max(there),
        "Count": sum(there.values()),
        "Sum": round(total, 1),
    }

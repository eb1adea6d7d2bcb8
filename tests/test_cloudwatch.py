"""Metrics for CloudWatch: SageMaker's names, one line of the embedded metric format at a time."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from serving import FLOWER, constant, serve

from manymodels.errors import BadInput, PredictionFailed
from manymodels.invocation import Answer
from manymodels.metrics import Metrics, ServerState
from manymodels.metrics.cloudwatch import CloudWatch

#: Those of https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html that say something here.
UNITS = {
    "Invocations": "Count",
    "Invocation4XXErrors": "Count",
    "Invocation5XXErrors": "Count",
    "InvocationModelErrors": "Count",
    "ModelLatency": "Microseconds",
    "OverheadLatency": "Microseconds",
    "ModelLoadingWaitTime": "Microseconds",
    "ModelDownloadingTime": "Microseconds",
    "ModelLoadingTime": "Microseconds",
    "ModelUnloadingTime": "Microseconds",
    "ModelCacheHit": "None",
    "LoadedModelCount": "Count",
}


def state() -> ServerState:
    return ServerState(models=7, bytes=1, budget=2, waiting=0, workers=1)


def check(line: str | bytes) -> dict[str, Any]:
    """Hold a line to the embedded metric format's specification and JSON schema; return what it says.

    By https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html,
    but for distributions: the text there knows numbers and arrays of them alone, AWS's exporter for OpenTelemetry
    and its CloudWatch agent write what is checked here.
    """
    assert len(line) < 256 << 10
    assert len(line.splitlines()) == 1, "a log event is a line"
    document: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    assert document["_aws"].keys() == {"Timestamp", "CloudWatchMetrics"}
    assert type(document["_aws"]["Timestamp"]) is int
    assert abs(document["_aws"]["Timestamp"] / 1000 - time.time()) < 3600, "milliseconds since 1970"
    [directive] = document["_aws"]["CloudWatchMetrics"]
    assert directive.keys() == {"Namespace", "Dimensions", "Metrics"}
    assert 1 <= len(directive["Namespace"]) <= 1024
    assert not directive["Namespace"].startswith("AWS/")
    assert directive["Dimensions"]
    for names in directive["Dimensions"]:
        assert len(names) <= 30
        for name in names:
            assert 1 <= len(name) <= 250
            assert type(document[name]) is str
            assert document[name]
    assert 1 <= len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        assert metric.keys() == {"Name", "Unit"}
        assert 1 <= len(metric["Name"]) <= 1024
        assert metric["Unit"] == UNITS[metric["Name"]]
        _check_value(document[metric["Name"]])
    assert document.keys() == {"_aws", *directive["Dimensions"][0], *metrics_in(document)}
    return document


def _check_value(value: Any) -> None:
    if not isinstance(value, dict):
        assert type(value) in (int, float)
        return
    assert value.keys() == {"Values", "Counts", "Min", "Max", "Count", "Sum"}
    assert 1 <= len(value["Values"]) == len(value["Counts"]) <= 100
    assert len(set(value["Values"])) == len(value["Values"])
    numbers = [*value["Values"], value["Min"], value["Max"], value["Sum"]]
    assert all(type(number) in (int, float) for number in numbers)
    assert all(type(count) is int for count in value["Counts"])
    assert all(count > 0 for count in value["Counts"])
    assert value["Count"] == sum(value["Counts"])
    assert (value["Min"], value["Max"]) == (min(value["Values"]), max(value["Values"]))


def metrics_in(document: dict[str, Any]) -> set[str]:
    """Return the names of the metrics in a line."""
    return {metric["Name"] for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]}


def test_a_report() -> None:
    metrics = Metrics(10, split=True)
    answer = Answer(b"", "text/plain", 200, {}, {"queue": 0.001, "predict": 0.002})
    for _ in range(3):
        metrics.answered("a", answer, 0.004)
    metrics.failed("a", BadInput, 0.001)
    metrics.failed("b", PredictionFailed, 0.001)
    metrics.hits += 4
    metrics.missed(0.5)
    metrics.loaded(0.3, 0.2)
    metrics.evicted("room", 0.1)
    document = check(CloudWatch(metrics, state, "shop").report())
    assert metrics_in(document) == UNITS.keys()
    assert (document["EndpointName"], document["VariantName"]) == ("shop", "AllTraffic")
    assert document["Invocations"] == 5
    assert document["LoadedModelCount"] == 7
    assert document["Invocation4XXErrors"]["Sum"] == document["Invocation5XXErrors"]["Sum"] == 1
    assert document["InvocationModelErrors"] == {
        "Values": [0.0, 1.0],
        "Counts": [3, 2],
        "Min": 0.0,
        "Max": 1.0,
        "Count": 5,
        "Sum": 2,
    }
    assert document["ModelCacheHit"]["Sum"] / document["ModelCacheHit"]["Count"] == 0.8
    latency = document["ModelLatency"]
    assert (latency["Count"], latency["Sum"]) == (3, 9000.0)
    # The middle of the bucket from 2.5 to 5 ms stands for 3 ms.
    assert latency["Values"] == [3750.0]
    assert document["OverheadLatency"]["Sum"] == 3000.0
    assert document["ModelDownloadingTime"]["Sum"] == 200_000.0
    assert document["ModelLoadingTime"]["Sum"] == 300_000.0
    assert document["ModelLoadingWaitTime"]["Sum"] == 500_000.0
    assert document["ModelUnloadingTime"]["Sum"] == 100_000.0


def test_a_report_is_of_what_is_new() -> None:
    metrics = Metrics(10, split=True)
    cloudwatch = CloudWatch(metrics, state, "shop")
    metrics.loaded(0.3)
    assert metrics_in(check(cloudwatch.report())) == {"Invocations", "LoadedModelCount", "ModelLoadingTime"}
    metrics.loaded(0.4)
    metrics.hits += 1
    document = check(cloudwatch.report())
    assert metrics_in(document) == {"Invocations", "LoadedModelCount", "ModelLoadingTime", "ModelCacheHit"}
    assert document["ModelLoadingTime"]["Sum"] == pytest.approx(400_000.0)
    assert metrics_in(check(cloudwatch.report())) == {"Invocations", "LoadedModelCount"}


def test_a_value_longer_than_the_longest_bucket() -> None:
    metrics = Metrics(10)
    metrics.loaded(300.0)
    loading = check(CloudWatch(metrics, state, "shop").report())["ModelLoadingTime"]
    assert (loading["Values"], loading["Sum"]) == ([60e6], 300e6)


def test_a_report_of_many_and_of_extreme_values() -> None:
    metrics = Metrics(10, split=True)
    for exponent in range(-120, 60):
        seconds = 1.2**exponent
        metrics.answered("a", Answer(b"", "text/plain", 200, {}, {"queue": seconds, "predict": seconds}), 2 * seconds)
        metrics.missed(seconds)
        metrics.loaded(seconds, seconds)
        metrics.evicted("room", seconds)
    for _ in range(100_000):
        metrics.failed("b", PredictionFailed, 0.0)
    document = check(CloudWatch(metrics, state, "sh\u00f6p \n").report())
    assert document["Invocations"] == 100_180
    assert document["ModelLoadingTime"]["Count"] == 180


def test_a_server_reports_when_it_stops(tmp_path: Path) -> None:
    constant(tmp_path / "store" / "five.joblib", 5.0)
    with serve(tmp_path, tmp_path / "store", "--workers", "1", "--cloudwatch", "shop") as server:
        assert server.predict("five.joblib", [FLOWER]) == [5.0]
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        assert server.process.stdout is not None
        [line] = [line for line in server.process.stdout if line.startswith("{")]
    document = check(line)
    assert metrics_in(document) >= {
        "Invocations",
        "ModelLatency",
        "OverheadLatency",
        "ModelCacheHit",
        "ModelLoadingTime",
    }
    assert document["Invocations"] == 1
    assert document["ModelCacheHit"]["Sum"] == 0
    assert document["LoadedModelCount"] == 1


def test_a_server_is_silent_otherwise(tmp_path: Path) -> None:
    constant(tmp_path / "store" / "five.joblib", 5.0)
    with serve(tmp_path, tmp_path / "store", "--workers", "1") as server:
        assert server.predict("five.joblib", [FLOWER]) == [5.0]
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        assert server.process.stdout is not None
        assert not [line for line in server.process.stdout if line.startswith("{")]

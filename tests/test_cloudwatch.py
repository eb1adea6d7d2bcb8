"""Metrics for CloudWatch: SageMaker's names, one line of the embedded metric format at a time."""

from __future__ import annotations

import json
import signal
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


def check(document: dict[str, Any]) -> set[str]:
    """Hold a line to the format's specification; return the metrics in it."""
    meta = document["_aws"]
    assert isinstance(meta["Timestamp"], int)
    [directive] = meta["CloudWatchMetrics"]
    assert not directive["Namespace"].startswith("AWS/")
    for dimension in directive["Dimensions"][0]:
        assert isinstance(document[dimension], str)
    for metric in directive["Metrics"]:
        assert metric["Unit"] == UNITS[metric["Name"]]
        value = document[metric["Name"]]
        if isinstance(value, dict):
            assert len(value["Values"]) == len(value["Counts"]) <= 100
            assert value["Count"] == sum(value["Counts"])
            assert (value["Min"], value["Max"]) == (min(value["Values"]), max(value["Values"]))
        else:
            assert isinstance(value, int)
    names = {metric["Name"] for metric in directive["Metrics"]}
    assert document.keys() == {"_aws", "EndpointName", "VariantName"} | names
    return names


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
    document = json.loads(CloudWatch(metrics, state, "shop").report())
    assert check(document) == UNITS.keys()
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
    assert check(json.loads(cloudwatch.report())) == {"Invocations", "LoadedModelCount", "ModelLoadingTime"}
    metrics.loaded(0.4)
    metrics.hits += 1
    document = json.loads(cloudwatch.report())
    assert check(document) == {"Invocations", "LoadedModelCount", "ModelLoadingTime", "ModelCacheHit"}
    assert document["ModelLoadingTime"]["Sum"] == pytest.approx(400_000.0)
    assert check(json.loads(cloudwatch.report())) == {"Invocations", "LoadedModelCount"}


def test_a_value_longer_than_the_longest_bucket() -> None:
    metrics = Metrics(10)
    metrics.loaded(300.0)
    loading = json.loads(CloudWatch(metrics, state, "shop").report())["ModelLoadingTime"]
    assert (loading["Values"], loading["Sum"]) == ([60e6], 300e6)


def test_a_server_reports_when_it_stops(tmp_path: Path) -> None:
    constant(tmp_path / "store" / "five.joblib", 5.0)
    with serve(tmp_path, tmp_path / "store", "--workers", "1", "--cloudwatch", "shop") as server:
        assert server.predict("five.joblib", [FLOWER]) == [5.0]
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        assert server.process.stdout is not None
        [line] = [line for line in server.process.stdout if line.startswith("{")]
    document = json.loads(line)
    assert check(document) >= {"Invocations", "ModelLatency", "OverheadLatency", "ModelCacheHit", "ModelLoadingTime"}
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

"""The counts behind `GET /metrics`: who is counted one by one, that no counter decreases, how it is written."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from manymodels.errors import (
    BadInput,
    BadTargetModel,
    BodyTooLarge,
    ManyModelsError,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    StoreDenied,
    StoreUnavailable,
)
from manymodels.invocation import Answer
from manymodels.metrics import Metrics, ServerState
from manymodels.metrics.exposition import DEFINITIONS, Snapshot
from manymodels.metrics.histogram import Histogram
from manymodels.metrics.tenants import HALF_LIFE, MOST, OTHER, REVIEW, TERM, Tenants

STATE = ServerState(models=3, bytes=1000, budget=5000, waiting=2, workers=4)
INVOCATIONS = "manymodels_invocations_total"
Key = tuple[str, tuple[tuple[str, str], ...]]


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(status: int = 200, **timings: float) -> Answer:
    return Answer(b"", "text/plain", status, {}, timings)


def samples(metrics: Metrics, state: ServerState = STATE) -> dict[Key, float]:
    """Return what Prometheus reads."""
    text = Snapshot(metrics, state).render("").body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(found: dict[Key, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


# -- Histograms --


def test_a_bucket_holds_its_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(number)
    assert list(histogram.cumulative()) == [(1.0, 2), (2.0, 4), (math.inf, 5)]
    assert histogram.sum == 7.5


# -- Who is counted one by one --


def names(tenants: Tenants) -> set[str]:
    return {name for name, _ in tenants.shown()}


def ask(tenants: Tenants, name: str, times: int = 1) -> None:
    for _ in range(times):
        tenants.series(name).statuses[2] += 1


def test_the_first_models_have_seats_and_the_rest_are_together() -> None:
    tenants = Tenants(2, Clock())
    for name in ("a", "b", "c", "d"):
        ask(tenants, name)
    assert {name: series.statuses[2] for name, series in tenants.shown()} == {"a": 1, "b": 1, OTHER: 2}


def test_a_model_named_like_the_rest_is_among_them() -> None:
    tenants = Tenants(2, Clock())
    ask(tenants, OTHER)
    assert [name for name, _ in tenants.shown()] == [OTHER]


def test_no_seats() -> None:
    tenants = Tenants(0, Clock())
    ask(tenants, "a")
    assert {name: series.statuses[2] for name, series in tenants.shown()} == {OTHER: 1}


def test_a_seat_is_lost_to_a_model_far_more_active() -> None:
    clock = Clock()
    tenants = Tenants(2, clock)
    ask(tenants, "busy", 100)
    ask(tenants, "quiet", 10)
    ask(tenants, "new", 30)
    clock.now += REVIEW
    tenants.review()
    assert names(tenants) == {"busy", "quiet", OTHER}, "a seat is kept for a while"
    clock.now += TERM
    tenants.review()
    assert names(tenants) == {"busy", "new", OTHER}
    ask(tenants, "new")
    ask(tenants, "quiet")
    # What came before is counted where it was.
    assert {name: series.statuses[2] for name, series in tenants.shown()} == {"busy": 100, "new": 1, OTHER: 31}
    assert tenants.total().statuses[2] == 142


def test_a_seat_is_not_lost_to_one_about_as_active() -> None:
    clock = Clock()
    tenants = Tenants(1, clock)
    ask(tenants, "first", 10)
    ask(tenants, "second", 15)
    clock.now += TERM + REVIEW
    tenants.review()
    assert names(tenants) == {"first", OTHER}


def test_what_is_long_ago_does_not_count() -> None:
    clock = Clock()
    tenants = Tenants(1, clock)
    ask(tenants, "once", 1000)
    clock.now += 12 * HALF_LIFE
    tenants.review()
    ask(tenants, "now", 5)
    clock.now += REVIEW
    tenants.review()
    assert names(tenants) == {"now", OTHER}


def test_a_million_names_take_the_room_of_some_and_do_not_hide_the_active() -> None:
    clock = Clock()
    tenants = Tenants(1, clock)
    ask(tenants, "first")
    ask(tenants, "active", 50)
    for number in range(3 * MOST):
        ask(tenants, f"model-{number}")
    assert len(tenants._tenants) <= MOST
    clock.now += TERM
    tenants.review()
    assert names(tenants) == {"active", OTHER}


def test_no_series_decreases_while_it_is_shown_and_nothing_is_lost() -> None:
    dice = random.Random(7)
    clock = Clock()
    metrics = Metrics(5)
    metrics.tenants = tenants = Tenants(5, clock)
    before: dict[Key, float] = {}
    asked: Counter[int] = Counter()
    changes = 0
    for step in range(300):
        favourites = [f"model-{(step // 20 * 3 + number) % 40}" for number in range(8)]
        for _ in range(40):
            status = dice.choice((200, 200, 404, 500))
            asked[status // 100] += 1
            metrics.answered(dice.choice(favourites), answer(status), dice.random())
        clock.now += dice.choice((15.0, 60.0, 300.0))
        # The process's own may, such as its open files.
        now = {key: value for key, value in samples(metrics).items() if not key[0].startswith("process_")}
        for key in before.keys() & now.keys():
            assert now[key] >= before[key], key
        changes += len({key for key in now if key[0] == INVOCATIONS} ^ {key for key in before if key[0] == INVOCATIONS})
        before = now
    assert changes > 20, "seats changed hands"
    total = tenants.total()
    assert {index: count for index, count in enumerate(total.statuses) if count} == asked
    assert sum(total.latency.counts) == 300 * 40


# -- What is counted --


def test_answers_and_errors() -> None:
    metrics = Metrics(10)
    metrics.answered("a", answer(200, queue=0.01, predict=0.02), 0.05)
    metrics.answered("a", answer(503), 0.05)
    metrics.failed("a", BadInput, 0.002)
    metrics.abandoned(3.0)
    found = samples(metrics)
    assert value(found, INVOCATIONS, model="a", status="2xx") == 1
    assert value(found, INVOCATIONS, model="a", status="4xx") == 1
    assert value(found, INVOCATIONS, model="a", status="5xx") == 1
    assert value(found, INVOCATIONS, model=OTHER, status="gone") == 1
    assert value(found, "manymodels_errors_total", error="BadInput") == 1
    assert value(found, "manymodels_errors_total", error="WorkerDied") == 0
    assert value(found, "manymodels_invocation_seconds_bucket", model="a", le="0.0025") == 1
    assert value(found, "manymodels_invocation_seconds_count", model="a") == 3
    assert value(found, "manymodels_invocation_seconds_sum", model="a") == pytest.approx(0.102)
    assert value(found, "manymodels_queue_seconds_sum") == 0.01
    assert value(found, "manymodels_predict_seconds_sum") == 0.02


@pytest.mark.parametrize(
    "error", [ModelNotFound, BadTargetModel, Overloaded, ModelNotReady, StoreDenied, StoreUnavailable]
)
def test_names_of_nothing_get_no_seat(error: type[ManyModelsError]) -> None:
    metrics = Metrics(10)
    metrics.answered("known", answer(), 0.001)
    for name in ("invented", "known"):
        metrics.failed(name, error, 0.001)
    found = samples(metrics)
    for name in ("known", OTHER):
        assert value(found, INVOCATIONS, model=name, status=f"{error.status // 100}xx") == 1
    assert {name for name, _ in metrics.tenants.shown()} == {"known", OTHER}


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 1e9])
def test_times_that_a_worker_invents_are_left_out(seconds: float) -> None:
    metrics = Metrics(10)
    metrics.answered("a", answer(predict=seconds), 0.05)
    assert value(samples(metrics), "manymodels_predict_seconds_count") == 0


@pytest.mark.parametrize("status", [-5, 0, 600, 10**9])
def test_statuses_that_a_worker_invents(status: int) -> None:
    metrics = Metrics(10)
    metrics.answered("a", answer(status), 0.05)
    assert value(samples(metrics), INVOCATIONS, model="a", status="5xx") == 1


def test_errors_that_are_not_foreseen() -> None:
    metrics = Metrics(10)
    metrics.load_failed(BodyTooLarge("large"))
    assert value(samples(metrics), "manymodels_load_failures_total", error="BodyTooLarge") == 1


# -- How it is written --

HOSTILE = ['quo"te', "back\\slash", "new\nline", 'a"} 1\nforged{x="', "ünïcode/模型.tar.gz", " ", "{}", "caf\udce9"]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0", "text/plain; version=1.0.0"])
def test_hostile_names_are_read_back(accept: str) -> None:
    metrics = Metrics(50)
    for name in HOSTILE:
        metrics.answered(name, answer(), 0.001)
    parse = parse_openmetrics if "openmetrics" in accept else parse_text
    families = list(parse(Snapshot(metrics, STATE).render(accept).body.decode()))
    assert {family.name for family in families} >= {definition.family for definition in DEFINITIONS}
    read = {sample.labels["model"] for family in families for sample in family.samples if "model" in sample.labels}
    assert read == {OTHER, *(name.encode(errors="backslashreplace").decode() for name in HOSTILE)}


def test_prometheus_gets_the_form_it_asks_for() -> None:
    metrics = Metrics(10)
    assert Snapshot(metrics, STATE).render("*/*").content_type.startswith("text/plain")
    newer = Snapshot(metrics, STATE).render(
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    )
    assert newer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert newer.body.endswith(b"# EOF\n")


def test_names_are_as_prometheus_wants_them() -> None:
    for definition in DEFINITIONS:
        assert definition.family.startswith("manymodels_")
        assert not definition.family.endswith("_total")
        assert not definition.family.endswith(("_ms", "_milliseconds", "_count", "_sum", "_bucket"))
        assert definition.help.endswith(".")


def test_the_process_is_among_them() -> None:
    found = samples(Metrics(10))
    assert value(found, "process_resident_memory_bytes") > 0

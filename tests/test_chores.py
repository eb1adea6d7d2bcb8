"""Chores: what a worker does while nobody waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from serving import until

from manymodels.server.busy import LOOK, Busy
from manymodels.server.chores import CALM, LONG_REST, PATIENCE, QUIET, REST, Chores


class Clock:
    """A clock that stands still unless a chore takes time."""

    now = 100.0
    #: Whether the server is busy.
    busy = False

    def __call__(self) -> float:
        return self.now


class Work:
    """Makes chores and keeps what they did."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.done: list[str] = []

    def chore(self, name: str, steps: int = 2, seconds: float = 0.25) -> Iterator[None]:
        for step in range(steps):
            self._clock.now += seconds
            self.done.append(f"{name}{step}")
            yield
        self.done.append(f"{name} end")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chores(clock: Clock) -> Chores:
    return Chores(lambda: clock.busy, clock)


@pytest.fixture
def work(clock: Clock) -> Work:
    return Work(clock)


def run(chores: Chores) -> None:
    while chores.wait() == 0:
        chores.step()


def test_chores_are_done_one_after_the_other(chores: Chores, work: Work) -> None:
    assert chores.wait() is None
    chores.add("a", lambda: work.chore("a"))
    chores.add("b", lambda: work.chore("b", 1))
    assert chores.wait() == 0
    assert work.done == []
    run(chores)
    assert work.done == ["a0", "a1", "a end", "b0", "b end"]
    assert chores.wait() is None


def test_a_chore_waits_for_its_time_or_is_hastened(chores: Chores, work: Work, clock: Clock) -> None:
    chores.add("slow", lambda: work.chore("slow", 0), delay=2)
    chores.add("late", lambda: work.chore("late", 0), delay=3)
    chores.add("late", lambda: work.chore("twice", 0), delay=0)
    chores.add_unhurried("calm", lambda: work.chore("calm", 0))
    chores.worked()
    assert chores.wait() == CALM
    chores.hasten("calm")
    chores.hasten("unknown")
    clock.now += PATIENCE
    run(chores)
    assert work.done == ["calm end"]
    assert chores.wait() == pytest.approx(2 - PATIENCE)
    clock.now += 2
    run(chores)
    clock.now += 1
    run(chores)
    assert work.done == ["calm end", "slow end", "late end"]
    assert chores.wait() is None


def test_an_unhurried_chore_waits_until_nothing_was_asked_for_some_time(
    chores: Chores, work: Work, clock: Clock
) -> None:
    chores.worked()
    chores.add_unhurried("calm", lambda: work.chore("calm", 0))
    clock.now += CALM / 2
    assert chores.wait() == CALM / 2
    chores.worked()
    assert chores.wait() == CALM
    chores.add("other", lambda: work.chore("other", 0), delay=CALM / 4)
    assert chores.wait() == CALM / 4
    clock.now += CALM
    run(chores)
    assert work.done == ["other end", "calm end"]


def test_of_several_unhurried_chores_each_waits(chores: Chores, work: Work, clock: Clock) -> None:
    for name in ("a", "b"):
        chores.add_unhurried(name, lambda name=name: work.chore(name, 1))  # type: ignore[misc]
    clock.now += CALM
    assert chores.wait() == 0
    chores.step()
    assert chores.wait() == 0, "nobody asked meanwhile"
    chores.worked()
    assert chores.wait() == CALM
    chores.add("c", lambda: work.chore("c", 0))
    clock.now += PATIENCE
    run(chores)
    assert work.done == ["a0", "c end"], "others are done while it rests"
    clock.now += 0.25 * LONG_REST
    chores.worked()
    clock.now += QUIET
    assert chores.wait() == 0, "what has begun goes on"
    chores.step()
    assert chores.wait() == pytest.approx(CALM - QUIET), "the next waits until it is calm"
    chores.hasten("b")
    run(chores)
    assert work.done == ["a0", "c end", "a end", "b0", "b end"]
    assert chores.wait() is None


def test_an_unhurried_chore_that_has_begun_can_be_hastened(chores: Chores, work: Work, clock: Clock) -> None:
    chores.add_unhurried("a", lambda: work.chore("a", 3))
    clock.now += CALM
    chores.step()
    chores.worked()
    assert chores.wait() == CALM
    chores.hasten("a")
    clock.now += PATIENCE
    assert chores.wait() == 0
    chores.step()
    chores.worked()
    assert chores.wait() == 0.25 * REST
    assert work.done == ["a0", "a1"]


def test_an_unhurried_chore_rests_while_the_server_is_busy(chores: Chores, work: Work, clock: Clock) -> None:
    step = 2**-8  # exact in sums
    chores.add_unhurried("a", lambda: work.chore("a", 3, step))
    clock.now += CALM
    run(chores)
    assert work.done == ["a0", "a1", "a2", "a end"]
    clock.busy = True
    for name in "bc":
        chores.add_unhurried(name, lambda name=name: work.chore(name, 3, step))  # type: ignore[misc]
    clock.now += CALM
    run(chores)
    assert work.done[4:] == ["b0"]
    assert chores.wait() == step * LONG_REST
    clock.now += step * LONG_REST
    run(chores)
    assert work.done[4:] == ["b0", "b1"]
    chores.add("other", lambda: work.chore("other", 0))
    chores.hasten("c")
    run(chores)
    assert work.done[4:] == ["b0", "b1", "c0", "c1", "c2", "c end", "other end"], "others need not rest"
    clock.busy = False
    run(chores)
    assert work.done[-2:] == ["b2", "b end"]


def test_a_chore_that_was_hastened_is_so_for_a_while(chores: Chores, work: Work, clock: Clock) -> None:
    step = 2**-8  # exact in sums
    for name in ("begun", "once", "twice"):
        chores.add_unhurried(name, lambda name=name: work.chore(name, 2, step))  # type: ignore[misc]
        chores.hasten(name)
    clock.busy = True
    chores.step()
    clock.now += CALM
    chores.worked()
    clock.now += PATIENCE
    chores.hasten("twice")
    run(chores)
    assert work.done == ["begun0", "begun1", "begun end", "twice0", "twice1", "twice end"]
    clock.now += CALM
    run(chores)
    assert work.done[6:] == ["once0"]
    assert chores.wait() == step * LONG_REST
    clock.busy = False
    run(chores)
    assert work.done[6:] == ["once0", "once1", "once end"]
    assert chores.wait() is None


def test_after_a_long_step_it_is_looked_again_whether_the_server_is_busy(
    chores: Chores, work: Work, clock: Clock
) -> None:
    chores.add_unhurried("a", lambda: work.chore("a", 1, seconds=CALM))
    clock.now += CALM
    clock.busy = True
    run(chores)
    assert chores.wait() == CALM
    clock.busy = False
    assert chores.wait() == 0
    chores.worked()
    assert chores.wait() == CALM
    clock.now += CALM
    assert chores.wait() == 0, "one job does not have it rest for a minute"


def test_a_process_is_busy_while_it_has_a_processor() -> None:
    command = [sys.executable, "-c", "input('ready')\nwhile True: pass"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.read(1)
            busy = Busy(process.pid)
            time.sleep(2 * LOOK)
            assert not busy()
            process.stdin.write(b"\n")
            process.stdin.flush()
            until(busy, "it is busy")
        finally:
            process.kill()
    until(lambda: not busy(), "it has ended")
    assert not Busy(0)()


def test_a_chore_of_one_step_can_be_asked_for_again_as_soon_as_it_is_done(chores: Chores) -> None:
    done: list[int] = []

    def look() -> Iterator[None]:
        done.append(len(done))
        return iter(())

    for count in (1, 2):
        chores.add("look", look)
        assert chores.wait() == 0
        chores.step()
        assert len(done) == count
    assert chores.wait() is None


def test_chores_can_be_dropped_at_any_time(chores: Chores, work: Work) -> None:
    chores.add("a", lambda: work.chore("a"))
    chores.add("b", lambda: work.chore("b"), delay=5)
    chores.add_unhurried("c", lambda: work.chore("c"))
    assert chores.wait() == 0
    chores.step()
    for name in "abc":
        chores.drop(name)
    chores.drop("unknown")
    assert chores.wait() is None
    assert work.done == ["a0"]


def test_under_load_chores_rest_and_still_get_their_turn(chores: Chores, work: Work, clock: Clock) -> None:
    chores.add("a", lambda: work.chore("a", 3))
    chores.worked()
    assert chores.wait() == pytest.approx(QUIET), "who asked may ask again at once"
    clock.now += PATIENCE
    chores.worked()
    assert chores.wait() == 0, "it was put off for long enough"
    chores.step()
    assert chores.wait() == 0, "nobody asked meanwhile"
    chores.worked()
    assert chores.wait() == 0.25 * REST
    clock.now += 0.5
    chores.worked()
    assert chores.wait() == 0.25 * REST - 0.5
    clock.now += 0.25
    chores.worked()
    assert chores.wait() == 0
    chores.step()
    assert work.done == ["a0", "a1"]


def test_a_chore_that_has_begun_is_not_put_off_again(chores: Chores, work: Work, clock: Clock) -> None:
    chores.add("a", lambda: work.chore("a", 2, seconds=0.0))
    chores.add("b", lambda: work.chore("b", 1, seconds=0.0))
    chores.worked()
    assert chores.wait() == pytest.approx(QUIET)
    clock.now += PATIENCE
    for _ in range(3):
        chores.worked()
        assert chores.wait() == 0
        chores.step()
    assert work.done == ["a0", "a1", "a end"]
    chores.worked()
    assert chores.wait() == pytest.approx(QUIET), "the next one is"


def test_a_chore_that_fails_is_logged_and_the_others_go_on(
    chores: Chores, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    chores.add("bad", lambda: work.chore("bad", seconds=1 / 0))
    chores.add("a", lambda: work.chore("a", 0))
    run(chores)
    assert work.done == ["a end"]
    assert "ZeroDivisionError" in caplog.text

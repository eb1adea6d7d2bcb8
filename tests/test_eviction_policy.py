"""Which model leaves first."""

from __future__ import annotations

import itertools
import random

import pytest

from manymodels.endpoint.eviction import POLICIES, Candidate, HitDensity, LeastRecentlyUsed, Policy, choose


def names(policy: Policy, number: int | None = None) -> list[str]:
    return [model.name for model in itertools.islice(policy.victims(), number)]


def fill(policy: Policy, *names: str, size: int = 10, cost: float = 1.0) -> dict[str, Candidate]:
    models = {name: Candidate(name, size, cost) for name in names}
    for model in models.values():
        policy.add(model)
    return models


@pytest.fixture(params=list(POLICIES))
def policy(request: pytest.FixtureRequest) -> Policy:
    return POLICIES[request.param]()


def test_all_models_are_victims_once(policy: Policy) -> None:
    models = fill(policy, *map(str, range(200)))
    assert sorted(names(policy)) == sorted(models)
    assert sorted(names(policy)) == sorted(models)  # looking changes nothing


def test_who_left_is_no_victim_and_may_come_again(policy: Policy) -> None:
    models = fill(policy, "a", "b")
    policy.remove(models["a"])
    assert names(policy) == ["b"]
    fill(policy, "a")
    assert sorted(names(policy)) == ["a", "b"]


def test_models_in_use_are_no_victims(policy: Policy) -> None:
    models = fill(policy, "a", "b", "c")
    models["a"].in_use = models["c"].in_use = 1
    assert names(policy) == ["b"]
    models["b"].in_use = 1
    assert names(policy) == []
    for model in models.values():
        model.in_use = 0
    assert sorted(names(policy)) == ["a", "b", "c"]


def test_of_equal_models_the_one_not_used_for_longest_leaves(policy: Policy) -> None:
    models = fill(policy, "a", "b", "c")
    for name in ("b", "a", "c"):
        policy.use(models[name])
    assert names(policy) == ["b", "a", "c"]


def test_nothing_is_evicted_where_nothing_is_loaded(policy: Policy) -> None:
    assert choose(policy, 1) == []


def test_as_many_leave_as_are_needed(policy: Policy) -> None:
    fill(policy, *"abcdef", size=10)
    assert len(choose(policy, 25)) == 3
    assert len(choose(policy, 10)) == 1
    assert len(choose(policy, 1000)) == 6


def test_who_need_not_leave_is_spared() -> None:
    policy = LeastRecentlyUsed()
    for name, size in (("small", 10), ("smaller", 5), ("large", 100), ("newest", 10)):
        policy.add(Candidate(name, size, 1.0))
    assert [model.name for model in choose(policy, 100)] == ["large"]
    assert [model.name for model in choose(policy, 105)] == ["small", "large"]


def test_least_recently_used_knows_neither_size_nor_cost() -> None:
    policy = LeastRecentlyUsed()
    policy.add(Candidate("dear", 1, 100.0))
    policy.add(Candidate("large", 1 << 30, 0.1))
    assert names(policy) == ["dear", "large"]


def test_what_is_large_or_soon_loaded_leaves_first() -> None:
    policy = HitDensity()
    policy.add(Candidate("dear", 1000, 1.0))
    policy.add(Candidate("cheap", 1000, 0.01))
    policy.add(Candidate("large", 1_000_000, 1.0))
    assert names(policy) == ["large", "cheap", "dear"]


def test_what_is_used_often_outlives_what_was_used_last() -> None:
    policy = HitDensity()
    often = fill(policy, "often")["often"]
    for number in range(3000):
        policy.use(often)
        [once] = fill(policy, f"once-{number}").values()
        if number >= 50:
            [victim] = choose(policy, 10)
            assert victim is not often
            policy.remove(victim)
    assert once in set(policy.victims())


def test_what_was_used_often_long_ago_does_not_stay_for_ever() -> None:
    policy = HitDensity()
    models = fill(policy, *map(str, range(20)))
    for _ in range(300):
        for number in range(10):
            policy.use(models[str(number)])
    for _ in range(3000):
        for number in range(10, 20):
            policy.use(models[str(number)])
    assert {int(name) for name in names(policy, 10)} == set(range(10))


def test_the_past_is_remembered() -> None:
    policy = HitDensity()
    models = fill(policy, *map(str, range(10)))
    for _ in range(1000):
        policy.use(models["3"])
    policy.remove(models["3"])
    fill(policy, "3", "new")
    assert names(policy)[-1] == "3"


def test_what_is_remembered_is_bounded() -> None:
    policy = HitDensity()
    for number in range(5000):
        [model] = fill(policy, str(number)).values()
        policy.remove(model)
    assert len(policy._past) == 1000


def test_densities_are_learned_for_any_ages() -> None:
    policy = HitDensity()
    rng = random.Random(1)
    models = list(fill(policy, *map(str, range(100))).values())
    for _ in range(20_000):
        policy.use(models[min(int(rng.expovariate(0.1)), 99)])
    next(policy.victims())  # who asks which is to leave has it learned
    worth = {model.name: policy._worth(model) for model in models}
    assert all(value > 0 for value in worth.values())
    assert sum(worth[str(n)] for n in range(10)) > 3 * sum(worth[str(n)] for n in range(40, 50))


def test_densities_are_computed_while_models_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = HitDensity()
    [model] = fill(policy, "one").values()
    computed: list[int] = []
    learn = policy._learn

    def noted() -> None:
        computed.append(policy._uses)
        learn()

    monkeypatch.setattr(policy, "_learn", noted)
    for _ in range(3000):
        policy.use(model)
    assert not computed
    for _ in range(2):
        assert next(policy.victims()) is model
    assert len(computed) == 1
    for _ in range(1000):
        next(policy.victims())
        policy.use(model)
    assert len(computed) == 3


def test_counts_begin_small_anew_without_another_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the life of a server a use comes to count more than a float can hold."""

    def left() -> list[str]:
        drawn = random.Random(0)
        policy = HitDensity()
        models = fill(policy, *map(str, range(50)))
        gone = []
        for _ in range(200):
            for _ in range(100):
                policy.use(models[str(min(int(drawn.expovariate(0.1)), 49))])
            [name] = names(policy, 1)
            gone.append(name)
            policy.remove(models[name])
            models |= fill(policy, name)
        return gone

    expected = left()
    assert len(set(expected)) > 5
    monkeypatch.setattr("manymodels.endpoint.eviction.MOST", 2.0)
    assert left() == expected

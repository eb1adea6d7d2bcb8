"""The file of names above artifacts: what is taken, what is refused and why, and who is chosen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from manymodels.endpoint.rules import LIMIT, Rule, parse, read
from manymodels.errors import SettingsError

USER = "x-amzn-sagemaker-custom-attributes"
VERSIONS = "{name}/{version}.tar.gz"


def rules(names: dict[str, Any], **rest: Any) -> dict[str, Rule]:
    return {rule.name: rule for rule in parse(json.dumps({"names": names, **rest}).encode(), "names.json")}


def shares(rule: Rule) -> Counter[str]:
    """Return how many of 4,000 clients each artifact gets."""
    return Counter(rule.choose({USER: f"user={number}"}) for number in range(4000))


def test_an_alias_and_versions() -> None:
    content = {"versions": VERSIONS, "names": {"churn@prod": "churn@3", "a@7": "a@7", "b": "team/b.joblib"}}
    read_ = parse(json.dumps(content).encode(), "names.json")
    assert {rule.name: rule.serve for rule in read_} == {
        "churn@prod": {"churn/3.tar.gz": 1.0},
        "a@7": {"a@7": 1.0},  # it is an artifact of that name
        "b": {"team/b.joblib": 1.0},
    }
    assert read_.version("churn@3") == "churn/3.tar.gz"
    assert read_.version("a@b@1.2.0") == "a@b/1.2.0.tar.gz"
    assert read_.version("{version}@1") == "{version}/1.tar.gz"
    for name in ("churn", "churn@prod", "churn@3.tar.gz", "churn@", "@3", "ann@example.com", "churn@٣"):
        assert read_.version(name) is None
    assert parse(b"{}", "names.json").version("churn@3") is None


def test_weights_are_kept_to() -> None:
    rule = rules({"churn": {"serve": {"a": 90, "b": 10, "c": 0}, "sticky": "X-Amzn-SageMaker-Custom-Attributes"}})[
        "churn"
    ]
    assert rule.main == "a"
    found = shares(rule)
    assert set(found) == {"a", "b"}
    assert found["b"] == pytest.approx(400, abs=80)  # four standard deviations
    drawn = Counter(rule.choose({}) for _ in range(4000))
    assert set(drawn) == {"a", "b"}
    assert drawn["b"] == pytest.approx(400, abs=110)  # nearly six


def test_a_session_stays_with_the_main_artifact() -> None:
    rule = rules({"churn": {"serve": {"a": 49, "b": 51}, "sticky": USER}})["churn"]
    assert {rule.choose({"x-amzn-sagemaker-session-id": "s", USER: str(number)}) for number in range(99)} == {"b"}


def test_a_client_stays_and_moves_only_to_what_gains() -> None:
    before, after = (
        rules({"churn": {"serve": serve, "sticky": USER}})["churn"] for serve in ({"a": 95, "b": 5}, {"b": 20, "a": 80})
    )
    clients = [{USER: f"user={number}"} for number in range(2000)]
    moves = {(before.choose(client), after.choose(client)) for client in clients}
    assert moves == {("a", "a"), ("a", "b"), ("b", "b")}
    assert len({before.choose({USER: "user=7"}) for _ in range(50)}) == 1


def test_another_name_draws_anew() -> None:
    one, other = (rules({name: {"serve": {"a": 1, "b": 1}, "sticky": USER}})[name] for name in ("one", "other"))
    clients = [{USER: f"user={number}"} for number in range(200)]
    assert any(one.choose(client) != other.choose(client) for client in clients)


def test_a_shadow() -> None:
    rule = rules({"churn": {"serve": "a", "shadow": {"model": "churn@4", "share": 0.5}}}, versions=VERSIONS)["churn"]
    assert rule.shadow is not None
    assert (rule.shadow.model, rule.shadow.share, rule.shadow.tolerance) == ("churn/4.tar.gz", 0.5, 1e-9)
    assert rule.artifacts == ["a", "churn/4.tar.gz"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": 1}, "'a': Expected `object`, got `int`"),
        ({"a": {}}, "'a': Object missing required field `serve`"),
        ({"a": {"serve": "b", "stikcy": USER}}, "'a': Object contains unknown field `stikcy`"),
        ({"a": {"serve": {}}}, "'a': it serves nothing; give an artifact a weight above 0"),
        ({"a": {"serve": {"b": 0}}}, "'a': it serves nothing"),
        ({"a": {"serve": {"b": -1}}}, "'a': Expected `float` >= 0.0 - at `$.serve[...]`"),
        ({"a": {"serve": {"b": "5"}}}, "'a': Expected `float`, got `str`"),
        ({"a": {"serve": {"b": 10**400}}}, "'a': "),
        ({"a": {"serve": {"b@3": 1, "b/3.tar.gz": 1}}}, "'a': two of what it serves are the same artifact"),
        ({"a": "../b"}, "'a': TargetModel '../b' has a '.' or '..' segment"),
        ({"../a": "b"}, "'../a': TargetModel '../a' has a '.' or '..' segment"),
        ({"a": "\ud800"}, "is not valid UTF-8"),
        ({"a": ""}, "is empty"),
        ({"a": "b", "b": "c"}, "'a': 'b' is a name of this file itself; say which artifact"),
        ({"a": {"serve": "b", "sticky": "Cookie"}}, "'a': sticky is 'Cookie'; name a header that starts with"),
        ({"a": {"serve": "b", "sticky": "X-Amzn-SageMaker-Target-Model"}}, "'a': sticky is"),
        ({"a": {"serve": "b", "sticky": "X-Amzn-SageMaker-Session-Id"}}, "'a': sticky is"),
        ({"a": {"serve": "b", "shadow": "c"}}, "'a': Expected `object | null`, got `str` - at `$.shadow`"),
        ({"a": {"serve": "b", "shadow": {"model": "b"}}}, "'a': its shadow 'b' is what it serves"),
        ({"a": {"serve": {"b": 1, "c": 0}, "shadow": {"model": "b"}}}, "'a': its shadow 'b' is what it serves"),
        (
            {"a": {"serve": "b", "shadow": {"model": "c", "share": 2}}},
            "'a': Expected `float` <= 1.0 - at `$.shadow.share`",
        ),
    ],
)
def test_a_wrong_rule_is_named(names: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rules(names, versions=VERSIONS)
    assert str(caught.value).startswith("names 'names.json' is not valid: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b'{"names": {"a": "b",}}', "line 1 column 2"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"name": {}}', "Object contains unknown field `name`"),
        (b'{"names": {"a": "b", "a": "c"}}', "'a' is there twice; leave one out"),
        (b'{"names": {"a": {"serve": {"b": NaN}}}}', "NaN is no number of JSON"),
        (b'{"versions": "{name}.tar.gz"}', "versions is '{name}.tar.gz'; say once each where {name} and {version}"),
        (b'{"versions": "{name}/{version}/{other}"}', "versions is"),
        (b"\xff\xfe\xfa", "is not valid: 'utf"),
        (b"[" * 100_000, "is not valid: "),
        (b" " * (LIMIT + 1), f"has more than {LIMIT} bytes"),
    ],
)
def test_a_wrong_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(content, "names.json")
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.json' cannot be read: No such file or directory$"):
        read(tmp_path / "none.json")

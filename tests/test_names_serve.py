"""Names above artifacts on running servers, on each backend and with several fronts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from serving import BACKENDS, FLOWER, Server, constant, script, serve, until, waits

from manymodels.cli import cli

pytestmark = pytest.mark.backends(*BACKENDS)

RESOLVED = "x-manymodels-target-model"
USER = "X-Amzn-SageMaker-Custom-Attributes"
NAMES: dict[str, Any] = {
    "versions": "{name}/{version}.joblib",
    "names": {
        "churn@prod": "churn@3",
        "churn": {"serve": {"churn@3": 1, "churn@4": 1}, "sticky": USER},
        "shadowed": {"serve": "churn@3", "shadow": {"model": "churn@4", "tolerance": 0.5}},
        "held-up": {"serve": "churn@3", "shadow": {"model": "slow"}},
        "plain.joblib": {"serve": {"plain.joblib": 1, "churn@3": 0}},
        "absent@prod": "absent@1",
    },
}


class Named:
    """A server with a file of names."""

    def __init__(self, server: Server, file: Path, gate: Path) -> None:
        self.server = server
        self.file = file
        #: What the shadow of one name waits for.
        self.gate = gate

    def write(self, content: dict[str, Any] | str) -> None:
        """Replace the file at once, as a ConfigMap is."""
        new = self.file.with_suffix(".new")
        new.write_text(content if isinstance(content, str) else json.dumps(content))
        new.replace(self.file)

    def fault(self) -> str:
        """Return why the file is not in force."""
        return str(self.server.client.get("/names").json().get("fault", ""))

    def faulty(self, why: str) -> bool:
        """Say whether the server has that against the file."""
        return why in self.fault()

    def show(self) -> Result:
        """Run `manymodels names show`."""
        return CliRunner().invoke(cli, ["names", "show", "--url", self.server.url])

    def counted(self) -> float:
        """Return how many invocations found their model loaded, or did not."""
        families = text_string_to_metric_families(self.server.client.get("/metrics").text)
        of = ("manymodels_cache_hits_total", "manymodels_cache_misses_total")
        return sum(sample.value for family in families for sample in family.samples if sample.name in of)

    def shadow(self, name: str) -> dict[str, Any]:
        """Return what is known of a name's shadow."""
        names = {rule["name"]: rule for rule in self.server.client.get("/names").json()["names"]}
        found: dict[str, Any] = names[name]["shadow"]
        return found


@pytest.fixture(scope="module")
def named(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    root = tmp_path_factory.mktemp("named")
    store = root / "store"
    for name, value in (("churn/3", 3.0), ("churn/4", 4.0), ("plain", 7.0), ("ann@5", 5.0), ("churn@9", 9.0)):
        constant(store / f"{name}.joblib", value)
    gate = root / "gate"
    script(store, "slow", waits(gate))
    file = root / "names.json"
    file.write_text(json.dumps(NAMES))
    flags = ("--workers", "2", "--names", file, *(("--fronts", "2") if backend == "workers" else ()))
    with serve(root, store, *flags, backend=backend) as server:
        yield Named(server, file, gate)


@pytest.mark.parametrize(
    ("name", "value", "resolved"),
    [
        ("churn@prod", 3.0, "churn/3.joblib"),
        ("churn@4", 4.0, "churn/4.joblib"),
        ("plain.joblib", 7.0, "plain.joblib"),
        ("churn/3.joblib", 3.0, None),
        ("ann@5.joblib", 5.0, None),
        ("churn@9.joblib", 9.0, None),
    ],
)
def test_what_answers(named: Named, name: str, value: float, resolved: str | None) -> None:
    reply = named.server.invoke(name, [FLOWER])
    assert (reply.status_code, reply.json()) == (200, [value])
    assert reply.headers.get(RESOLVED) == resolved


def test_an_error_says_what_was_asked(named: Named) -> None:
    reply = named.server.invoke("absent@prod", [FLOWER])
    assert reply.status_code == 404
    assert reply.headers[RESOLVED] == "absent/1.joblib"
    assert "'absent/1.joblib'" in reply.json()["message"]
    assert named.server.invoke("../x@3", [FLOWER]).status_code == 400
    assert named.server.invoke("churn@prod", b"{").headers[RESOLVED] == "churn/3.joblib"


def test_the_log_says_what_is_named_and_not_there(named: Named) -> None:
    until(lambda: "'absent@prod': there is no artifact 'absent/1.joblib'" in named.server.log(), "it is looked up")
    assert named.fault() == ""


def test_a_client_stays_on_its_side(named: Named) -> None:
    sides = {}
    for user in map(str, range(20)):
        replies = [named.server.invoke("churn", [FLOWER], **{USER: user}) for _ in range(3)]
        assert {reply.status_code for reply in replies} == {200}
        answers = {(reply.json()[0], reply.headers[RESOLVED]) for reply in replies}
        assert len(answers) == 1
        sides[user] = answers.pop()
    assert set(sides.values()) == {(3.0, "churn/3.joblib"), (4.0, "churn/4.joblib")}


def test_a_shadow_is_compared_and_not_served(named: Named) -> None:
    counted = named.counted()
    for _ in range(3):
        assert named.server.predict("shadowed") == [3.0]
    until(lambda: named.shadow("shadowed")["agreed"] == 3, "the shadow's answers are compared")
    assert named.counted() - counted == 3  # the shadow's are nobody's
    seen = named.shadow("shadowed")
    assert (seen["model"], seen["differed"], seen["failed"], seen["dropped"]) == ("churn/4.joblib", 0, 0, 0)
    assert seen["largestDifference"] == pytest.approx(1 / 3)
    lines = [line.split() for line in named.show().output.splitlines()]
    assert ["shadowed", "churn/3.joblib", "churn/4.joblib", "3", "0", "0", "0"] in lines
    described = named.server.client.get("/models/churn/4.joblib").json()
    assert described["modelName"] == "churn/4.joblib"
    assert {name["name"] for name in described["names"]} == {"churn", "shadowed"}


def test_a_shadow_that_hangs_holds_up_nobody(named: Named) -> None:
    for _ in range(12):
        assert named.server.predict("held-up") == [3.0]
    assert named.shadow("held-up")["dropped"] == 4  # eight are asked at a time
    named.gate.touch()
    until(lambda: named.shadow("held-up")["differed"] == 8, "the shadow answers")
    assert named.shadow("held-up")["last"] == "int instead of float"


def test_a_description_by_any_name(named: Named) -> None:
    assert named.server.predict("churn@prod") == [3.0]
    assert named.server.client.get("/models/churn@prod").json()["modelName"] == "churn/3.joblib"
    assert named.server.client.get("/openapi/churn@4").json()["info"]["title"] == "churn@4"
    assert "<td>churn/4.joblib</td>" in named.server.client.get("/docs/churn@4").text


def test_a_model_is_refreshed_by_any_name_and_unloaded_by_its_own(named: Named) -> None:
    assert named.server.predict("churn@prod") == [3.0]
    replaced = named.server.client.post("/models/churn@prod/refresh").json()
    assert replaced["modelName"] == "churn/3.joblib"
    assert named.server.client.delete("/models/churn@prod").status_code == 404
    assert "churn/3.joblib" in named.server.loaded()


def test_the_file_is_read_anew_and_a_broken_one_is_not(named: Named) -> None:
    assert named.server.predict("churn@prod") == [3.0]
    named.write({**NAMES, "names": {**NAMES["names"], "churn@prod": "churn@4"}})
    until(lambda: named.server.predict("churn@prod") == [4.0], "the alias leads elsewhere")
    agreed = named.shadow("shadowed")["agreed"]
    for broken, why in (
        ("{", "is not valid: Expecting property name"),
        ({"names": {"churn@prod": "churn/77.joblib"}}, "'churn@prod': there is no artifact 'churn/77.joblib'"),
    ):
        named.write(broken)
        until(partial(named.faulty, why), "the server says what is wrong")
        assert named.server.predict("churn@prod") == [4.0]
        assert why in named.server.log()
        shown = named.show()
        assert shown.exit_code == 1
        assert why in " ".join(shown.stderr.split())
    assert named.shadow("shadowed")["agreed"] == agreed  # its rule is what it was
    named.file.unlink()
    until(lambda: "No such file" in named.fault(), "the server says that it is gone")
    named.write(NAMES)
    until(lambda: named.server.predict("churn@prod") == [3.0], "the old rules are in force again")
    assert named.fault() == ""
    assert named.show().exit_code == 0

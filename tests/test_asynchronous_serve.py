"""Asynchronous invocations of names above artifacts, beside a thousand of another model, and to a full queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3
from asked_later import BODY, Place, serving
from serving import FLOWER, constant, runtime_client, script, until

from manymodels.asynchronous.runner import IN_HAND

USER = "X-Amzn-SageMaker-Custom-Attributes"
NAMES: dict[str, Any] = {
    "versions": "{name}/{version}.joblib",
    "names": {
        "churn-prod": "größe-Å/4.joblib",
        "churn": {"serve": {"churn@3": 1, "churn@4": 1}, "sticky": USER},
        "shadowed": {"serve": "churn@3", "shadow": {"model": "churn@4", "tolerance": 0.5}},
        "absent": "churn@9",
    },
}
MANY = 1000
#: Writes down whom it answers, once a file is there.
WRITES_DOWN = """
import time
from pathlib import Path

def model_fn(model_dir):
    return Path({folder!r})

def predict_fn(data, model):
    while not (model / "gate").exists():
        time.sleep(0.01)
    with (model / "order").open("a") as file:
        file.write({name!r} + chr(10))
    return [1]
"""


@dataclass
class Gated(Place):
    """A server whose models, two of them, write down in which order they answer, once they may."""

    folder: Path

    def order(self) -> list[str]:
        """Return whom the models answered."""
        file = self.folder / "order"
        return file.read_text().split() if file.exists() else []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("asynchronous")
    for name, value in (("churn/3", 3.0), ("churn/4", 4.0), ("größe-Å/4", 5.0)):
        constant(folder / "store" / f"{name}.joblib", value)
    for name in ("many", "few"):
        script(folder / "store", name, WRITES_DOWN.format(folder=str(folder), name=name))
    (folder / "names.json").write_text(json.dumps(NAMES))
    options = ("--names", folder / "names.json", "--async-queue-size", str(MANY + 1))
    with s3.running() as bucket, serving(folder, bucket.env, *options) as server:
        client = runtime_client(server.url)
        yield Gated(bucket, server, client, folder)
        client.close()


def answered(place: Place, name: str, **members: Any) -> tuple[list[float], str | None]:
    """Return an answer, and which artifact gave it if that is said."""
    answer = place.get(place.ask(name, **members)["OutputLocation"])
    return json.loads(answer["Body"].read()), answer["Metadata"].get("manymodels-target-model")


# -- Names above artifacts --


def test_a_name_is_answered_by_its_artifact(place: Gated) -> None:
    assert answered(place, "churn-prod") == ([5.0], "gr%C3%B6%C3%9Fe-%C3%85/4.joblib")
    target = {"X-Amzn-SageMaker-Target-Model": "churn@3", "X-Amzn-SageMaker-Content-Type": "application/json"}
    reply = place.server.client.post("/endpoints/any/async-invocations", content=BODY, headers=target)
    answer = place.get(reply.headers["X-Amzn-SageMaker-OutputLocation"])
    assert (answer["Body"].read(), answer["Metadata"]["manymodels-target-model"]) == (b"[3.0]", "churn/3.joblib")


def test_a_client_stays_on_its_side_whether_it_waits_or_not(place: Gated) -> None:
    sides = {}
    for user in map(str, range(12)):
        waited = place.server.invoke("churn", [FLOWER], **{USER: user})
        artifact = waited.headers["x-manymodels-target-model"]
        for _ in range(2):
            assert answered(place, "churn", CustomAttributes=user) == (waited.json(), artifact)
        sides[user] = artifact
    assert set(sides.values()) == {"churn/3.joblib", "churn/4.joblib"}


def test_a_shadow_is_asked_too(place: Gated) -> None:
    assert answered(place, "shadowed") == ([3.0], "churn/3.joblib")

    def counts() -> Any:
        names = {rule["name"]: rule for rule in place.server.client.get("/names").json()["names"]}
        return names["shadowed"]["shadow"]

    until(lambda: counts()["agreed"] == 1, "the shadow agrees")


def test_a_failure_says_what_was_asked(place: Gated) -> None:
    reply = place.ask("absent")
    assert "no artifact 'churn/9.joblib'" in place.failure(reply)["Message"]
    assert place.get(reply["FailureLocation"])["Metadata"]["manymodels-target-model"] == "churn/9.joblib"


# -- A thousand of one model --


def test_a_thousand_of_one_model_hold_up_no_other_and_a_full_queue_says_so(place: Gated) -> None:
    first = place.ask("many", Body=b"0")
    for number in range(1, MANY):
        reply = place.server.client.post("/endpoints/many/async-invocations", content=b"%d" % number)
        assert reply.status_code == 202
    few = place.ask("few", Body=b"0")
    assert place.server.predict("churn/3.joblib") == [3.0]  # who waits is not held up

    with pytest.raises(place.client.exceptions.ServiceUnavailable) as caught:
        place.ask("few", Body=b"0")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    message = caught.value.response["Error"]["Message"]
    assert message == (
        f"{MANY + 1} asynchronous invocations are waiting already; try again later, or raise --async-queue-size"
    )

    assert place.order() == []
    (place.folder / "gate").touch()
    place.get(few["OutputLocation"])
    place.get(first["OutputLocation"])
    # Those that are in hand when it comes are before it, and of the rest one.
    assert place.order().index("few") <= IN_HAND + 1

"""Several endpoints in one server: each EndpointName stands for the models of its own stores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving import BACKENDS, FLOWER, Server, as_json, constant, runtime_client, serve

from manymodels.cli.endpoints import open_endpoints
from manymodels.endpoint import Routes, Variant
from manymodels.errors import EndpointNotFound, ModelNotFound, SettingsError
from manymodels.store import DiskCache, LocalStore, Mounts

BODY = as_json([FLOWER])


@pytest.fixture(scope="module")
def mapped(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of three endpoints with a model of the same name in each store."""
    root = tmp_path_factory.mktemp("stores")
    for value, store in enumerate(("churn", "old", "new", "none")):
        constant(root / store / "model.joblib", float(value))
    constant(root / "churn" / "team" / "x" / "model.joblib", 7.0)
    endpoints = {
        "churn": {"AllTraffic": {"store": "churn"}},
        "fraud": {"old": {"store": "old", "weight": 3}, "new": {"store": str(root / "new")}, "none": NONE},
    }
    (root / "endpoints.json").write_text(json.dumps(endpoints))
    (root / "names.json").write_text(json.dumps(NAMES))
    files = ("--endpoints", root / "endpoints.json", "--names", root / "names.json")
    with serve(tmp_path_factory.mktemp("server"), *files, "--workers", "2", backend=backend) as server:
        yield server


NONE = {"store": "none", "weight": 0}
NAMES = {
    "versions": "{name}/v{version}",
    "names": {"fraud/old/prod": "fraud/old/model.joblib", "churn/AllTraffic/prod": "churn/AllTraffic/team/x"},
}


@pytest.fixture(scope="module")
def runtime(mapped: Server) -> Iterator[Any]:
    client = runtime_client(mapped.url)
    yield client
    client.close()


def ask(runtime: Any, endpoint: str, target_model: str = "model.joblib", **members: str) -> tuple[float, str]:
    """Return the prediction, and the variant that made it."""
    reply = runtime.invoke_endpoint(EndpointName=endpoint, TargetModel=target_model, Body=BODY, **members)
    with reply["Body"] as stream:
        [value] = json.loads(stream.read())
    return value, reply["InvokedProductionVariant"]


@pytest.mark.backends(*BACKENDS)
def test_models_of_one_name_are_told_apart(runtime: Any) -> None:
    assert ask(runtime, "churn") == (0.0, "AllTraffic")
    assert ask(runtime, "churn", "team/x") == (7.0, "AllTraffic")
    assert ask(runtime, "fraud", TargetVariant="new") == (2.0, "new")
    assert ask(runtime, "fraud", TargetVariant="none") == (3.0, "none")


def test_a_name_is_of_one_variant(mapped: Server, runtime: Any) -> None:
    assert ask(runtime, "churn", "prod") == (7.0, "AllTraffic")
    assert ask(runtime, "fraud", "prod", TargetVariant="old") == (1.0, "old")
    reply = mapped.invoke("fraud/old/prod", [FLOWER])
    assert (reply.json(), reply.headers["x-manymodels-target-model"]) == ([1.0], "fraud/old/model.joblib")
    for members, said in (({"TargetVariant": "new"}, "artifact 'prod'"), ({"TargetModel": "prod@2"}, "'prod/v2'")):
        with pytest.raises(runtime.exceptions.ValidationError, match=said):
            runtime.invoke_endpoint(**{"EndpointName": "fraud", "TargetModel": "prod", "Body": BODY, **members})


def test_variants_are_chosen_by_their_weights(runtime: Any) -> None:
    counts = Counter(ask(runtime, "fraud") for _ in range(80))
    assert counts.keys() == {(1.0, "old"), (2.0, "new")}
    assert counts[1.0, "old"] > counts[2.0, "new"]  # 60 and 20 are expected; the odds against are 1 in 10**7


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"EndpointName": "other"}, "Endpoint other of account 000000000000 not found."),
        ({"EndpointName": "churn/AllTraffic"}, "not found"),
        ({"EndpointName": "fraud", "TargetVariant": "AllTraffic"}, "it has old, new, none"),
        ({"EndpointName": "churn", "TargetModel": "x.tar.gz"}, "no artifact 'x.tar.gz'"),
        ({"EndpointName": "churn", "TargetModel": "../old/model.joblib"}, "'..'"),
    ],
)
def test_what_there_is_not_is_a_validation_error(runtime: Any, members: dict[str, str], said: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(**{"TargetModel": "model.joblib", "Body": BODY, **members})
    assert said in caught.value.response["Error"]["Message"]


def test_an_endpoint_needs_the_target_model(runtime: Any) -> None:
    with pytest.raises(ClientError, match="TargetModel header") as caught:
        runtime.invoke_endpoint(EndpointName="churn", Body=BODY)
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_other_apis_have_the_whole_names(mapped: Server) -> None:
    names = mapped.client.get("/artifacts").json()["artifacts"]
    assert names == [
        "churn/AllTraffic/model.joblib",
        "churn/AllTraffic/team/x",
        "fraud/new/model.joblib",
        "fraud/none/model.joblib",
        "fraud/old/model.joblib",
    ]
    page = mapped.client.get("/artifacts", params={"limit": 1}).json()
    follow = {"limit": 2, "next_page_token": page["nextPageToken"]}
    assert mapped.client.get("/artifacts", params=follow).json()["artifacts"] == names[1:3]
    assert mapped.predict("fraud/new/model.joblib") == [2.0]
    assert "fraud/new/model.joblib" in mapped.loaded()
    assert mapped.invoke("fraud/model.joblib", [FLOWER]).status_code == 404
    assert mapped.invoke("model.joblib", [FLOWER]).status_code == 404


# -- The file --


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("{}", "maps no endpoint"),
        ('{"a_b": {"v": {"store": "x"}}}', "regex"),
        ('{"a/b": {"v": {"store": "x"}}}', "regex"),
        ('{"a": {"v w": {"store": "x"}}}', "regex"),
        ('{"a": {"v": {"store": "missing"}}}', "is not a folder"),
        ('{"a": {"v": {"store": "ftp://x/y"}}}', "is of no kind"),
        ('{"a": {"v": {"store": ".", "weight": -1}}}', ">= 0"),
        ('{"a": {"v": {"store": ".", "share": 1}}}', "share"),
        ('{"a": {"v": {"store": ".", "weight": 0}}}', "no variant with a weight above 0"),
        ('{"a": {}}', "no variant"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(text)

    def open_store(where: str | Path) -> LocalStore:
        if isinstance(where, str):
            raise SettingsError(f"the model store {where!r} is of no kind that is known")
        return LocalStore(where, DiskCache(tmp_path / "cache"), lambda _: True)

    with pytest.raises(SettingsError, match=said):
        open_endpoints(path, DiskCache(tmp_path / "cache"), open_store)


# -- Mounts --


def test_a_store_that_was_taken_out_is_not_found_any_more(tmp_path: Path) -> None:
    constant(tmp_path / "store" / "model.joblib", 1.0)
    cache = DiskCache(tmp_path / "cache")
    store = LocalStore(tmp_path / "store", cache, lambda path: path.suffix == ".joblib")
    mounts = Mounts(cache)
    mounts.mount("a/b", store)
    found = mounts.find("a/b/model.joblib")
    assert (mounts.open(found) / "model.joblib").is_file()
    mounts.unmount("a/b")
    mounts.forget(found)
    for name in ("a/b/model.joblib", "a/b", "a", "model.joblib", "/model.joblib"):
        with pytest.raises(ModelNotFound):
            mounts.find(name)
    assert list(mounts.list()) == []


def test_an_endpoint_without_weights_takes_named_variants_only(tmp_path: Path) -> None:
    routes = Routes()
    routes.add("e", [Variant(name=name, weight=0, mount=f"e/{name}") for name in ("a", "b")])
    assert routes.find("e", "m", "b") == ("e/b/m", "b")
    with pytest.raises(EndpointNotFound, match="weight 0"):
        routes.find("e", "m", None)
    routes.remove("e")
    with pytest.raises(EndpointNotFound, match="not found"):
        routes.find("e", "m", "b")

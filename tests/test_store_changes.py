"""Artifacts that come, change and go while the server runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from serving import FLOWER, Server, archive, constant, script, serve, until, waits

VERSION = "x-manymodels-artifact-version"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changing-store")


@pytest.fixture(scope="module")
def alert(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that looks at the store for every request, and at its start found that only one framework is needed."""
    constant(root / "first.joblib", 1.0)
    with serve(tmp_path_factory.mktemp("alert"), root, "--workers", "2", "--store-refresh", "0") as server:
        yield server


def described(server: Server, name: str) -> dict[str, Any]:
    reply = server.client.get(f"/models/{name}")
    assert reply.status_code == 200, reply.text
    content: dict[str, Any] = reply.json()
    return content


def put(root: Path, kind: str, name: str, value: float) -> str:
    """Put an artifact of some kind into the store, whole and at once; return its TargetModel."""
    if kind == "file":
        return constant(root / f"{name}.joblib", value).name
    made = constant(root.parent / "made" / name / "model.joblib", value)
    if kind == "archive":
        partial = archive(root / f".{name}.tar.gz", {"model.joblib": made.read_bytes()})
        return partial.replace(root / f"{name}.tar.gz").name
    if (root / name).exists():
        made.replace(root / name / "model.joblib")
        return name
    return made.parent.replace(root / name).name


@pytest.mark.parametrize("kind", ["file", "folder", "archive"])
def test_an_artifact_comes_changes_and_goes(alert: Server, root: Path, kind: str) -> None:
    name = put(root, kind, f"a-{kind}", 1.0)
    assert alert.predict(name) == [1.0]
    assert name in alert.client.get("/artifacts").json()["artifacts"]
    put(root, kind, f"a-{kind}", 2.0)
    assert alert.predict(name) == [2.0]
    assert name in alert.loaded()
    if kind == "folder":
        shutil.rmtree(root / name)
    else:
        (root / name).unlink()
    reply = alert.invoke(name, [FLOWER])
    assert reply.status_code == 404
    assert name in reply.json()["message"]
    assert name not in alert.loaded()
    assert name not in alert.client.get("/artifacts").json()["artifacts"]
    put(root, kind, f"a-{kind}", 3.0)
    assert alert.predict(name) == [3.0]


def test_an_artifact_in_a_new_folder_is_served_at_once(alert: Server, root: Path) -> None:
    (root / "team").mkdir()
    assert alert.invoke("team/model.tar.gz", [FLOWER]).status_code == 404
    put(root / "team", "archive", "model", 4.0)
    assert alert.predict("team/model.tar.gz") == [4.0]


def test_a_change_is_seen_once_the_store_is_asked_again(root: Path, tmp_path: Path) -> None:
    with serve(tmp_path, root, "--workers", "1", "--store-refresh", "0.5") as server:
        name = put(root, "archive", "slowly", 1.0)
        assert server.predict(name) == [1.0]
        put(root, "archive", "slowly", 2.0)
        assert server.predict(name) in ([1.0], [2.0])
        until(lambda: server.predict(name) == [2.0], "the new version is served")
        (root / name).unlink()
        until(lambda: server.invoke(name, [FLOWER]).status_code == 404, "it is gone")


def test_a_good_artifact_replaces_a_broken_one_at_once(alert: Server, root: Path) -> None:
    (root / "mended.tar.gz").write_bytes(b"nonsense")
    for _ in range(3):
        assert alert.invoke("mended.tar.gz", [FLOWER]).status_code == 424
    put(root, "archive", "mended", 5.0)
    assert alert.predict("mended.tar.gz") == [5.0]


def test_a_broken_artifact_does_not_replace_a_good_one(alert: Server, root: Path) -> None:
    name = put(root, "archive", "spoilt", 6.0)
    assert alert.predict(name) == [6.0]
    old = described(alert, name)
    assert "newer" not in old
    (root / name).write_bytes(b"nonsense")
    for _ in range(3):
        reply = alert.invoke(name, [FLOWER])
        assert (reply.json(), reply.headers[VERSION]) == ([6.0], old["version"])
    new = described(alert, name)
    assert new["version"] == old["version"] != new["newer"]["version"]
    assert "not a gzip archive" in new["newer"]["error"]
    assert "manymodels_outdated_models 1.0" in alert.client.get("/metrics").text
    reply = alert.client.post(f"/models/{name}/refresh")
    assert (reply.status_code, reply.json()["message"]) == (400, new["newer"]["error"])
    put(root, "archive", "spoilt", 7.0)
    assert alert.predict(name) == [7.0]
    assert "newer" not in described(alert, name)
    assert "manymodels_outdated_models 0.0" in alert.client.get("/metrics").text


def test_one_that_fails_its_golden_requests_does_not_replace_a_good_one(alert: Server, root: Path) -> None:
    name = put(root, "archive", "gilded", 6.0)
    assert alert.predict(name) == [6.0]
    model = constant(root.parent / "made" / "model.joblib", 7.0).read_bytes()
    golden = b'{"body": [[1, 2, 3, 4]], "answer": [8.0]}\n'
    archive(root / ".gilded", {"model.joblib": model, "golden.jsonl": golden}).replace(root / name)
    assert alert.predict(name) == [6.0]
    assert "golden" in described(alert, name)["newer"]["error"]


def test_a_failed_load_is_remembered_for_a_while(alert: Server, root: Path, tmp_path: Path) -> None:
    """The script counts its loads, and fails until a file is there."""
    counter, mended = tmp_path / "loads", tmp_path / "mended"
    source = f"""
import os
def model_fn(model_dir):
    open({str(counter)!r}, "a").write("x")
    if not os.path.exists({str(mended)!r}):
        raise RuntimeError("the database is away")
    return "model"
def predict_fn(data, model):
    return [9]
"""
    archive(root / "moody.tar.gz", {"code/inference.py": source.encode()})
    replies = [alert.invoke("moody.tar.gz", [FLOWER]) for _ in range(30)]
    assert {reply.status_code for reply in replies} == {424}
    assert all("the database is away" in reply.json()["message"] for reply in replies)
    loads = len(counter.read_text())
    assert loads < 10
    until(lambda: alert.invoke("moody.tar.gz", [FLOWER]) and len(counter.read_text()) > loads, "it is tried again")
    mended.touch()
    until(lambda: alert.invoke("moody.tar.gz", [FLOWER]).status_code == 200, "it is tried once more")
    assert alert.predict("moody.tar.gz") == [9]


@pytest.mark.parametrize("kind", ["archive", "file", "folder"])
def test_a_model_is_replaced_under_load_without_an_error(alert: Server, root: Path, kind: str) -> None:
    """Each answer is that of the version that its header names, and none comes after one of a later version.

    A folder is served where it lies: what is loaded may already be newer than the version that was found.
    """
    name = put(root, kind, f"busy-{kind}", 0.0)
    done = Event()

    def ask() -> list[tuple[str, float]]:
        answers: list[tuple[str, float]] = []
        while not done.is_set():
            reply = alert.invoke(name, [FLOWER])
            assert reply.status_code == 200, reply.text
            answers.append((reply.headers[VERSION], *reply.json()))
        return answers

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for version in range(1, 6):
            put(root, kind, f"busy-{kind}", float(version))
            until(lambda version=version: alert.predict(name) == [version], "the new version is served")  # type: ignore[misc]
        done.set()
        pairs = set()
        for answers in asking:
            values = [value for _, value in answers.result()]
            assert values == sorted(values)
            pairs.update(answers.result())
    versions = dict(pairs)
    assert len(pairs) == len(versions)
    contents = len(set(versions.values()))
    assert contents > 2
    assert contents == len(versions) or kind == "folder"


def test_a_folder_that_changes_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    """What was loaded is half old and half new, and the store is never asked again by itself."""
    gate, root = tmp_path / "gate", tmp_path / "store"
    source = f"""
import os, time
from pathlib import Path
def model_fn(model_dir):
    first = (Path(model_dir) / "first").read_text()
    Path({str(gate)!r} + ".waiting").touch()
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)
    return first + (Path(model_dir) / "second").read_text()
def predict_fn(data, model):
    return [model]
"""
    name = script(root, "torn", source)
    parts = [root / name / "first", root / name / "second"]
    for part in parts:
        part.write_text("old ")
    with (
        serve(tmp_path, root, "--workers", "1", "--store-refresh", "never") as server,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(server.predict, name)
        until(gate.with_name("gate.waiting").exists, "it is being loaded")
        for part in parts:
            part.write_text("newer ")
        gate.touch()
        assert first.result() == ["old newer "]
        until(lambda: server.predict(name) == ["newer newer "], "it is loaded again")
        assert server.log().count("loaded model=") == 2


def test_the_old_version_answers_what_it_was_asked(alert: Server, root: Path, tmp_path: Path) -> None:
    """The new version is loaded and serves while the old one still runs, and the old one ends its request."""
    gate = tmp_path / "gate"
    source = waits(gate)
    archive(root / ".slow", {"code/inference.py": source.encode()}).replace(root / "slow.tar.gz")
    with ThreadPoolExecutor(1) as threads:
        old = threads.submit(alert.invoke, "slow.tar.gz", [FLOWER])
        until(Path(f"{gate}.waiting").exists, "the old one runs")
        put(root, "archive", "slow", 2.0)
        until(lambda: alert.client.post("/models/slow.tar.gz/refresh").status_code == 200, "it is replaced")
        new = alert.invoke("slow.tar.gz", [FLOWER])
        assert new.json() == [2.0]
        gate.touch()
        assert old.result().json() in ([1], [2.0])
    assert len(alert.client.get("/models/slow.tar.gz").json()["workers"]) == 1


def test_a_model_that_is_unloaded_while_it_is_replaced_stays_away(alert: Server, root: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    put(root, "archive", "leaving", 1.0)
    assert alert.predict("leaving.tar.gz") == [1.0]
    source = waits(gate, "model_fn").encode()
    archive(root / ".leaving.tar.gz", {"code/inference.py": source}).replace(root / "leaving.tar.gz")
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(alert.predict, "leaving.tar.gz")
        until(Path(f"{gate}.waiting").exists, "the new version is being loaded")
        assert asked.result() == [1.0]  # and is not waited for
        unloaded = threads.submit(alert.client.delete, "/models/leaving.tar.gz")
        assert alert.client.get("/ping").status_code == 200
        gate.touch()
        assert unloaded.result().status_code == 200
    until(lambda: "leaving.tar.gz" not in alert.loaded(), "it is unloaded")
    assert alert.client.get("/models/leaving.tar.gz").status_code == 404

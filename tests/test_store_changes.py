"""Artifacts that come, change and go while the server runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from serving import FLOWER, Server, archive, constant, serve, until


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changing-store")


@pytest.fixture(scope="module")
def alert(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of an empty store that looks at the store for every request."""
    with serve(tmp_path_factory.mktemp("alert"), root, "--workers", "2", "--store-refresh", "0") as server:
        yield server


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


def test_a_broken_artifact_replaces_a_good_one(alert: Server, root: Path) -> None:
    name = put(root, "archive", "spoilt", 6.0)
    assert alert.predict(name) == [6.0]
    (root / name).write_bytes(b"nonsense")
    assert alert.invoke(name, [FLOWER]).status_code == 424
    put(root, "archive", "spoilt", 7.0)
    assert alert.predict(name) == [7.0]


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


def test_a_model_is_replaced_under_load_without_an_error(alert: Server, root: Path) -> None:
    name = put(root, "archive", "busy", 0.0)
    done = Event()

    def ask() -> list[float]:
        answers: list[float] = []
        while not done.is_set():
            answers += alert.predict(name)
        return answers

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for version in range(1, 11):
            put(root, "archive", "busy", float(version))
            until(lambda version=version: alert.predict(name) == [version], "the new version is served")  # type: ignore[misc]
        done.set()
        for answers in asking:
            assert answers.result() == sorted(answers.result())

"""Two versions of scikit-learn, from the package registry, in one server; and the commands that build and remove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
from serving import FLOWER, IRIS, iris, serve
from test_cli import fail, succeed
from wheels import make, of_the_core

from manymodels.store import pack

VERSIONS = {"old": "1.5.2", "new": "1.7.2"}
#: Trains the model of an artifact where it is run, as who made the artifact did.
TRAIN = """
import sys
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

joblib.dump(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), sys.argv[1])
"""
#: Seconds; two environments of scikit-learn and pandas are downloaded and compiled.
LONG = 600


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Archives of models that were trained with different versions, each in the environment that it asks for."""
    root, work = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("work")
    for name, version in VERSIONS.items():
        (work / name).mkdir()
        (work / name / "requirements.txt").write_text(f"scikit-learn=={version}\n")
        # Environments depend on the plugin; before there is a model, this says which.
        (work / name / "manymodels.json").write_text('{"framework": "sklearn"}')
    built = subprocess.run(
        [sys.executable, "-m", "manymodels", "environments", "build", work, "--cache-dir", cache],
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert built.returncode == 0, built.stderr
    names = dict(line.split(",")[0].split(": ") for line in built.stdout.splitlines())
    for name in VERSIONS:
        python = cache / "environments" / names[name] / "bin" / "python"
        subprocess.run([python, "-c", TRAIN, work / name / "model.joblib"], check=True)
        pack(work / name, root / f"{name}.tar.gz")
    folder = tmp_path_factory.mktemp("iris")
    joblib.dump(iris(), folder / "model.joblib")
    pack(folder, root / IRIS)
    return root


@pytest.mark.timeout(LONG)
def test_two_versions_of_scikit_learn_side_by_side(store: Path, cache: Path, tmp_path: Path) -> None:
    arguments = ("--environments", "built", "--cache-dir", cache, "--workers", "1")
    with serve(tmp_path, store, *arguments) as server:
        seen: dict[str, set[str]] = {}
        for name in [*VERSIONS, IRIS.removesuffix(".tar.gz")]:
            target = f"{name}.tar.gz"
            assert server.predict(target) == [0]
            described = server.client.get(f"/models/{target}").json()
            # It was loaded by the version that it was trained with, or there would be a note.
            assert "notes" not in described
            seen[name] = {described.get("environment", "own"), str(server.workers(target))}
        assert not (seen["old"] & seen["new"])
        assert not (seen["old"] & seen["iris"])
        assert not (seen["new"] & seen["iris"])
        for target in ("old.tar.gz", "new.tar.gz"):
            (pid,) = server.workers(target)
            assert server.client.delete(f"/models/{target}").status_code == 200
            assert server.predict(target, [FLOWER, FLOWER]) == [0, 0]
            assert server.workers(target) == [pid], "its workers stay for a while"


def test_with_environments_off_the_server_has_its_own_say(store: Path, tmp_path: Path) -> None:
    with serve(tmp_path, store, "--workers", "1") as server:
        assert server.predict("new.tar.gz") == [0]
        notes = server.client.get("/models/new.tar.gz").json()["notes"]
    assert "requirements.txt is not installed: environments is off" in notes


# -- The commands --


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    of_the_core(folder)
    make(folder, "toolbox", "1.0")
    return folder


@pytest.fixture
def offline(wheels: Path, tmp_path: Path) -> dict[str, str]:
    """Settings by which environments are built of a folder of wheels, and kept apart from others."""
    folders = {"MANYMODELS_ENVIRONMENT_WHEELS": str(wheels), "MANYMODELS_CACHE_DIR": str(tmp_path / "cache")}
    return {**folders, "MANYMODELS_ENVIRONMENTS": "build"}


def artifact(root: Path, name: str, needs: str) -> Path:
    code = root / name / "code"
    code.mkdir(parents=True)
    source = "import toolbox\ndef model_fn(model_dir): return toolbox\ndef predict_fn(data, model): return [1]\n"
    (code / "inference.py").write_text(source)
    (code / "requirements.txt").write_text(needs)
    (root / name / "sample.json").write_text("[[1]]")
    return root / name


def listed(env: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(succeed("environments", "list", "--json", env=env))
    return found


def test_build_list_and_remove(tmp_path: Path, offline: dict[str, str]) -> None:
    root = tmp_path / "store"
    artifact(root, "a", "toolbox==1.0")
    artifact(root, "b", "toolbox == 1.0")
    artifact(root, "c", "numpy>=1")
    printed = succeed("environments", "build", root, env=offline)
    (found,) = listed(offline)
    name = found["name"]
    first, second, third = printed.splitlines()
    assert first.startswith(f"a: {name}, ")
    assert second.startswith(f"b: {name}, ")
    assert third == "c: the server's own packages will do"
    assert "toolbox==1.0" in found["packages"]
    assert found["bytes"] > 1 << 20
    assert not found["inUse"]
    folder = tmp_path / "cache" / "environments" / name
    built = (folder / "environment.json").stat().st_mtime_ns
    assert succeed("environments", "build", root, env=offline) == printed
    assert (folder / "environment.json").stat().st_mtime_ns == built, "it was found, and not built again"
    assert name in succeed("environments", "list", env=offline)
    with serve(tmp_path, root, "--workers", "1", env=offline) as server:
        assert server.predict("a") == [1]
        assert listed(offline)[0]["inUse"]
        assert "is in use" in fail("environments", "remove", name, code=1, env=offline)
        assert succeed("environments", "remove", "--unused", "0", env=offline) == ""
    assert "there is no environment 'x'" in fail("environments", "remove", "x", code=1, env=offline)
    assert succeed("environments", "remove", "--unused", "1", env=offline) == ""
    assert succeed("environments", "remove", name, env=offline) == f"removed {name}\n"
    assert listed(offline) == []
    assert not folder.exists()


def test_what_cannot_be_built_does_not_hold_up_the_rest(tmp_path: Path, offline: dict[str, str]) -> None:
    root = tmp_path / "store"
    artifact(root, "a", "nothing-of-this-name")
    artifact(root, "b", "-e .")
    artifact(root, "c", "toolbox")
    error = fail("environments", "build", root, code=1, env=offline)
    assert error == "Error: 2 of the artifacts cannot have what they need"
    assert [one["asked"] for one in listed(offline)] == [["toolbox"]]
    checked = json.loads(succeed("check", root / "c", "--json", env=offline))
    assert checked["plugin"] == "custom"
    assert [one["asked"] for one in listed(offline)] == [["toolbox"]]


def test_remove_wants_to_know_what(offline: dict[str, str]) -> None:
    assert "--unused DAYS" in fail("environments", "remove", code=2, env=offline)
    assert "--unused DAYS" in fail("environments", "remove", "a", "--unused", "1", code=2, env=offline)


def test_limits_of_a_build(tmp_path: Path, offline: dict[str, str]) -> None:
    store = artifact(tmp_path / "store", "a", "toolbox").parent
    for flags, reason in (
        (("--environment-timeout", "0.1"), "it took longer than 0.1 s (environment_timeout)"),
        (("--environment-size", "1MiB"), "and may take 1048576 (environment_size)"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "manymodels", "environments", "build", store, *flags],
            capture_output=True,
            text=True,
            env={**os.environ, **offline},
        )
        assert done.returncode == 1
        assert reason in done.stderr
        left = [path.name for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]
        assert left == [], "nothing half built is left"

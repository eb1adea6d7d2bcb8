"""Models with a requirements.txt, served: each in an environment of its own, from wheels and from the registry."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import FLOWER, Server, script, serve, until
from wheels import make, of_the_core

#: Says which versions it sees, and where.
TELLS = """
import os, sys
import pluggy, toolbox
import manymodels, manymodels_custom

def model_fn(model_dir):
    return toolbox.__version__

def predict_fn(data, model):
    try:
        import sklearn
    except ImportError:
        sklearn = None
    core = os.path.realpath(manymodels.__file__)
    return {"toolbox": model, "python": sys.prefix, "core": core, "neighbour": sklearn is not None}
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the core needs, and some packages of no use."""
    folder = tmp_path_factory.mktemp("wheels")
    of_the_core(folder)
    make(folder, "toolbox", "1.0")
    make(folder, "toolbox", "2.0")
    make(folder, "oldfashioned", "1.0", requires=("pluggy<1",))
    make(folder, "toxic", "1.0", requires=("toolbox==3.0",))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts that need one version or the other of a package; as SageMaker has it, and at the top."""
    root = tmp_path_factory.mktemp("store")
    needs(root, "one", "toolbox==1.0\n", code=True)
    needs(root, "same", "# the same\nToolbox  ==1.0")
    needs(root, "two", "toolbox==2.0\n")
    needs(root, "conflict", "oldfashioned\n")
    needs(root, "deep", "toxic\n")
    needs(root, "missing", "nothing-of-this-name==1\n")
    needs(root, "hostile", "-r /etc/passwd\n")
    script(root, "plain", "def model_fn(model_dir): pass\ndef predict_fn(data, model): return [1]\n")
    return root


def needs(root: Path, name: str, text: str, *, source: str = TELLS, code: bool = False) -> None:
    script(root, name, source)
    (root / name / ("code" if code else ".") / "requirements.txt").write_text(text)


@pytest.fixture(scope="module")
def built(store: Path, wheels: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that builds what models need, of these wheels."""
    flags = ("--environments", "build", "--environment-wheels", wheels, "--cache-dir", cache, "--workers", "1")
    with serve(tmp_path_factory.mktemp("server"), store, *flags) as running:
        yield running


def answer(server: Server, name: str) -> httpx.Response:
    """Return the answer of a model once it is not that its environment is being built."""

    def ask() -> httpx.Response | None:
        reply = server.invoke(name, [FLOWER])
        if reply.status_code != 503:
            return reply
        time.sleep(0.1)
        return None

    found: httpx.Response = until(ask, f"the environment of {name} is built")
    return found


def environments(cache: Path) -> set[str]:
    return {path.name for path in (cache / "environments").iterdir() if path.is_dir()}


def test_two_versions_of_a_package_side_by_side(built: Server, cache: Path) -> None:
    reply = built.invoke("one", [FLOWER])
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json()["type"] == "ModelNotReady"
    assert "the environment of 'one' is being built" in reply.json()["message"]
    progress = built.client.get("/models/one")
    assert progress.status_code == 503
    assert "is being built, for " in progress.json()["message"]
    assert built.predict("plain") == [1], "others are served meanwhile"
    one, two, same = (answer(built, name).json() for name in ("one", "two", "same"))
    assert (one["toolbox"], two["toolbox"], same["toolbox"]) == ("1.0", "2.0", "1.0")
    assert one["python"] == same["python"] != two["python"]
    assert one["core"] == two["core"] == str(Path("src/manymodels/__init__.py").resolve())
    assert not one["neighbour"], "what is installed beside the server does not come along"
    assert environments(cache) == {Path(one["python"]).name, Path(two["python"]).name}
    described = built.client.get("/models/one").json()
    assert described["environment"] == Path(one["python"]).name
    assert "environment" not in built.client.get("/models/plain").json()
    assert built.workers("one") == built.workers("same")
    assert built.workers("one") != built.workers("two")
    assert built.workers("plain") != built.workers("two")


def test_what_cannot_be_installed_is_said_and_remembered(built: Server) -> None:
    conflict = answer(built, "conflict")
    assert conflict.status_code == 424
    assert conflict.json()["type"] == "LoadFailed"
    assert "pluggy" in conflict.json()["message"]
    assert answer(built, "missing").status_code == 424
    assert "nothing-of-this-name" in answer(built, "missing").json()["message"]
    assert "toolbox==3.0" in answer(built, "deep").json()["message"]
    began = built.log().count("is being built")
    assert answer(built, "conflict").json() == conflict.json()
    assert built.log().count("is being built") == began, "it is not tried again at once"
    hostile = answer(built, "hostile")
    assert hostile.status_code == 424
    assert "is an option, which the operator may set" in hostile.json()["message"]
    described = built.client.get("/models/conflict")
    assert described.status_code == 404
    assert "pluggy" in described.json()["message"]
    assert built.predict("plain") == [1]


def test_an_environment_outlives_a_crash_of_its_worker(built: Server) -> None:
    prefix = answer(built, "two").json()["python"]
    (pid,) = built.workers("two")
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: built.workers("two") not in ([pid], []) or answer(built, "two"), "it is back")
    assert answer(built, "two").json()["python"] == prefix
    assert built.workers("two") != [pid]


def test_a_restart_finds_what_was_built(built: Server, store: Path, wheels: Path, cache: Path, tmp_path: Path) -> None:
    before = answer(built, "one").json()
    half = next(iter(environments(cache)))
    with serve(tmp_path, store, "--environments", "built", "--cache-dir", cache, "--workers", "1") as again:
        assert again.predict("one") == before, "while another server uses it, too"
        refused = again.invoke("missing", [FLOWER])
        assert refused.status_code == 424
        assert "run manymodels environments build" in refused.json()["message"]
        assert half in environments(cache)
    assert again.log().count("is being built") == 0

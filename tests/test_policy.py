"""What the operator allows: which plugins, which sources; and that a server keeps to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import msgspec
import pytest
from installed import besides
from serving import Server, iris, script, serve

from manymodels import Artifact, ModelSettings, Plugins, hookimpl
from manymodels.cli.parts import open_store
from manymodels.endpoint import Container
from manymodels.errors import NotTrusted, SettingsError
from manymodels.policy import Policy
from manymodels.server.worker import WorkerConfig
from manymodels.server.workers import create
from manymodels.settings import load
from manymodels.store import DiskCache, pack

#: Plugins that these tests have no use for, and would import.
OTHERS = besides("sklearn")


class Taker:
    """A plugin that claims everything."""

    @hookimpl
    def claim(self, artifact: Artifact) -> str:
        return "taker"


class Scripts:
    """A plugin of code."""

    @hookimpl
    def claim_code(self, artifact: Artifact, settings: ModelSettings) -> str | None:
        return "scripts" if artifact.match("*.py") else None


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# -- The file --


def test_a_policy_is_read_once_from_its_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "policy.json", {"plugins": ["sklearn"], "globals": ["numpy.*", "a.b.C"], "sources": ["x/*"]}
    )
    settings = load(policy=str(file))
    file.unlink()
    assert settings.model_settings().policy == Policy(("sklearn",), ("numpy.*", "a.b.C"), ("x/*",))
    assert settings.model_dump(mode="json")["policy"]["plugins"] == ["sklearn"]
    assert load().model_settings().policy is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid"),
        ("[" * 100_000, "is not valid"),
        ({"plugin": []}, "is not valid: Object contains unknown field `plugin`"),
        ({"plugins": "sklearn"}, "is not valid: Expected `array.*got `str`"),
        ({"plugins": [], "globals": ["*"]}, r"has '\*' in 'globals'; write module.name, or module.\*"),
        ({"plugins": [], "globals": ["numpy*"]}, r"has 'numpy\*' in 'globals'"),
        ({"plugins": [], "globals": ["numpy"]}, "has 'numpy' in 'globals'"),
        ({"globals": ["numpy.*"]}, "has 'globals' and no 'plugins'"),
    ],
)
def test_a_policy_that_is_not_valid(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=rf"the policy '.*policy\.json' {said}"):
        load(policy=str(write(tmp_path / "policy.json", content)))


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.json' cannot be read: No such file"):
        load(policy=str(tmp_path / "none.json"))


def test_workers_are_told_the_policy() -> None:
    """Those of environments, too: all are started with the same message."""
    config = WorkerConfig(settings=ModelSettings(policy=Policy(("a",), ("b.c",))))
    assert msgspec.json.decode(msgspec.json.encode(config), type=WorkerConfig) == config


# -- Plugins --


def bind(folder: Path, *allowed: str) -> str:
    plugins = Plugins([("taker", Taker()), ("scripts", Scripts())])
    binding = plugins.bind(Artifact(folder, "m"), ModelSettings(policy=Policy(plugins=allowed)))
    return f"{binding.plugin} on {binding.framework}"


def test_only_allowed_plugins_serve(tmp_path: Path) -> None:
    assert bind(tmp_path, "taker") == "taker on None"
    with pytest.raises(NotTrusted, match=r"'m' would be served by the plugin 'taker', .* \(it allows a, b\); add it"):
        bind(tmp_path, "a", "b")
    with pytest.raises(NotTrusted, match="it allows none"):
        bind(tmp_path)


def test_code_needs_its_plugin_and_the_one_below_it(tmp_path: Path) -> None:
    (tmp_path / "inference.py").touch()
    assert bind(tmp_path, "taker", "scripts") == "scripts on taker"
    with pytest.raises(NotTrusted, match="'scripts'"):
        bind(tmp_path, "taker")
    with pytest.raises(NotTrusted, match="'taker'"):
        bind(tmp_path, "scripts")


def test_an_artifact_cannot_choose_a_plugin_that_is_not_allowed(tmp_path: Path) -> None:
    write(tmp_path / "manymodels.json", {"framework": "scripts"})
    with pytest.raises(NotTrusted, match="'scripts'"):
        bind(tmp_path, "taker")


# -- Sources --


@pytest.mark.parametrize("pattern", ["team/*", "{root}/team/*", "*/m.tar.gz"])
def test_only_allowed_sources_are_found(tmp_path: Path, pattern: str) -> None:
    root = tmp_path / "store"
    for name in ("team/m.tar.gz", "other.tar.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pack(Path(__file__), root / name)
    policy = write(tmp_path / "policy.json", {"sources": [pattern.format(root=root)]})
    store = open_store(root, DiskCache(tmp_path / "cache"), load(policy=str(policy)), Plugins())
    assert list(store.list()) == ["team/m.tar.gz"]
    assert store.open(store.find("team/m.tar.gz")).is_dir()
    with pytest.raises(NotTrusted, match=r"'other\.tar\.gz' is in no source that the operator's policy allows"):
        store.find("other.tar.gz")
    unrestricted = open_store(root, store.cache, load(), Plugins())
    store.cache.release(unrestricted.open(unrestricted.find("other.tar.gz")))
    assert unrestricted.kept("other.tar.gz") is not None
    assert store.kept("other.tar.gz") is None
    assert store.kept("team/m.tar.gz") is not None


def test_a_container_loads_from_allowed_folders(tmp_path: Path) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    joblib.dump(iris(), tmp_path / "models" / "m" / "model.joblib")
    for pattern, allowed in ((f"{tmp_path}/models/*", True), ("/opt/*", False)):
        settings = load(policy=str(write(tmp_path / "policy.json", {"sources": [pattern]})), block_plugins=OTHERS)
        container = Container(create(settings), Plugins.installed(settings.block_plugins), settings)
        if allowed:
            assert container._bind("m", tmp_path / "models" / "m").plugin == "sklearn"
        else:
            with pytest.raises(NotTrusted, match="'m' is in no source"):
                container._bind("m", tmp_path / "models" / "m")


# -- A server --


class Runs:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self._mark,))


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "mark"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mark: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("policy")
    for name in ("good", "out"):
        (folder / "store" / name).mkdir(parents=True)
        joblib.dump(iris(), folder / "store" / name / "model.joblib")
    (folder / "store" / "bad").mkdir()
    joblib.dump({"clf": Runs(mark)}, folder / "store" / "bad" / "model.joblib")
    script(folder / "store", "script", f"open({str(mark)!r}, 'w')")
    content = {
        "plugins": ["sklearn"],
        "globals": ["joblib.numpy_pickle.NumpyArrayWrapper", "numpy.*", "sklearn.*"],
        "sources": ["good", "bad", "script*"],
    }
    policy = write(folder / "policy.json", content)
    blocked = besides("sklearn", "custom")
    with serve(folder, folder / "store", "--workers", "1", "--policy", policy, "--block-plugins", blocked) as running:
        yield running


def test_a_server_serves_what_is_allowed(server: Server) -> None:
    assert server.predict("good") == [0]


def test_a_server_refuses_the_rest(server: Server, mark: Path) -> None:
    names = server.client.get("/artifacts").text
    (code,) = [name for name in ("script", "script.tar.gz") if f'"{name}"' in names]
    for name, said in (
        ("bad", "model.joblib of 'bad' imports pathlib.Path.touch, which the operator's policy does not allow"),
        ("out", "'out' is in no source that the operator's policy allows"),
        (code, "would be served by the plugin 'custom', which the operator's policy does not allow"),
    ):
        reply = server.invoke(name, [[1]])
        assert (reply.status_code, said in reply.text) == (424, True), reply.text
        assert "NotTrusted" in reply.text
    assert not mark.exists()

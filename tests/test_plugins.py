"""The plugin manager and every hook of the contract."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pools import Toys

from manymodels import (
    Accelerated,
    Artifact,
    Batch,
    Context,
    Field,
    Golden,
    ModelSettings,
    Plugins,
    Schema,
    hookimpl,
    hookspecs,
)
from manymodels.errors import BadArtifact, LoadFailed, NoPlugin, PluginError
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding, PluginInfo

SETTINGS = ModelSettings()


class Framework:
    """A framework plugin that claims by a suffix, and doubles numbers."""

    def __init__(self, name: str = "framework", suffix: str = "frame") -> None:
        self._name = name
        self._suffix = suffix
        self.unloaded: list[Any] = []

    @hookimpl
    def claim(self, artifact: Artifact) -> str | None:
        return self._name if artifact.match(f"*.{self._suffix}") else None

    @hookimpl
    def load(self, artifact: Artifact, context: Context) -> Any:
        return {"artifact": artifact.name, "options": dict(context.options)}

    @hookimpl
    def predict_fn(self, data: Any, model: Any) -> Any:
        return data * 2

    @hookimpl
    def unload(self, model: Any, context: Context) -> None:
        self.unloaded.append((model, context.target_model))


class Script:
    """A plugin that runs an artifact's code on top of the framework."""

    @hookimpl
    def claim_code(self, artifact: Artifact, settings: ModelSettings) -> str | None:
        return "script" if artifact.match(settings.program) or settings.submit_directory else None

    @hookimpl
    def load(self, artifact: Artifact, context: Context) -> Any:
        return context.framework.load(artifact, context) if context.framework else "no framework"

    @hookimpl
    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        return context.framework.predict_fn(data, model, context) if context.framework else data


class Observer:
    """Wraps the hooks of whatever plugin serves."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl(wrapper=True)
    def load(self, artifact: Artifact) -> Generator[None, Any, Any]:
        self.seen.append(f"load {artifact.name}")
        return (yield)

    @hookimpl(wrapper=True)
    def predict_fn(self, data: Any) -> Generator[None, Any, Any]:
        self.seen.append(f"predict {data}")
        result = yield
        self.seen.append(f"predicted {result}")
        return result


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Return a maker of artifacts of empty files, with a manifest if one is given."""

    def make(*files: str, manifest: Any = None) -> Artifact:
        for name in files:
            (tmp_path / name).touch()
        if manifest is not None:
            (tmp_path / "manymodels.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
        return Artifact(tmp_path, "shop")

    return make


def answer(model: Model, **request: Any) -> Answer:
    """Return the answer to one invocation that has to succeed."""
    (result,) = model.invoke([Invocation(b"21", "application/json", **request)])
    assert isinstance(result, Answer), result
    return result


def test_every_hook_has_a_test() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    assert len(hooks) >= 10
    tree = ast.parse(Path(__file__).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not {name for name in hooks if f"test_hook_{name}" not in tests}


# -- Finding and checking --


def test_installed_plugins_are_found_by_their_entry_points(toys: Toys) -> None:
    plugins = Plugins.installed()
    assert set(plugins.names) >= {"custom", "sklearn", "toy", "xgboost"}
    toy = next(info for info in plugins.describe() if info.name == "toy")
    hooks = ("accelerate", "batch", "claim", "input_fn", "load", "output_fn", "predict_fn", "unload")
    assert toy == PluginInfo(name="toy", version="0.1", distribution="toy", hooks=hooks)


def test_blocked_plugins_are_not_even_imported(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, monkeypatch, "broken", "import no_such_framework")
    names = set(Plugins.installed(["broken"]).names)
    assert set(Plugins.installed(["broken", "custom", "no-such-plugin"]).names) == names - {"custom"}


def distribution(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    """Put a distribution with one plugin module on the path."""
    (folder / f"{name}_plugin.py").write_text(source)
    info = folder / f"manymodels_{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: manymodels-{name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[manymodels]\n{name} = {name}_plugin\n")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_framework", "ModuleNotFoundError: No module named 'no_such_framework'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    distribution(tmp_path, monkeypatch, "broken", source)
    with pytest.raises(PluginError) as error:
        Plugins.installed()
    assert str(error.value) == (
        f"plugin 'broken' of distribution 'manymodels-broken' cannot be imported ({reason}); "
        "mend or uninstall it, or leave it out with --block-plugins broken"
    )


def test_a_hook_of_an_unknown_name_is_an_error() -> None:
    class Misspelt:
        @hookimpl
        def predict(self, data: Any) -> Any:
            return data

    with pytest.raises(PluginError, match=r"^plugin 'misspelt' breaks the hook contract: .*predict"):
        Plugins([("misspelt", Misspelt())])


def test_an_argument_no_hook_offers_is_an_error() -> None:
    class Wrong:
        @hookimpl
        def predict_fn(self, rows: Any) -> Any:
            return rows

    with pytest.raises(PluginError, match=r"^plugin 'wrong' breaks the hook contract: .*\n?.*rows"):
        Plugins([("wrong", Wrong())])


def test_two_plugins_of_one_name_are_an_error() -> None:
    with pytest.raises(PluginError, match=r"^plugin 'twice' breaks the hook contract"):
        Plugins([("twice", Framework()), ("twice", Framework())])


# -- Binding --


def test_an_artifact_is_bound_to_the_plugin_that_claims_it(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework()), ("other", Framework("other", "other"))])
    assert plugins.bind(artifact("a.frame"), SETTINGS) == Binding("framework")
    assert plugins.claims(artifact(), SETTINGS)


def test_an_artifact_nobody_claims_is_described(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework())])
    unclaimed = artifact("a.txt", "b.txt", "c.txt", "d.txt", "e.txt", "f.txt")
    with pytest.raises(NoPlugin, match=r"no plugin claims 'shop': it holds a.txt, .*e.txt and 1 more, .*\(framework\)"):
        plugins.bind(unclaimed, SETTINGS)
    assert not plugins.claims(unclaimed, SETTINGS)


def test_an_empty_artifact_is_described(artifact: Callable[..., Artifact]) -> None:
    with pytest.raises(NoPlugin, match=r"'shop': it holds no files, and the installed plugins \(none\)"):
        Plugins().bind(artifact(), SETTINGS)


def test_an_artifact_two_claim_is_settled_by_its_manifest(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("b", Framework("b")), ("a", Framework("a"))])
    with pytest.raises(NoPlugin, match=r"claimed by the plugins a and b; settle it .*\{\"framework\": \"a\"\}"):
        plugins.bind(artifact("m.frame"), SETTINGS)
    assert plugins.bind(artifact(manifest={"framework": "b"}), SETTINGS) == Binding("b")


def test_a_manifest_may_name_a_plugin_that_claims_nothing(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework())])
    assert plugins.bind(artifact("a.txt", manifest={"framework": "framework"}), SETTINGS) == Binding("framework")


def test_a_manifest_that_names_what_is_not_installed(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework())])
    tensor = artifact("a.frame", manifest={"framework": "tensor"})
    with pytest.raises(NoPlugin, match=r"names 'tensor'.*\(installed: framework\); pip install manymodels-tensor"):
        plugins.bind(tensor, SETTINGS)
    assert plugins.claims(tensor, SETTINGS)


@pytest.mark.parametrize("manifest", ["{", '{"framework": 1}', '{"frame": "x"}', "[" * 100_000])
def test_an_invalid_manifest_is_a_bad_artifact(artifact: Callable[..., Artifact], manifest: str) -> None:
    plugins = Plugins([("framework", Framework())])
    bad = artifact("a.frame", manifest=manifest)
    with pytest.raises(BadArtifact, match=r"manymodels.json of 'shop' is not valid"):
        plugins.bind(bad, SETTINGS)
    assert plugins.claims(bad, SETTINGS)  # so that loading it says why


def test_code_is_bound_on_top_of_the_framework(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework()), ("script", Script())])
    assert plugins.bind(artifact("inference.py"), SETTINGS) == Binding("script")
    with_model = artifact("a.frame")
    assert plugins.bind(with_model, SETTINGS) == Binding("script", "framework")
    model = Model(with_model, Binding("script", "framework"), plugins, SETTINGS)
    assert answer(model).body == b"42"
    assert plugins.bind(artifact(manifest={"framework": "script"}), SETTINGS) == Binding("script")


def test_code_two_plugins_claim_is_an_error(artifact: Callable[..., Artifact]) -> None:
    class Other(Script):
        @hookimpl
        def claim_code(self, artifact: Artifact, settings: ModelSettings) -> str | None:
            return "other"

    plugins = Plugins([("script", Script()), ("other", Other())])
    with pytest.raises(NoPlugin, match="'shop' is claimed by the plugins other and script"):
        plugins.bind(artifact("inference.py"), SETTINGS)


def test_a_claim_that_fails_is_told_apart_from_none(artifact: Callable[..., Artifact]) -> None:
    class Failing(Framework):
        @hookimpl
        def claim(self, artifact: Artifact) -> str | None:
            raise ValueError("not a header")

    plugins = Plugins([("failing", Failing()), ("framework", Framework())])
    with pytest.raises(LoadFailed, match=r"asked whether it serves 'shop' \(ValueError: not a header\)"):
        plugins.bind(artifact("a.frame"), SETTINGS)
    assert plugins.claims(artifact(), SETTINGS)


def test_one_script_for_all_claims_no_artifact_by_itself(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("script", Script())])
    settings = ModelSettings(submit_directory="/code")
    readme = artifact("README.md")
    assert not plugins.claims(readme, settings)
    assert plugins.bind(readme, settings) == Binding("script")
    assert plugins.claims(artifact("inference.py"), settings)


class Loader:
    """A plugin that can load and not predict."""

    @hookimpl
    def load(self) -> Any:
        return "model"


@pytest.mark.parametrize(("plugin", "missing"), [(Observer(), "load"), (Loader(), "predict_fn")])
def test_a_plugin_that_cannot_serve_is_refused(plugin: object, missing: str) -> None:
    plugins = Plugins([("half", plugin)])
    with pytest.raises(NoPlugin, match=f"the plugin 'half' serves no models: it has no {missing}"):
        plugins.bound("half")
    with pytest.raises(NoPlugin, match="'absent' is not installed"):
        plugins.bound("absent")


# -- What is bound --


def test_only_the_bound_plugin_and_the_defaults_answer(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework()), ("other", Other())])
    model = Model(artifact("a.frame"), Binding("framework"), plugins, SETTINGS)
    assert answer(model).body == b"42"


class Other:
    """A plugin whose hooks must not be called for another's models."""

    @hookimpl
    def input_fn(self) -> Any:
        raise AssertionError("another plugin's hook was called")

    @hookimpl
    def predict_fn(self) -> Any:
        raise AssertionError("another plugin's hook was called")

    @hookimpl
    def output_fn(self) -> Any:
        raise AssertionError("another plugin's hook was called")


def test_none_is_a_prediction(artifact: Callable[..., Artifact]) -> None:
    class Silent(Framework):
        @hookimpl
        def predict_fn(self, data: Any, model: Any) -> Any:
            return None

    plugins = Plugins([("framework", Framework()), ("silent", Silent())])
    model = Model(artifact("a.frame"), Binding("silent"), plugins, SETTINGS)
    assert answer(model).body == b"null"


def test_wrappers_run_around_any_plugins_hooks_and_once(artifact: Callable[..., Artifact]) -> None:
    observer = Observer()
    plugins = Plugins([("observer", observer), ("framework", Framework()), ("script", Script())])
    for binding in (Binding("framework"), Binding("script", "framework")):
        observer.seen.clear()
        model = Model(artifact("a.frame"), binding, plugins, SETTINGS)
        answer(model)
        assert observer.seen == ["load shop", "predict 21", "predicted 42"]


def test_a_hook_is_given_the_arguments_it_names_in_any_order() -> None:
    class Names:
        @hookimpl
        def load(self) -> Any:
            return "model"

        @hookimpl
        def input_fn(self, model: Any, body: bytes) -> Any:
            return model, body

        @hookimpl
        def predict_fn(self, context: Context) -> Any:
            return context.request_id

        @hookimpl
        def output_fn(self) -> Any:
            return b"constant", "text/plain"

    class Around:
        @hookimpl(wrapper=True)
        def input_fn(self, content_type: str | None) -> Generator[None, Any, Any]:
            return content_type, (yield)

    context = Context("shop", "/m", request_id="7")
    wrapped = Plugins([("names", Names()), ("around", Around())])
    for plugins, decoded in ((Plugins([("names", Names())]), ("model", b"[1]")), (wrapped, ("a/b", ("model", b"[1]")))):
        bound = plugins.bound("names")
        assert bound.load(Artifact(Path("/m")), context) == "model"
        assert bound.input_fn(b"[1]", "a/b", "model", context) == decoded
        assert bound.predict_fn("data", "model", context) == "7"
        assert bound.output_fn("prediction", "model", "a/b", context) == (b"constant", "text/plain")
        assert bound.batch("model", context) is None


# -- Each hook --


def test_hook_claim(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("framework", Framework())])
    assert plugins.hook.claim(artifact=artifact("a.frame")) == ["framework"]


def test_hook_claim_code(artifact: Callable[..., Artifact]) -> None:
    plugins = Plugins([("script", Script())])
    settings = ModelSettings(program="serve.py")
    assert plugins.hook.claim_code(artifact=artifact("inference.py"), settings=settings) == []
    assert plugins.hook.claim_code(artifact=artifact("serve.py"), settings=settings) == ["script"]


def test_hook_load(artifact: Callable[..., Artifact]) -> None:
    bound = Plugins([("framework", Framework())]).bound("framework")
    context = Context("shop", "/m", options={"a": 1})
    assert bound.load(artifact(), context) == {"artifact": "shop", "options": {"a": 1}}


def test_hook_input_fn() -> None:
    class Reader(Framework):
        @hookimpl
        def input_fn(self, body: bytes, content_type: str | None, model: Any, context: Context) -> Any:
            return body, content_type, model, context.request_id

    context = Context("shop", "/m", request_id="7")
    own = Plugins([("reader", Reader())]).bound("reader")
    assert own.input_fn(b"[1]", "text/x", "model", context) == (b"[1]", "text/x", "model", "7")
    default = Plugins([("framework", Framework())]).bound("framework")
    assert default.input_fn(b"[1]", "application/json", "model", context) == [1]


def test_hook_predict_fn() -> None:
    bound = Plugins([("framework", Framework())]).bound("framework")
    assert bound.predict_fn(21, None, Context("shop", "/m")) == 42


def test_hook_output_fn() -> None:
    class Writer(Framework):
        @hookimpl
        def output_fn(self, prediction: Any, model: Any, accept: str, context: Context) -> Any:
            return f"{prediction} {model} {accept} {context.target_model}", "text/plain"

    context = Context("shop", "/m")
    own = Plugins([("writer", Writer())]).bound("writer")
    assert own.output_fn([1], "model", "text/csv", context) == ("[1] model text/csv shop", "text/plain")
    default = Plugins([("framework", Framework())]).bound("framework")
    assert default.output_fn([1], "model", "application/json", context) == (b"[1]", "application/json")


def test_hook_batch() -> None:
    class Rows(Framework):
        @hookimpl
        def batch(self, model: Batch) -> Batch:
            return model

    context, marker = Context("shop", "/m"), object()
    assert Plugins([("rows", Rows())]).bound("rows").batch(marker, context) is marker
    assert Plugins([("framework", Framework())]).bound("framework").batch(marker, context) is None


def test_hook_accelerate() -> None:
    class Fast(Framework):
        @hookimpl
        def accelerate(self, model: Accelerated) -> Accelerated:
            return model

    context, offer = Context("shop", "/m"), Accelerated("numpy", lambda data: data, probes=[])
    assert Plugins([("fast", Fast())]).bound("fast").accelerate(offer, context) is offer
    assert Plugins([("framework", Framework())]).bound("framework").accelerate(offer, context) is None


def test_hook_schema() -> None:
    class Telling(Framework):
        @hookimpl
        def schema(self, model: Schema) -> Schema:
            return model

    context, told = Context("shop", "/m"), Schema(inputs=(Field(name="age"),))
    assert Plugins([("telling", Telling())]).bound("telling").schema(told, context) is told
    assert Plugins([("framework", Framework())]).bound("framework").schema(told, context) is None


def test_hook_unload(artifact: Callable[..., Artifact]) -> None:
    framework = Framework()
    model = Model(artifact("a.frame"), Binding("framework"), Plugins([("framework", framework)]), SETTINGS)
    model.unload()
    assert framework.unloaded == [({"artifact": "shop", "options": {}}, "shop")]


def test_hook_warm_up_imports() -> None:
    class Heavy(Framework):
        @hookimpl
        def warm_up_imports(self) -> list[str]:
            return ["numpy", "scipy"]

    class Light(Framework):
        @hookimpl
        def warm_up_imports(self) -> list[str]:
            return ["json", "numpy"]

    plugins = Plugins([("light", Light()), ("heavy", Heavy()), ("none", Framework())])
    assert plugins.warm_up_imports() == ["numpy", "scipy", "json"]
    assert plugins.warm_up_imports(["light", "absent"]) == ["json", "numpy"]
    assert plugins.warm_up_imports([]) == []


def test_hook_train(tmp_path: Path) -> None:
    class Trainer:
        @hookimpl
        def train(self, channels: Mapping[str, Path], hyperparameters: Mapping[str, str], model_dir: Path) -> None:
            (model_dir / "model").write_text(f"{sorted(channels)} {hyperparameters['rounds']}")

    plugins = Plugins([("trainer", Trainer())])
    plugins.hook.train(channels={"train": tmp_path}, hyperparameters={"rounds": "2"}, model_dir=tmp_path)
    assert (tmp_path / "model").read_text() == "['train'] 2"


def test_hook_sample_artifact(tmp_path: Path) -> None:
    golden = Golden(body=b"[1]", answer=b"[2.0]")

    class Sampled:
        @hookimpl
        def sample_artifact(self, path: Path) -> list[Golden]:
            (path / "a.frame").touch()
            return [golden]

    assert Plugins([("sampled", Sampled())]).hook.sample_artifact(path=tmp_path) == [golden]
    assert (tmp_path / "a.frame").exists()


def test_hook_register_commands() -> None:
    class Commands:
        @hookimpl
        def register_commands(self, cli: click.Group) -> None:
            @cli.command()
            def greet() -> None:
                click.echo("hello")

    cli = click.Group()
    Plugins([("commands", Commands())]).hook.register_commands(cli=cli)
    assert CliRunner().invoke(cli, ["greet"]).output == "hello\n"

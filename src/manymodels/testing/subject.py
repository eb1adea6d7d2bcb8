"""The plugin that is checked: its sample artifact, its golden requests, and ways to ask it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from ..agreement import Disagreement
from ..artifact import Artifact
from ..context import Context, ModelSettings
from ..errors import ManyModelsError
from ..golden import Golden
from ..invocation import Answer, Invocation
from ..model import Model
from ..plugins import GROUP, Binding, Bound, PluginInfo, Plugins
from ..settings import load
from .outcome import Failed

#: Name of the sample artifact, as a TargetModel.
SAMPLE = "sample"
_GOLDEN = "golden.json"


@dataclass(frozen=True)
class Hooked:
    """What ``load`` returned, and the hooks it is given to."""

    hooks: Bound
    model: Any
    context: Context

    def decode(self, golden: Golden) -> tuple[Any, Context]:
        """Return what ``predict_fn`` is given for a request, and the request's context."""
        context = self.context.for_request(golden.invocation(), golden.accept)
        return self.hooks.input_fn(golden.body, golden.content_type, self.model, context), context

    def predict(self, data: Any, context: Context | None = None) -> Any:
        """Return the prediction."""
        return self.hooks.predict_fn(data, self.model, context or self.context)

    def encode(self, prediction: Any, context: Context) -> Answer:
        """Return the answer that a prediction is made into."""
        body, content_type = self.hooks.output_fn(prediction, self.model, context.accept, context)
        if isinstance(body, Iterator):
            body = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in body)
        content = body.encode() if isinstance(body, str) else bytes(body)
        return Answer(content, context.response_content_type or content_type, context.response_status)


class Subject:
    """A plugin among all that are installed, and the sample artifact it wrote."""

    def __init__(self, name: str, folder: Path, plugins: Plugins, left_out: Mapping[str, str]) -> None:
        """Take what `write_sample` wrote to the folder before.

        :param left_out: modules of its `warm_up_imports` that were not imported, with the reason.
        """
        self.name = name
        self.folder = folder
        self.plugins = plugins
        self.left_out = left_out
        self.settings: ModelSettings = load(multi_model=True).model_settings()
        self._samples = folder.parent / "samples"
        #: The sample artifact; read only.
        self.path = self._samples / name / SAMPLE
        content = (self.path.parent / _GOLDEN).read_bytes() if self.path.exists() else b"[]"
        self.golden: Sequence[Golden] = msgspec.json.decode(content, type=list[Golden])

    def write_sample(self) -> None:
        """Have the plugin write its sample artifact.

        :raises Failed: if it writes none, or no requests for it.
        """
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.sample_of(self.name)

    def sample_of(self, name: str) -> Path:
        """Return the sample of a plugin, which those who checked it before may have left.

        :raises Failed: if it writes none, or no requests for it.
        """
        path = self._samples / name
        if not path.exists():
            new = self.scratch()
            golden = _write_sample(name, new / SAMPLE)
            (new / _GOLDEN).write_bytes(msgspec.json.encode(golden))
            self._samples.mkdir(exist_ok=True)
            new.rename(path)
        return path / SAMPLE

    @property
    def distribution(self) -> metadata.Distribution:
        """The distribution that the plugin is of."""
        for entry in metadata.entry_points(group=GROUP):
            if entry.name == self.name and entry.dist is not None:
                return entry.dist
        raise Failed(f"no installed distribution has an entry point {self.name!r} in the group {GROUP!r}")

    @property
    def others(self) -> list[PluginInfo]:
        """All other installed plugins."""
        return [plugin for plugin in self.plugins.describe() if plugin.name != self.name]

    @property
    def binding(self) -> Binding:
        """Who serves the sample; that it is this plugin has a check of its own."""
        return self.plugins.bind(self.artifact(), self.settings)

    def artifact(self, path: Path | None = None) -> Artifact:
        """Return the sample, or what is at another path, as an artifact."""
        return Artifact(path or self.path, SAMPLE)

    def copy(self) -> Path:
        """Return a new copy of the sample's folder."""
        return Path(shutil.copytree(self.path, self.scratch() / SAMPLE))

    def scratch(self) -> Path:
        """Return a new empty folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def model(self, path: Path | None = None) -> Model:
        """Load the sample, or what is at another path in its place, as a worker does."""
        return Model(self.artifact(path), self.binding, self.plugins, self.settings)

    def hooked(self) -> Hooked:
        """Load the sample by the plugin's hooks alone, without what the platform does around them."""
        binding, artifact = self.binding, self.artifact()
        hooks = self.plugins.bound(binding.plugin, wrappers=False)
        context = Context(
            SAMPLE,
            str(artifact.path),
            settings=self.settings,
            options=artifact.manifest.settings,
            framework=self.plugins.bound(binding.framework, wrappers=False) if binding.framework else None,
        )
        return Hooked(hooks, hooks.load(artifact, context), context)

    def check_all(self, model: Model, when: str = "") -> None:
        """Ask every golden request, each alone.

        :raises Failed: if an answer is not the expected one.
        """
        for number, golden in enumerate(self.golden):
            check_answer(f"request {number} ({golden.content_type}){when}", golden, ask(model, golden.invocation()))


def alone(name: str) -> Plugins:
    """Return an installed plugin without all others."""
    return Plugins.installed({entry.name for entry in metadata.entry_points(group=GROUP)} - {name})


def _write_sample(name: str, path: Path) -> Sequence[Golden]:
    """Have a plugin write its sample artifact to a new folder; return the golden requests.

    :raises Failed: if it writes none, or no requests for it.
    """
    path.mkdir()
    golden: Sequence[Golden] | None = alone(name).hook.sample_artifact(path=path)
    if golden is None:
        raise Failed(f"the plugin {name!r} has no hook sample_artifact, which writes what it is checked with")
    if not any(path.iterdir()):
        raise Failed(f"sample_artifact of {name!r} wrote nothing into the folder")
    if not golden:
        raise Failed(f"sample_artifact of {name!r} returned no requests")
    return golden


def ask(model: Model, invocation: Invocation) -> Answer | ManyModelsError:
    """Return the answer to one invocation, or the error it ended with."""
    (result,) = model.invoke([invocation])
    return result


def check_answer(what: str, golden: Golden, result: Answer | ManyModelsError) -> None:
    """Compare an answer with the expected one.

    :raises Failed: if it is another, or an error.
    """
    if isinstance(result, ManyModelsError):
        raise Failed(f"{what} is answered with {type(result).__name__}: {result}")
    try:
        golden.check(result)
    except Disagreement as error:
        shown = result.body[:80].decode("utf-8", "replace")
        raise Failed(f"{what} is answered with {shown!r}: {error}") from error

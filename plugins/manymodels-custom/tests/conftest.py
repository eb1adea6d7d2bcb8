"""Artifacts made of scripts, a small framework to stand below them, and a check that nothing leaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import manymodels_custom
import pytest

from manymodels import Accelerated, Artifact, Context, Field, ModelSettings, Plugins, Schema, hookimpl
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

Ask = Callable[..., Answer]
Serve = Callable[..., Model]


class Joined:
    """Joins lists of numbers and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]]:
        self.calls += 1
        return [value for values in data for value in values], [len(values) for values in data]

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        return [[prediction.pop(0) for _ in range(count)] for count in counts]


class Toy:
    """A framework: ``model.toy`` holds a factor. Bodies are numbers between spaces, answers too."""

    def __init__(self) -> None:
        self.joined = Joined()
        self.unloaded: list[Any] = []

    @hookimpl
    def claim(self, artifact: Artifact) -> str | None:
        return "toy" if artifact.match("*.toy") else None

    @hookimpl
    def load(self, artifact: Artifact, context: Context) -> Any:
        return {"factor": float((artifact.path / artifact.match("*.toy")[0]).read_text())}

    @hookimpl
    def input_fn(self, body: bytes) -> Any:
        return [float(word) for word in body.split()]

    @hookimpl
    def predict_fn(self, data: Any, model: Any) -> Any:
        return [value * model["factor"] for value in data]

    @hookimpl
    def output_fn(self, prediction: Any, accept: str) -> Any:
        return " ".join(map(str, prediction)), "text/toy"

    @hookimpl
    def accelerate(self, model: Any) -> Accelerated:
        def predict(data: Any) -> Any:
            import utils  # type: ignore[import-not-found]  # the artifact's own

            return [value * model["factor"] for value in data] if utils else None

        return Accelerated("quick", predict, [[1.0]])

    @hookimpl
    def schema(self) -> Schema:
        return Schema(inputs=(Field(name="x", type="number"),), outputs=(Field(name="y", type="number"),))

    @hookimpl
    def batch(self) -> Joined:
        return self.joined

    @hookimpl
    def unload(self, model: Any) -> None:
        self.unloaded.append(model)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def plugins(toy: Toy) -> Plugins:
    return Plugins([("custom", manymodels_custom), ("toy", toy)])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Artifact]:
    """Write an artifact: its name, and the content of its files by name."""

    def make(files: dict[str, str | bytes], name: str = "model") -> Artifact:
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Artifact(tmp_path / name)

    return make


@pytest.fixture
def serve(make: Callable[..., Artifact], plugins: Plugins) -> Serve:
    """Load an artifact as a worker does."""

    def serve(files: dict[str, str | bytes], name: str = "model", **settings: Any) -> Model:
        artifact = make(files, name)
        chosen = ModelSettings(**settings)
        return Model(artifact, plugins.bind(artifact, chosen), plugins, chosen)

    return serve


@pytest.fixture
def ask() -> Ask:
    """Send one invocation; an error is raised."""

    def ask(model: Model, body: bytes = b"", content_type: str | None = None, **fields: Any) -> Answer:
        (answer,) = model.invoke([Invocation(body, content_type, **fields)])
        if isinstance(answer, Answer):
            return answer
        raise answer

    return ask


@pytest.fixture(autouse=True)
def process_is_as_before(tmp_path: Path) -> Iterator[None]:
    def state() -> tuple[Any, ...]:
        return Path.cwd(), list(sys.path), list(sys.meta_path), sys.dont_write_bytecode

    before = state()
    yield
    assert state() == before
    inside = str(tmp_path) + os.sep
    own = [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(inside)]
    assert not own
    assert not {"inference", "utils", "serve"} & sys.modules.keys()
    assert not list(tmp_path.rglob("__pycache__"))

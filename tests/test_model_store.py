"""The sample model store: its recipes, and that every sample answers as its README says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from sklearn.datasets import load_breast_cancer

from manymodels.cli.parts import create_server, open_store
from manymodels.cli.samples import find_sample
from manymodels.endpoint import Endpoint
from manymodels.invocation import Invocation
from manymodels.plugins import Plugins
from manymodels.server import ModelDescription
from manymodels.settings import load
from manymodels.store import DiskCache, Store

STORE = Path(__file__).parent.parent / "model_store"
ARTIFACTS = ["breast_cancer.ubj", "diabetes.tar.gz", "house", "iris.tar.gz", "shops/berlin.tar.gz", "wine"]


def build(folder: Path) -> str:
    command = [sys.executable, "-W", "error", str(STORE / "build.py"), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def open_(folder: Path, cache: Path) -> Store:
    return open_store(folder, DiskCache(cache), load(), Plugins.installed())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    assert build(folder).count(" ... trained in ") == len(ARTIFACTS)
    return folder


@pytest.fixture(scope="module")
def answers(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answer of every model to its sample."""
    settings = load(workers=1)
    plugins = Plugins.installed()
    store = open_store(built, DiskCache(tmp_path_factory.mktemp("cache")), settings, plugins)
    endpoint = Endpoint(store, create_server(settings, {}), plugins, settings)
    found: dict[str, Any] = {}

    async def ask() -> list[ModelDescription]:
        await endpoint.start()
        try:
            for name in ARTIFACTS:
                sample = find_sample(store.open(store.find(name)))
                # A bare file has no room for a sample.
                rows = orjson.dumps(load_breast_cancer().data[:3].tolist())
                answer = await endpoint.invoke(name, Invocation(sample.read_bytes() if sample else rows))
                assert answer.status == 200
                found[name] = orjson.loads(answer.body)
            return endpoint.models()
        finally:
            await endpoint.stop()

    found["models"] = {model.name: model for model in asyncio.run(ask())}
    return found


def test_recipes_make_the_artifacts_the_readme_lists(built: Path, tmp_path: Path) -> None:
    listed = re.findall(r"^\| `([^`]+)` \| (?:scikit-learn|XGBoost)", (STORE / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == ARTIFACTS == list(open_(built, tmp_path).list())
    assert sorted(path.name for path in built.iterdir()) == sorted({name.split("/")[0] for name in ARTIFACTS})


def test_only_missing_models_are_trained(built: Path, tmp_path: Path) -> None:
    for name in ("iris.tar.gz", "wine", "house", "breast_cancer.ubj", "shops"):
        (tmp_path / name).symlink_to(built / name)
    lines = build(tmp_path).splitlines()
    assert [line for line in lines if "trained" in line] == [line for line in lines if "diabetes" in line] != []
    assert lines.count("iris ... there already") == 1


def test_recipes_are_no_artifacts(tmp_path: Path) -> None:
    assert set(open_(STORE, tmp_path).list()) <= set(ARTIFACTS)


def test_the_same_training_data_makes_the_same_archive(built: Path, tmp_path: Path) -> None:
    build(tmp_path)
    assert (tmp_path / "iris.tar.gz").read_bytes() == (built / "iris.tar.gz").read_bytes()


def test_each_model_has_the_plugin_the_readme_says(answers: dict[str, Any]) -> None:
    plugins = {name: (model.plugin, model.framework, *model.notes) for name, model in answers["models"].items()}
    assert plugins == {
        "breast_cancer.ubj": ("xgboost", None),
        "diabetes.tar.gz": ("sklearn", None),
        "house": ("custom", "sklearn"),
        "iris.tar.gz": ("sklearn", None),
        "shops/berlin.tar.gz": ("sklearn", None),
        "wine": ("sklearn", None),
    }


def test_answers_are_those_of_the_training_data(answers: dict[str, Any]) -> None:
    iris = answers["iris.tar.gz"]
    assert iris["predictions"] == [0]
    assert iris["model_metadata"] == {"n_features": 4, "n_classes": 3, "train_accuracy": 0.9733}
    assert answers["wine"] == [0, 0]
    # The sample is a house of 120 square metres, 4 rooms and 15 years; the prices of the recipe.
    assert answers["house"]["prices"] == pytest.approx([20_000 + 120 * 3_000 + 4 * 8_000 - 15 * 900], rel=0.01)
    assert answers["house"]["currency"] == "EUR"
    assert answers["shops/berlin.tar.gz"] == pytest.approx([np.exp(4 + 5 * 0.05 + 21.5 * 0.01)], rel=0.05)
    assert answers["diabetes.tar.gz"] == pytest.approx([151, 75], rel=0.5)
    scores = [row["score"] for row in answers["breast_cancer.ubj"]["predictions"]]
    assert np.round(scores).tolist() == load_breast_cancer().target[:3].tolist()

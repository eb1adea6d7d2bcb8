"""The distributions: their files, versions and entry points, and which way imports point."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import manymodels

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/setup.cfg"))
HANDLERS = sorted(path.parent for path in ROOT.glob("handlers/*/setup.cfg"))
#: Distributions to learn from, which nothing installs.
EXAMPLES = sorted(path.parent for path in ROOT.glob("plugins/examples/*/setup.cfg"))
#: What a framework is known by; none may be needed to install the core.
FRAMEWORKS = (
    "scikit-learn",
    "sklearn",
    "xgboost",
    "lightgbm",
    "onnxruntime",
    "catboost",
    "mlflow",
    "skops",
    "joblib",
    "pandas",
    "scipy",
    "torch",
    "sagemaker",
    "mms",
)


def config(folder: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(folder / "setup.cfg")
    return parser


each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
each_part = pytest.mark.parametrize("folder", [*PLUGINS, *HANDLERS, *EXAMPLES], ids=lambda folder: folder.name)
each_distribution = pytest.mark.parametrize("folder", [ROOT, *PLUGINS, *HANDLERS], ids=lambda folder: folder.name)


def test_plugins_are_found() -> None:
    assert {folder.name for folder in PLUGINS} >= {"manymodels-sklearn", "manymodels-xgboost", "manymodels-custom"}
    found = {path.name for path in ROOT.glob("plugins/*") if path.is_dir()}
    assert found == {"examples", *(folder.name for folder in PLUGINS)}
    assert {folder.name for folder in EXAMPLES} == {"manymodels-drift", "manymodels-recorder"}


@each_distribution
def test_versions_agree(folder: Path) -> None:
    attribute = config(folder)["metadata"]["version"].removeprefix("attr: ")
    module, _, name = attribute.rpartition(".")
    assert getattr(importlib.import_module(module), name) == manymodels.__version__
    assert metadata.version(config(folder)["metadata"]["name"]) == manymodels.__version__


def test_version_is_in_the_changelog() -> None:
    assert f"\n## {manymodels.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_examples_import_public_names_only(folder: Path) -> None:
    public = {"manymodels", "manymodels.errors", "manymodels.codecs", "manymodels.golden"}
    imported = set()
    for path in folder.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
    assert "manymodels" in imported
    assert {name for name in imported if name.partition(".")[0] == "manymodels"} <= public
    assert {name.partition(".")[0] for name in imported}.isdisjoint(FRAMEWORKS)


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS, *HANDLERS, *EXAMPLES], ids=lambda folder: folder.name)
def test_metadata(folder: Path) -> None:
    parsed = config(folder)
    assert parsed["metadata"]["license"] == "Apache-2.0"
    assert parsed["metadata"]["long_description"] == "file: README.md"
    assert parsed["options"]["package_dir"].strip() == "= src"
    assert parsed["options"]["python_requires"] == config(ROOT)["options"]["python_requires"]
    (package,) = (path.parent.name for path in folder.glob("src/*/__init__.py"))
    assert parsed["options.package_data"][package] == "py.typed"
    assert (folder / "src" / package / "py.typed").exists()
    assert (folder / "README.md").stat().st_size > 0


@each_part
def test_part_is_laid_out_like_the_others(folder: Path) -> None:
    # A [project] table would make pip ignore setup.cfg.
    tables = re.findall(r"^\[(.*)\]$", (folder / "pyproject.toml").read_text(), re.MULTILINE)
    assert tables == ["build-system"]
    assert config(folder)["metadata"]["name"] == folder.name
    assert list(folder.glob("tests/test_*.py"))
    assert not list(folder.glob("tests/__init__.py")), "equal names would meet"


@each_distribution
def test_entry_points_can_be_imported(folder: Path) -> None:
    declared = {
        (group, name.strip(), value.strip())
        for group, lines in config(folder).items("options.entry_points")
        for name, value in (line.split("=") for line in lines.strip().splitlines())
    }
    installed = metadata.distribution(config(folder)["metadata"]["name"]).entry_points
    assert {(entry.group, entry.name, entry.value) for entry in installed} == declared
    for entry in installed:
        assert entry.load() is not None


@each_plugin
def test_plugin_is_named_like_its_distribution(folder: Path) -> None:
    (line,) = config(folder)["options.entry_points"]["manymodels"].strip().splitlines()
    name, module = map(str.strip, line.split("="))
    assert folder.name == f"manymodels-{name}", "error messages say: pip install manymodels-NAME"
    assert module == f"manymodels_{name}"


def test_extras_name_every_plugin() -> None:
    extras = config(ROOT)["options.extras_require"]
    assert set(extras["all"].split()) == {folder.name for folder in PLUGINS}
    for folder in PLUGINS:
        assert extras[folder.name.removeprefix("manymodels-")] == folder.name


def test_core_requires_no_framework() -> None:
    required = config(ROOT)["options"]["install_requires"].lower()
    assert [name for name in FRAMEWORKS if name in required] == []


def test_core_imports_no_framework() -> None:
    code = "import sys; from manymodels.cli import *; [command(name) for name in COMMANDS]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "manymodels" in imported
    assert imported.isdisjoint(FRAMEWORKS)


def test_commands_import_what_they_need() -> None:
    """Who starts a server, or asks one, does not wait for the imports of what is not asked for."""
    code = "import sys; from manymodels.cli import command; command(sys.argv[1]); print(*sys.modules)"

    def imported(name: str) -> set[str]:
        done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    others = {"fsspec", "botocore", "cryptography"}
    parts = {f"manymodels.{part}" for part in ("emulation", "store.exchange", "testing", "training")}
    assert imported("serve").isdisjoint(others | parts | {"httpx", "rich"})
    parts |= {f"manymodels.{part}" for part in ("endpoint", "http", "server", "settings", "store")}
    assert imported("models").isdisjoint(others | parts | {"pydantic", "uvloop"})


def test_front_imports_no_framework_with_the_plugins() -> None:
    code = "import sys; from manymodels import Plugins; print(*Plugins.installed().names); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = done.stdout.splitlines()
    assert set(names.split()) >= {folder.name.removeprefix("manymodels-") for folder in PLUGINS}
    assert {name.partition(".")[0] for name in modules.split()}.isdisjoint(FRAMEWORKS)


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_of_the_core_has_a_layer() -> None:
    layers = config(ROOT)["importlinter:contract:layers"]["layers"]
    placed = set(re.findall(r"manymodels\.(\w+)", layers))
    found = {path.stem for path in (ROOT / "src" / "manymodels").glob("*.py")}
    found |= {path.parent.name for path in (ROOT / "src" / "manymodels").glob("*/__init__.py")}
    assert found - placed <= {"__init__", "__main__"}


def test_files_are_small() -> None:
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("[ph]*/**/src/**/*.py"), *ROOT.glob("docs/*.py")]
    assert len(sources) > 50
    assert {str(path): lines for path in sources if (lines := len(path.read_text().splitlines())) > 500} == {}


def test_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert config(ROOT)["metadata"]["license_files"] == "LICENSE"

"""The documentation says what the code does: nothing public is undocumented, no link leads nowhere."""

from __future__ import annotations

import inspect
import re
import runpy
import sys
from pathlib import Path

import pytest
from pluggy import HookCaller

import manymodels
from manymodels import Plugins, errors
from manymodels.cli import COMMANDS, command
from manymodels.metrics.exposition import DEFINITIONS, Definition
from manymodels.settings import Settings, variables

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS.glob("*.md"),
    *ROOT.glob("plugins/**/README.md"),
    *ROOT.glob("*/README.md"),
]
HOOKS: dict[str, HookCaller] = {
    name: caller for name, caller in vars(Plugins().hook).items() if isinstance(caller, HookCaller)
}


def page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="some defaults are those of Linux")
def test_reference_pages_are_generated() -> None:
    for name, content in runpy.run_path(str(DOCS / "generate.py"))["documents"]().items():
        assert page(name) == content, f"docs/{name} is out of date; run: make docs"


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented(name: str) -> None:
    spec = HOOKS[name].spec
    assert spec is not None
    signature = str(inspect.signature(spec.function)).replace("'", "")
    assert f"\ndef {name}{signature}: ..." in page("hooks.md")
    documented = re.findall(r":param (\w+):", inspect.getdoc(spec.function) or "")
    assert documented == list(spec.argnames), "every argument of a hook is explained, in order"


def test_there_are_hooks() -> None:
    assert HOOKS.keys() >= {"claim", "load", "predict_fn"}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|.*$", page("settings.md"), re.MULTILINE)
    assert row is not None
    assert Settings.model_fields[name].description
    for shown in (f"`--{name.replace('_', '-')}`", *(f"`{variable}`" for variable in variables(name))):
        assert shown in row[0]


@pytest.mark.parametrize("name", errors.BY_NAME)
def test_error_is_documented(name: str) -> None:
    tree, statuses, remedies = re.split("^## (?:Statuses|What to do)$", page("errors.md"), flags=re.MULTILINE)
    error = errors.BY_NAME[name]
    assert re.search(rf"\b{name} +{error.status}\b", tree), "the tree of errors.py shows the class and its status"
    assert re.search(rf"^\| `{name}` \| {error.status} \|.* {error.aws[0]} {error.aws[1]}", statuses, re.MULTILINE)
    assert re.search(rf"^\| `{name}` \| \S.* \| \S.* \|$", remedies, re.MULTILINE)


@pytest.mark.parametrize("metric", DEFINITIONS, ids=lambda metric: metric.name)
def test_metric_is_documented_and_tested(metric: Definition) -> None:
    assert re.search(
        rf"^\| `{metric.name}` \| \w+ \| .*\| {re.escape(metric.help)} \|$", page("metrics.md"), re.MULTILINE
    )
    tests = (ROOT / "tests" / "test_metrics_serve.py").read_text()
    assert re.search(rf'"{metric.name.removeprefix("manymodels_")}(_count|_sum|_bucket)?"', tests)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    section = page("cli.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"Usage: manymodels {name}" in section
    for parameter in command(name).params:
        for option in parameter.opts:
            assert (option if option.startswith("-") else option.upper()) in section


def test_public_names() -> None:
    assert manymodels.__all__ == sorted(manymodels.__all__)
    public = {name for name, value in vars(manymodels).items() if not (name.startswith("_") or inspect.ismodule(value))}
    assert set(manymodels.__all__) == public
    text = page("hooks.md") + page("writing-a-plugin.md")
    for name in manymodels.__all__:
        assert re.search(rf"\b{name}\b", text), f"{name} is public and in no page for plugin writers"
        value = getattr(manymodels, name)
        assert not inspect.isclass(value) or inspect.getdoc(value)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} leads nowhere"
        assert linked.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for path in (*DOCS.glob("*.md"), *ROOT.glob("plugins/**/README.md")):
        assert f"]({path.relative_to(ROOT)})" in text

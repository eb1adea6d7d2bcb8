"""The command that writes a new plugin."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from string import Template

import click

from ..plugins import installed

#: Where each template goes.
_FILES = {
    "setup.cfg": "setup.cfg",
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "plugin.py": "src/{module}/__init__.py",
    "test_plugin.py": "tests/test_plugin.py",
    "test_conformance.py": "tests/test_conformance.py",
    "test.yml": ".github/workflows/test.yml",
}


@click.command("new-plugin")
@click.argument("name", required=False)
@click.option("--pattern", metavar="PATTERN", help="Names of the model files it claims.  [default: *.NAME]")
@click.option("--framework", metavar="MODULE", help="Module of the framework that it imports; none unless given.")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    help="Folder in which manymodels-NAME is made.  [default: the current one]",
)
def new_plugin(name: str | None, pattern: str | None, framework: str | None, into: Path) -> None:
    """Write the distribution of a new plugin.

    It is a folder manymodels-NAME with a plugin that works, for a small format that is to be replaced, its tests and a
    workflow for CI. On a terminal it asks for what is not given.
    """
    if sys.stdin.isatty():
        name = name or click.prompt("Name of the plugin")
        pattern = pattern or click.prompt("Names of its model files", default=f"*.{name}")
        if framework is None:
            framework = click.prompt("Module of its framework", default="", show_default=False)
    if not name:
        raise click.MissingParameter(param_hint="'NAME'", param_type="argument")
    pattern = pattern or f"*.{name}"
    _check(name, pattern, framework or "")
    folder = into / f"manymodels-{name}"
    if folder.exists():
        raise click.ClickException(f"{str(folder)!r} exists; remove it, or choose another name")
    for path, content in _render(name, pattern, framework or "").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    click.echo(f"{folder} holds a plugin that works; what to replace is marked in it. Next:")
    click.echo(f"  pip install -e '{folder}[test]'\n  pytest {folder}\n  manymodels verify-plugin {name}")


def _check(name: str, pattern: str, framework: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 50:
        raise click.BadParameter(
            f"{name!r} is no name: lower-case letters, digits and single dashes, first a letter", param_hint="NAME"
        )
    if any(entry.name == name for entry in installed()):
        raise click.BadParameter(f"a plugin {name!r} is installed already", param_hint="NAME")
    if not re.fullmatch(r"[\w.-]*\*[\w.-]+|[\w.-]+\*", pattern, re.ASCII) or pattern.startswith("."):
        raise click.BadParameter(f"{pattern!r} is no pattern of file names such as *.{name}", param_hint="--pattern")
    parts = framework.split(".") if framework else []
    if not all(part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise click.BadParameter(f"{framework!r} is no name of a module", param_hint="--framework")


def _render(name: str, pattern: str, framework: str) -> dict[str, str]:
    """Return the content of each file by its path."""
    module = f"manymodels_{name.replace('-', '_')}"
    values = {
        "name": name,
        "module": module,
        "pattern": pattern,
        "sample": pattern.replace("*", "model"),
        "framework": framework,
        "requirement": f"\n    {framework.partition('.')[0]}" if framework else "",
        "load_import": f"    import {framework}  # noqa: F401 - here, so that the front process need not\n\n"
        if framework
        else "",
    }
    values["warm_up"] = _template("warm_up.py").substitute(values) if framework else ""
    files = {path.format(module=module): _template(source).substitute(values) for source, path in _FILES.items()}
    return files | {f"src/{module}/py.typed": ""}


def _template(name: str) -> Template:
    return Template((resources.files(__package__) / "plugin" / f"{name}.txt").read_text())

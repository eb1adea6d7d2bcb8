"""Commands that show what is installed and set."""

from __future__ import annotations

import click
import msgspec

from ..plugins import Plugins
from ..settings import Settings, load, source, variables
from .options import display
from .output import as_json_option, print_json, print_table


@click.command()
@as_json_option
def plugins(*, as_json: bool) -> None:
    """Show the installed plugins and their hooks."""
    found = Plugins.installed(load().block_plugins).describe()
    if as_json:
        print_json(msgspec.to_builtins(found))
    elif not found:
        click.echo("no plugin is installed; for scikit-learn: pip install manymodels-sklearn")
    else:
        rows = [(plugin.name, plugin.version, plugin.distribution, ", ".join(plugin.hooks)) for plugin in found]
        print_table(("Plugin", "Version", "Distribution", "Hooks"), rows)


@click.command()
@as_json_option
def settings(*, as_json: bool) -> None:
    """Show all settings and where they come from."""
    current = load()
    if as_json:
        content = [
            {"name": name, "value": value, "source": source(name, {}), "variables": variables(name)}
            for name, value in current.model_dump(mode="json").items()
        ]
        print_json(content)
        return
    rows = [
        (name, display(getattr(current, name)), source(name, {}), "\n".join(variables(name)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    print_table(("Setting", "Value", "Source", "Variables", "Meaning"), rows)

"""The command line."""

from __future__ import annotations

import importlib
import sys

import click

from .. import __version__
from ..errors import ManyModelsError, PluginError, SettingsError

__all__ = ["COMMANDS", "cli", "command", "main"]

#: The platform's commands: the module of each, which is imported once it is asked for, and the name in that.
COMMANDS = {
    "check": ("local", "check"),
    "environments": ("environments", "environments"),
    "evictions": ("client", "evictions"),
    "invoke": ("client", "invoke"),
    "models": ("client", "models"),
    "names": ("names", "names"),
    "new-plugin": ("new_plugin", "new_plugin"),
    "package": ("local", "package"),
    "plugins": ("show", "plugins"),
    "replay": ("replay", "replay"),
    "scan": ("scan", "scan_command"),
    "serve": ("serve", "serve"),
    "settings": ("show", "settings"),
    "train": ("train", "train"),
    "verify-plugin": ("verify", "verify_plugin"),
}


def command(name: str) -> click.Command:
    """Return a command of the platform."""
    module, attribute = COMMANDS[name]
    found: click.Command = getattr(importlib.import_module(f".{module}", __name__), attribute)
    return found


class _Group(click.Group):
    """The platform's commands, and those of plugins, which are imported only once they matter."""

    _asked = False

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; a plugin cannot replace the platform's."""
        if cmd_name in COMMANDS:
            return command(cmd_name)
        self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands; a broken plugin leaves those of the platform."""
        try:
            self._ask_plugins()
        except ManyModelsError as error:
            click.echo(f"Warning: commands of plugins are missing: {error}\n", err=True)
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        from ..plugins import Plugins
        from ..settings import load

        installed = Plugins.installed(load().block_plugins)
        try:
            installed.hook.register_commands(cli=self)
        except Exception as error:
            raise PluginError(f"a plugin's register_commands failed ({type(error).__name__}: {error})") from error


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  manymodels serve model_store
  manymodels invoke iris.tar.gz '{"features": [[5.1, 3.5, 1.4, 0.2]]}'

Settings are flags of serve, or environment variables: see 'manymodels settings'.""",
)
@click.version_option(__version__, prog_name="manymodels")
def cli() -> None:
    """Serve thousands of small models, each named by TargetModel and loaded on demand."""


def main() -> None:
    """Run the command line; errors are one line on standard error, 2 for what was asked wrongly, else 1."""
    try:
        cli()
    except ManyModelsError as error:
        click.echo("Error: " + " ".join(str(error).splitlines()), err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)

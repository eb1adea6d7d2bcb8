"""The command line."""

from __future__ import annotations

import sys

import click

from .. import __version__
from ..errors import ManyModelsError, PluginError, SettingsError
from ..plugins import Plugins
from ..settings import load
from .client import evictions, invoke, models
from .environments import environments
from .local import check, package
from .names import names
from .new_plugin import new_plugin
from .replay import replay
from .scan import scan_command
from .serve import serve
from .show import plugins, settings
from .train import train
from .verify import verify_plugin

__all__ = ["cli", "main"]


class _Group(click.Group):
    """The platform's commands, and those of plugins, which are imported only once they matter."""

    _asked = False

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands; a broken plugin leaves those of the platform."""
        try:
            self._ask_plugins()
        except ManyModelsError as error:
            click.echo(f"Warning: commands of plugins are missing: {error}\n", err=True)
        return super().list_commands(ctx)

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        own = dict(self.commands)
        installed = Plugins.installed(load().block_plugins)
        try:
            installed.hook.register_commands(cli=self)
        except Exception as error:
            raise PluginError(f"a plugin's register_commands failed ({type(error).__name__}: {error})") from error
        finally:
            self.commands.update(own)


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


for _command in (
    *(check, environments, evictions, invoke, models, names, package, plugins, replay, scan_command, serve, settings),
    *(new_plugin, train, verify_plugin),
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; errors are one line on standard error, 2 for what was asked wrongly, else 1."""
    try:
        cli()
    except ManyModelsError as error:
        click.echo("Error: " + " ".join(str(error).splitlines()), err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)

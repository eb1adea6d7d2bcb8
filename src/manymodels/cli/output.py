"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import orjson

#: Columns of a table that goes to a file or a pipe, where no line has to be broken.
PIPE_WIDTH = 240

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(content: Any) -> None:
    """Print JSON, in colour on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console  # imported where it is used: programs ask for JSON, and serve prints none

        Console().print_json(data=content, ensure_ascii=False)
    else:
        click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; cells are taken as plain text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / (1 << 10):.1f} KiB"

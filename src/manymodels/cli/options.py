"""Options of a command, made from the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from ..settings import Settings, variables

Command = TypeVar("Command", bound=Callable[..., Any])

_METAVARS = {int: "NUMBER", float: "SECONDS", ByteSize: "SIZE", Path: "FOLDER"}


def settings_options(command: Command) -> Command:
    """Add a flag for every setting; the command is given those that were set, the others as None.

    Values stay text and are checked with the settings, so that they are refused in the same words
    as those of environment variables.
    """
    return options_of(*Settings.model_fields)(command)


def options_of(*names: str) -> Callable[[Command], Command]:
    """Add flags for these settings, in the same way."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _option(name, Settings.model_fields[name])(command)
        return command

    return add


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag = "--" + name.replace("_", "-")
    notes = [f"env: {variables(name)[0]}"]
    if field.default not in (None, ()) and field.default_factory is None:
        notes.insert(0, f"default: {display(field.default)}")
    help_text = f"{field.description}  [{'; '.join(notes)}]"
    kind = field.annotation
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if get_origin(kind) is Literal:
        return click.option(flag, name, type=click.Choice(get_args(kind)), help=help_text)
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "metavar" in extra:
        return click.option(flag, name, metavar=str(extra["metavar"]), help=help_text)
    metavar = next((text for known, text in _METAVARS.items() if known in (kind, *get_args(kind))), "TEXT")
    return click.option(flag, name, metavar=metavar, help=help_text)


def display(value: Any) -> str:
    """Return a setting's value as it would be written."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, ByteSize):
        return value.human_readable()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)

"""Flag requests whose values lie outside of what a model was trained on.

A wrapper: it serves no model, and runs around ``load`` and ``input_fn`` of whatever plugin does. A model
is watched if its artifact holds ``training_ranges.json``, or if it says itself what its ranges are.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click

from manymodels import Artifact, Context, hookimpl

from ._ranges import RANGES, InvalidRanges, measured, of_model, read, written
from ._watch import Watch

__version__ = "0.1.0"

logger = logging.getLogger(__name__)

#: The reply header that names the columns and how many rows were outside.
HEADER = "X-Model-Drift"
#: The plugin's name, under which it keeps a model's `Watch` in ``context.state``.
_NAME = "drift"


@hookimpl(wrapper=True)
def load(artifact: Artifact, context: Context) -> Generator[None, Any, Any]:
    """Watch the model if its ranges are known; the model's description says whether they are."""
    model = yield
    try:
        ranges = read(artifact) or of_model(model)
    except InvalidRanges as error:
        context.note(f"drift is not watched: {error}")
    except Exception as error:
        logger.exception("the training ranges of %r cannot be told", context.target_model)
        context.note(f"drift is not watched: {type(error).__name__}, see the log")
    else:
        if ranges is not None:
            context.state[_NAME] = Watch(context.target_model, ranges)
            context.note(f"drift is watched in {len(ranges.columns)} columns")
    return model


@hookimpl(wrapper=True)
def input_fn(body: bytes, content_type: str | None, context: Context) -> Generator[None, Any, Any]:
    """Pass the data on, and name the columns that are outside of their ranges in a reply header.

    Around ``input_fn``, because ``predict_fn`` may be called once for several requests.
    """
    data = yield
    watch: Watch | None = context.state.get(_NAME)
    if watch is not None:
        outside = watch.look(data, body, content_type)
        if outside:
            context.response_headers[HEADER] = outside
    return data


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add ``drift-ranges``."""
    cli.add_command(_drift_ranges)


@click.command("drift-ranges")
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=RANGES, show_default=True)
@click.option("--drop", "dropped", multiple=True, metavar="COLUMN", help="Not an input of the model, as its target is.")
@click.option(
    "--quantiles",
    nargs=2,
    type=click.FloatRange(0, 1),
    default=(0.0, 1.0),
    show_default=True,
    help="Bounds of the numbers, such as 0.01 0.99 where the data has outliers.",
)
def _drift_ranges(data: Path, output: Path, dropped: tuple[str, ...], quantiles: tuple[float, float]) -> None:
    """Write the ranges of training data for a model's artifact.

    DATA is a CSV file with a header; its columns are those that the model takes, in their order.
    """
    if quantiles[0] >= quantiles[1]:
        raise click.BadParameter("the first must be less than the second", param_hint="--quantiles")
    ranges = measured(data.read_bytes(), dropped, quantiles)
    output.write_bytes(written(ranges))
    bare = [column.name for column in ranges.columns if not column.is_bounded]
    click.echo(f"{output} holds the ranges of {len(ranges.columns) - len(bare)} columns")
    if bare:
        click.echo(f"Warning: too many different texts, or no values: {', '.join(bare)}", err=True)

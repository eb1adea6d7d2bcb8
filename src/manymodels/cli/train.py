"""The command that trains."""

from __future__ import annotations

import sys

import click

from .. import log, training
from ..sagemaker import BASE_DIR
from ..settings import load, variables


@click.command()
@click.option(
    "--base-dir",
    metavar="FOLDER",
    help=f"SageMaker's folder.  [default: {BASE_DIR}; env: {', '.join(variables('base_dir'))}]",
)
def train(base_dir: str | None) -> None:
    """Train a model, as SageMaker's training containers do.

    Reads input/config and the channels in input/data of SageMaker's folder and writes model/. It runs the script that
    the hyperparameter sagemaker_program or SAGEMAKER_PROGRAM names, in code/ or the submit directory, or, without one,
    a plugin: sklearn's trains a GradientBoostingClassifier from CSV files. The exit code is the script's; why it failed
    is in output/failure.
    """
    settings = load(base_dir=base_dir)
    log.configure(settings.log_level, settings.log_format)
    failure = training.run(settings)
    if failure is not None:
        click.echo("Error: " + " ".join(failure.reason.splitlines()), err=True)
        sys.exit(failure.exit_code)

"""A script's functions: import it, and settle once how each is called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from manymodels.errors import LoadFailed

Function = Callable[..., Any]

#: SageMaker's functions and their arguments, each also with ``context`` as the last one.
ARGUMENTS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("input_data", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "input_data", "content_type", "accept"),
}


def import_script(script: Path, name: str) -> dict[str, Function]:
    """Import the script and return the functions it defines, each taking ``context`` as its last argument.

    Must run inside the model's scope.

    :param name: the script's name in messages.
    :raises LoadFailed: if a function has other arguments than the platform gives, or
        ``transform_fn`` stands beside one of the functions it replaces.
    """
    module = importlib.import_module(script.stem)
    if module.__file__ != str(script):
        raise LoadFailed(f"{name} cannot be imported, because {script.stem!r} is the name of another module; rename it")
    functions = {function: _settle(module, function, name) for function in ARGUMENTS if hasattr(module, function)}
    replaced = functions.keys() & {"input_fn", "predict_fn", "output_fn"}
    if "transform_fn" in functions and replaced:
        raise LoadFailed(
            f"{name} defines transform_fn, which stands for input_fn, predict_fn and output_fn, "
            f"and {' and '.join(sorted(replaced))} too; remove one or the other"
        )
    return functions


def _settle(module: ModuleType, function: str, name: str) -> Function:
    # By the number of parameters, whatever their names and kinds, as sagemaker-inference decides.
    arguments = ARGUMENTS[function]
    call: Function = getattr(module, function)
    count = len(inspect.signature(call).parameters)
    if count == len(arguments) + 1:
        return call
    if count == len(arguments):
        return lambda *args: call(*args[:-1])
    given = ", ".join(arguments)
    raise LoadFailed(
        f"{function} of {name} has {count} parameters; it is called as "
        f"{function}({given}) or {function}({given}, context)"
    )

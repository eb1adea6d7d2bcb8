"""A loaded ONNX model. Importing this module imports onnxruntime."""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from manymodels import Artifact, Context
from manymodels.errors import BadInput, LoadFailed

from . import _external
from ._inputs import Input

#: By ONNX's names of the types of values.
DTYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bool": np.bool_,
    "string": np.object_,
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
#: What ONNX Runtime raises for a file that it cannot make a model of.
_REFUSED = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
)
_ERRORS_ONLY = 4


@dataclass(frozen=True)
class OnnxModel:
    """A session of ONNX Runtime, and what it takes and gives."""

    session: onnxruntime.InferenceSession
    inputs: tuple[Input, ...]
    #: Names of the outputs that are answered.
    outputs: tuple[str, ...]
    #: Whether the first dimension of every input and output is the number of rows.
    by_rows: bool

    def predict(self, feed: dict[str, Any]) -> Any:
        """Return the only output, or a dict of all by name.

        :raises BadInput: where ONNX Runtime blames the input.
        """
        try:
            values = self.session.run(self.outputs, feed)
        except state.InvalidArgument as error:
            raise BadInput(f"the model refuses the input: {_sentence(error)}") from error
        return values[0] if len(values) == 1 else dict(zip(self.outputs, values, strict=True))


def load(artifact: Artifact, context: Context) -> OnnxModel:
    """Load the artifact's one model.

    :raises LoadFailed: if it holds none or several, refers to files outside of the artifact, or cannot be run.
    """
    found = artifact.match("*.onnx")
    if len(found) != 1:
        raise LoadFailed(
            f"{artifact.name!r} holds several ONNX models ({', '.join(found)}); keep one"
            if found
            else f"{artifact.name!r} holds no ONNX model; name it model.onnx"
        )
    what = f"{found[0]!r} of {artifact.name!r}"
    path = artifact.path / found[0]
    _check(artifact, path, what)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = context.settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _REFUSED as error:
        # ONNX Runtime tells the file's path, which is nobody's business.
        reason = _sentence(error).replace(str(path), found[0]).replace(str(artifact.path), "")
        raise LoadFailed(f"{what} cannot be run by ONNX Runtime {onnxruntime.__version__}: {reason}") from error
    inputs = tuple(_input(argument, what) for argument in session.get_inputs())
    outputs = _outputs(session, context)
    return OnnxModel(session, inputs, tuple(output.name for output in outputs), _by_rows(inputs, outputs))


def _check(artifact: Artifact, path: Path, what: str) -> None:
    """Check that the file is protobuf, and that all data it refers to is in the artifact."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        locations = _external.locations(memoryview(content))
    except ValueError as error:  # mmap's too, for an empty file
        raise LoadFailed(f"{what} is no ONNX model: {error}") from error
    root = artifact.path.resolve()
    for location in sorted(locations):
        if posixpath.normpath(location) not in artifact.files or not (root / location).resolve().is_relative_to(root):
            raise LoadFailed(f"{what} refers to data in {location[:80]!r}, which is no file of the artifact")


def _input(argument: Any, what: str) -> Input:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    if kind not in DTYPES:
        raise LoadFailed(f"{what} takes {argument.name!r} as {argument.type}, which cannot be sent")
    return Input(argument.name, np.dtype(DTYPES[kind]), tuple(argument.shape))


def _outputs(session: onnxruntime.InferenceSession, context: Context) -> list[Any]:
    """Return the outputs that the artifact's setting ``outputs`` names, all without it."""
    offered = {output.name: output for output in session.get_outputs()}
    wanted = context.options.get("outputs", list(offered))
    if not isinstance(wanted, list) or not wanted:
        raise LoadFailed(f"the setting 'outputs' of {context.target_model!r} must be a list of names")
    for name in wanted:
        if name not in offered:
            raise LoadFailed(
                f"the setting 'outputs' of {context.target_model!r} names {name!r}; the model has {', '.join(offered)}"
            )
    return [offered[name] for name in wanted]


def _by_rows(inputs: Sequence[Input], outputs: Sequence[Any]) -> bool:
    """Say whether all first dimensions are open and of one name, where they have names.

    A sequence of maps, the probabilities of scikit-learn's classifiers by their class, has one for each row.
    """
    shapes = [one.shape for one in inputs]
    shapes += [tuple(output.shape) for output in outputs if not output.type.startswith("seq(map(")]
    if not all(shapes):
        return False
    first = {shape[0] for shape in shapes}
    return not any(isinstance(size, int) for size in first) and len(first - {None}) <= 1


def _sentence(error: BaseException) -> str:
    """Return ONNX Runtime's message without its name, code and lines."""
    text = " ".join(str(error).split())
    return text.rpartition("[ONNXRuntimeError] : ")[2].partition(" : ")[2].partition(" : ")[2][:300] or text[:300]

"""A model with a script: who answers which part of an invocation."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manymodels import Accelerated, Artifact, Batch, Context, Schema, codecs
from manymodels.errors import LoadFailed, ManyModelsError, PredictionFailed

from .location import find_script
from .scope import Scope
from .script import import_script

logger = logging.getLogger(__name__)

#: Bodies that a script is given as str, as sagemaker-inference does.
_TEXT = ("application/json", "text/csv")


class ScriptModel:
    """A script's functions, the model they work on, and the framework for what they leave out.

    The framework predicts, and then decodes and encodes too, only for a model that it loaded
    itself and that the script does not predict with.
    """

    def __init__(self, artifact: Artifact, context: Context) -> None:
        """Import the script and load the model.

        :raises LoadFailed: if either fails, or if nobody loads or nobody predicts.
        """
        self._target = artifact.name
        script = find_script(artifact, context.settings)
        self._scope = Scope(str(artifact.path), _folders(script, artifact))
        self._name = self._scope.relative(str(script)) or script.name
        try:
            self._run(LoadFailed, self._load, script, artifact, context)
        except BaseException:
            self._scope.close()
            raise

    def _load(self, script: Path, artifact: Artifact, context: Context) -> None:
        functions = self._functions = import_script(script, self._name)
        self._loader = None if "model_fn" in functions else context.framework
        self._framework = None if functions.keys() & {"predict_fn", "transform_fn"} else self._loader
        if "pre_model_fn" in functions:
            functions["pre_model_fn"](context.model_dir, context)
        if "model_fn" in functions:
            self._model = functions["model_fn"](context.model_dir, context)
        elif self._loader is not None:
            self._model = self._loader.load(artifact, context)
        else:
            raise LoadFailed(f"{self._name} defines no model_fn and no plugin claims the rest of {self._target!r}")
        if self._framework is None and not (functions.keys() & {"predict_fn", "transform_fn"}):
            functions["predict_fn"] = _predict_method(self._model, self._name)
        if "model_warmup_fn" in functions:
            functions["model_warmup_fn"](context.model_dir, self._model, context)

    def decode(self, body: bytes, content_type: str | None, context: Context) -> Any:
        """Return what the predictor takes; for ``transform_fn`` the pair of body and content type."""
        if "transform_fn" in self._functions:
            return _script_input(body, content_type)
        if "input_fn" in self._functions:
            return self._answer("input_fn", *_script_input(body, content_type), context)
        if self._framework is not None:
            return self._run(PredictionFailed, self._framework.input_fn, body, content_type, self._model, context)
        return codecs.decode(body, content_type)

    def predict(self, data: Any, context: Context) -> Any:
        """Return the prediction; of ``transform_fn``, what is the reply already."""
        if "transform_fn" in self._functions:
            return self._answer("transform_fn", self._model, *data, context.accept, context)
        if self._framework is not None:
            return self._run(PredictionFailed, self._framework.predict_fn, data, self._model, context)
        return self._answer("predict_fn", data, self._model, context)

    def encode(self, prediction: Any, accept: str, context: Context) -> Any:
        """Return the reply's body and content type."""
        if "transform_fn" in self._functions:
            return self._reply(prediction, accept)
        if "output_fn" in self._functions:
            return self._reply(self._answer("output_fn", prediction, accept, context), accept)
        if self._framework is not None:
            return self._run(PredictionFailed, self._framework.output_fn, prediction, self._model, accept, context)
        return (
            self._reply(prediction, accept) if isinstance(prediction, Iterator) else codecs.encode(prediction, accept)
        )

    def batch(self, context: Context) -> Batch | None:
        """Return how the framework joins invocations, if it answers them alone."""
        if self._framework is None or self._functions.keys() & {"input_fn", "output_fn"}:
            return None
        return self._framework.batch(self._model, context)

    def accelerate(self, context: Context) -> Accelerated | None:
        """Return the framework's faster predictor, if it is the framework that predicts."""
        if self._framework is None:
            return None
        offer: Accelerated | None = self._run(PredictionFailed, self._framework.accelerate, self._model, context)
        return None if offer is None else dataclasses.replace(offer, predict=self._in_scope(offer.predict))

    def schema(self, context: Context) -> Schema | None:
        """Return what the framework takes and gives, as far as it is the framework that decodes and encodes."""
        if self._framework is None:
            return None
        told: Schema | None = self._run(PredictionFailed, self._framework.schema, self._model, context)
        if told is None:
            return None
        inputs = () if "input_fn" in self._functions else told.inputs
        return Schema(inputs=inputs, outputs=() if "output_fn" in self._functions else told.outputs)

    def _in_scope(self, predict: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(data: Any) -> Any:
            with self._scope:  # a step of the model may be the script's own
                return predict(data)

        return call

    def close(self, context: Context) -> None:
        """Let the framework unload what it loaded, and the import system forget the script."""
        try:
            if self._loader is not None:
                self._run(PredictionFailed, self._loader.unload, self._model, context)
        finally:
            self._scope.close()

    def _reply(self, result: Any, accept: str) -> tuple[Any, str]:
        body, content_type = result, accept
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
            body, content_type = result
        if isinstance(body, (bytes, bytearray, memoryview, str)):
            return body, content_type
        if isinstance(body, Iterator):
            return self._streamed(body), content_type
        return codecs.encode(body, content_type)

    def _streamed(self, made: Iterator[Any]) -> Iterator[Any]:
        """Yield what a function of the script yields, each time in its scope."""
        nothing = object()
        try:
            while (part := self._run(PredictionFailed, next, made, nothing)) is not nothing:
                yield part
        finally:
            if isinstance(made, Generator):
                self._run(PredictionFailed, made.close)

    def _answer(self, function: str, *args: Any) -> Any:
        return self._run(PredictionFailed, self._functions[function], *args)

    def _run(self, failure: type[ManyModelsError], call: Callable[..., Any], *args: Any) -> Any:
        try:
            with self._scope:
                return call(*args)
        except (ManyModelsError, MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit in a script must not end the worker
            logger.exception("the script of %r failed", self._target)
            raise failure(f"{self._where(error)}: {_describe(error)}") from error

    def _where(self, error: BaseException) -> str:
        places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        if isinstance(error, SyntaxError) and error.filename:
            places.append((error.filename, error.lineno or 0))
        for filename, line in reversed(places):
            name = self._scope.relative(filename)
            if name is not None:
                return f"{name}, line {line}"
        return repr(self._target)


def _folders(script: Path, artifact: Artifact) -> list[str]:
    folders = [script.parent, artifact.path, artifact.path / "code"]
    return [str(folder) for folder in dict.fromkeys(folders) if folder.is_dir()]


def _predict_method(model: Any, name: str) -> Callable[..., Any]:
    """Return a ``predict_fn`` that calls the model's method, as SageMaker's scikit-learn container does."""
    if not callable(getattr(model, "predict", None)):
        raise LoadFailed(
            f"{name} defines no predict_fn and no transform_fn, and the {type(model).__name__} "
            "that its model_fn returned has no predict method"
        )

    def predict_fn(data: Any, model: Any, _: Context) -> Any:
        rows = data.rows if isinstance(data, codecs.Table) else data
        if isinstance(rows, np.ndarray) and rows.ndim == 1:
            rows = rows.reshape(1, -1)
        return model.predict(rows)

    return predict_fn


def _script_input(body: bytes, content_type: str | None) -> tuple[str | bytes, str]:
    media_type, _ = codecs.media_type(content_type)
    content_type = content_type or media_type
    if media_type not in _TEXT:
        return body, content_type
    return codecs.text(body, content_type), content_type


def _describe(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

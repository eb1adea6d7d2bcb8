"""sagemaker-inference's errors, raised by scripts written for it, answered as it answers them.

A plugin of wrappers around whichever plugin serves the artifact. Only the tracebacks that
sagemaker-inference appends are left out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from sagemaker_inference.errors import BaseInferenceToolkitError, UnsupportedFormatError

from manymodels import hookimpl
from manymodels.errors import ManyModelsError, PredictionFailed, UnsupportedAccept, UnsupportedContentType
from manymodels.invocation import Answer
from manymodels.server.messages import sendable


class ScriptError(ManyModelsError):
    """A script raised an error with a status of its own choice."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self._code = code

    def answer(self) -> Answer:
        """Return the answer that the script meant."""
        status = self._code if 400 <= self._code <= 599 else 500
        return Answer(body=sendable(str(self)).encode(), content_type="text/plain; charset=utf-8", status=status)


_Raised = (ManyModelsError, BaseInferenceToolkitError, UnsupportedFormatError)


def _meant(error: Exception, refused: ManyModelsError) -> Exception:
    """Return the error that is to be answered.

    :param error: what a hook raised; a plugin may have put an error of its own around the script's.
    :param refused: the error for a format the script does not know.
    """
    cause = error.__cause__ if isinstance(error, ManyModelsError) else error
    if isinstance(cause, UnsupportedFormatError):
        return refused
    if isinstance(cause, BaseInferenceToolkitError):
        return ScriptError(str(cause.message), int(cause.status_code))
    return error


@hookimpl(wrapper=True)
def input_fn(content_type: str | None) -> Generator[None, Any, Any]:
    """Refuse a content type that the script has no decoder for with 415."""
    try:
        return (yield)
    except _Raised as error:
        refused = UnsupportedContentType(f"the model's script does not take the content type {content_type!r}")
        raise _meant(error, refused) from error


@hookimpl(wrapper=True)
def predict_fn() -> Generator[None, Any, Any]:
    """Answer with the status that the script chose."""
    try:
        return (yield)
    except _Raised as error:
        raise _meant(error, PredictionFailed("the model's script does not know the format")) from error


@hookimpl(wrapper=True)
def output_fn(accept: str) -> Generator[None, Any, Any]:
    """Refuse an Accept that the script has no encoder for with 406."""
    try:
        return (yield)
    except _Raised as error:
        raise _meant(error, UnsupportedAccept(f"the model's script cannot answer with {accept!r}")) from error

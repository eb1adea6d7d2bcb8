"""The error tree: as its docstring draws it, with the statuses of each dialect."""

from __future__ import annotations

import re

import pytest

from manymodels import errors
from manymodels.errors import BY_NAME, ManyModelsError

#: By class: status in the container API, of /invocations, of /endpoints/..., x-amzn-ErrorType, OriginalStatusCode.
DIALECTS = {
    "ManyModelsError": (500, 500, 424, "ModelError", 500),
    "SettingsError": (500, 500, 500, "InternalFailure", 500),
    "PluginError": (500, 500, 500, "InternalFailure", 500),
    "TrainingFailed": (500, 500, 500, "InternalFailure", 500),
    "RequestError": (400, 400, 424, "ModelError", 400),
    "BadTargetModel": (400, 400, 400, "ValidationError", 400),
    "BadMember": (400, 400, 400, "ValidationError", 400),
    "BadInput": (400, 400, 424, "ModelError", 400),
    "UnsupportedContentType": (415, 415, 424, "ModelError", 415),
    "UnsupportedAccept": (406, 406, 424, "ModelError", 406),
    "BodyTooLarge": (413, 413, 400, "ValidationError", 413),
    "ModelNotFound": (404, 404, 400, "ValidationError", 404),
    "EndpointNotFound": (404, 404, 400, "ValidationError", 404),
    "ModelAlreadyLoaded": (409, 409, 424, "ModelError", 409),
    "LoadFailed": (400, 424, 424, "ModelError", 400),
    "BadArtifact": (400, 424, 424, "ModelError", 400),
    "NoPlugin": (400, 424, 424, "ModelError", 400),
    "StoreDenied": (400, 424, 530, "InternalDependencyException", 400),
    "StoreUnavailable": (503, 503, 503, "ServiceUnavailable", 503),
    "NotTrusted": (400, 424, 424, "ModelError", 400),
    "NotListed": (501, 501, 400, "ValidationError", 501),
    "GoldenFailed": (400, 424, 424, "ModelError", 400),
    "ModelRefused": (400, 424, 424, "ModelError", 400),
    "OutOfMemory": (507, 503, 503, "ServiceUnavailable", 507),
    "ModelNotReady": (503, 503, 429, "ModelNotReadyException", 503),
    "Overloaded": (503, 503, 503, "ServiceUnavailable", 503),
    "InvocationTimeout": (504, 504, 424, "ModelError", 0),
    "WorkerDied": (500, 500, 424, "ModelError", 500),
    "InternalFailure": (500, 500, 500, "InternalFailure", 500),
    "PredictionFailed": (500, 500, 424, "ModelError", 500),
}


def test_the_docstring_draws_the_tree() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)(\w+) +(\d{3})(?:  .*)?", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = (path[depth - 1] if depth else "Exception", int(found[3]))
    assert drawn == {name: (cls.__base__.__name__, cls.status) for name, cls in BY_NAME.items() if cls.__base__}


def test_every_class_is_known_by_its_name() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ManyModelsError)
    }
    assert classes == BY_NAME
    assert sorted(classes) == sorted(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_statuses(name: str) -> None:
    cls = BY_NAME[name]
    container, invocations, aws, kind, original = DIALECTS[name]
    assert cls.status == container
    assert (cls.status if cls.invocations_status is None else cls.invocations_status) == invocations
    assert cls.aws == (aws, kind)
    assert (cls.status if cls.original_status is None else cls.original_status) == original
    # A caller is told to come back exactly where coming back may help.
    assert (cls.retry_after is not None) == (invocations == 503)


@pytest.mark.parametrize("cls", BY_NAME.values(), ids=BY_NAME)
def test_every_class_has_a_docstring_of_its_own(cls: type[ManyModelsError]) -> None:
    assert cls.__dict__.get("__doc__")


@pytest.mark.parametrize("cls", BY_NAME.values(), ids=BY_NAME)
def test_an_error_can_be_raised_again_as_a_copy(cls: type[ManyModelsError]) -> None:
    error = cls("the model is ill")
    copy = error.again()
    assert copy is not error
    assert (type(copy), str(copy)) == (cls, "the model is ill")

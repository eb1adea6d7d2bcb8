"""Every error a caller can meet, in one tree.

Each class carries the statuses of the three dialects it is answered in: the container API
(``/models/...``), the short form (``/invocations``) and AWS's endpoint API (``/endpoints/...``).

::

    ManyModelsError                 500
    ├── SettingsError               500   a setting is wrong; the server does not start
    ├── PluginError                 500   a plugin breaks the hook contract; the server does not start
    ├── TrainingFailed              500   the training job cannot be run; it ends
    ├── RequestError                400   the request is wrong, whatever the model
    │   ├── BadTargetModel          400   missing, leaves the store, too long, control characters
    │   ├── BadMember               400   a member of boto3's request is not allowed, or asks for what is not there
    │   ├── BadInput                400   the body is not what its type says, or the model refuses it
    │   ├── UnsupportedContentType  415
    │   ├── UnsupportedAccept       406
    │   └── BodyTooLarge            413
    ├── ModelNotFound               404   no such artifact, or not loaded
    ├── EndpointNotFound            404   no endpoint, or no variant of it, has that name
    ├── ModelAlreadyLoaded          409
    ├── LoadFailed                  400   the artifact cannot be loaded
    │   ├── BadArtifact             400   corrupt, empty, too large, hostile
    │   ├── NoPlugin                400   claimed by no plugin, by two, or by one not installed
    │   ├── StoreDenied             400   the model store denies access to the artifact
    │   ├── StoreUnavailable        503   the model store cannot be reached, or answers that it cannot answer now
    │   ├── NotTrusted              400   not signed by a trusted key, or not allowed by the operator
    │   ├── GoldenFailed            400   does not answer its golden requests as the artifact says
    │   └── ModelRefused            400   killed its workers; refused for a while
    ├── NotListed                   501   the model store has no listing
    ├── OutOfMemory                 507   no room, or memory ran out while loading or predicting
    ├── ModelNotReady               503   still loading at the caller's deadline
    ├── Overloaded                  503   the queue is full
    ├── InvocationTimeout           504   the model did not answer by the deadline
    ├── WorkerDied                  500   the worker process ended while it ran the invocation
    ├── InternalFailure             500   a fault of the server itself
    └── PredictionFailed            500   an exception in the plugin or in the model's script
"""

from __future__ import annotations

from typing import ClassVar


class ManyModelsError(Exception):
    """Base of all errors; its text names the culprit and the remedy in a sentence."""

    #: Status in the container API.
    status: ClassVar[int] = 500
    #: Status of ``/invocations``; None where it equals :attr:`status`.
    invocations_status: ClassVar[int | None] = None
    #: Status and ``x-amzn-ErrorType`` of ``/endpoints/...``.
    aws: ClassVar[tuple[int, str]] = (424, "ModelError")
    #: ``OriginalStatusCode`` of a ModelError; None where it equals :attr:`status`.
    original_status: ClassVar[int | None] = None
    #: Seconds for ``Retry-After``; None sends no such header.
    retry_after: ClassVar[int | None] = None
    #: The artifact that was asked, where a name above artifacts was asked for.
    target_model: str | None = None

    def again(self) -> ManyModelsError:
        """Return a copy to raise: an instance raised many times would collect every traceback."""
        return type(self)(*self.args)


class SettingsError(ManyModelsError):
    """A setting has a value the server cannot start with."""

    aws = (500, "InternalFailure")


class PluginError(ManyModelsError):
    """A plugin breaks the hook contract."""

    aws = (500, "InternalFailure")


class TrainingFailed(ManyModelsError):
    """The job's configuration, data or script cannot be trained with."""

    aws = (500, "InternalFailure")


class RequestError(ManyModelsError):
    """The request is wrong; sending it again changes nothing."""

    status = 400


class BadTargetModel(RequestError):
    """The TargetModel is missing or not allowed."""

    aws = (400, "ValidationError")


class BadMember(RequestError):
    """A member of the endpoint API's request is not allowed, or asks for what the endpoint does not have."""

    aws = (400, "ValidationError")


class BadInput(RequestError):
    """The body is not what its content type says, or the model refuses its values or shape."""


class UnsupportedContentType(RequestError):
    """No decoder for the request's content type."""

    status = 415


class UnsupportedAccept(RequestError):
    """None of the types the client accepts can be produced."""

    status = 406


class BodyTooLarge(RequestError):
    """The body is over the limit."""

    status = 413
    aws = (400, "ValidationError")


class ModelNotFound(ManyModelsError):
    """No artifact of that name in the store, or (container role) the model is not loaded."""

    status = 404
    aws = (400, "ValidationError")


class EndpointNotFound(ManyModelsError):
    """No endpoint is mapped to a store under that name, or it has no such variant."""

    status = 404
    aws = (400, "ValidationError")


class ModelAlreadyLoaded(ManyModelsError):
    """``POST /models`` for a model that is loaded."""

    status = 409


class LoadFailed(ManyModelsError):
    """The artifact cannot be loaded."""

    status = 400
    invocations_status: ClassVar[int | None] = 424


class BadArtifact(LoadFailed):
    """The artifact is corrupt, empty, too large or hostile."""


class NoPlugin(LoadFailed):
    """No installed plugin, or more than one, claims the artifact."""


class StoreDenied(LoadFailed):
    """The model store denies access to the artifact."""

    aws = (530, "InternalDependencyException")


class StoreUnavailable(LoadFailed):
    """The model store cannot be reached, is overloaded, or ends its answers too early."""

    status = 503
    invocations_status = None
    aws = (503, "ServiceUnavailable")
    retry_after = 1


class NotTrusted(LoadFailed):
    """The artifact is not signed by a key that the operator trusts, or needs what the operator does not allow."""


class GoldenFailed(LoadFailed):
    """The model does not answer a golden request of its artifact as it must."""


class ModelRefused(LoadFailed):
    """The model killed its workers and is refused for a while."""


class NotListed(ManyModelsError):
    """The model store can be asked for artifacts, but not for a list of them."""

    status = 501
    aws = (400, "ValidationError")


class OutOfMemory(ManyModelsError):
    """The model does not fit beside what is loaded, or memory ran out."""

    status = 507
    invocations_status = 503
    aws = (503, "ServiceUnavailable")
    retry_after = 1
    #: Whether it may be loaded once other models are unloaded.
    eviction_helps: bool = False
    #: Bytes that have to be free for it first, where that is known.
    missing: int = 0


class ModelNotReady(ManyModelsError):
    """The model was still loading at the caller's deadline; loading goes on."""

    status = 503
    aws = (429, "ModelNotReadyException")
    retry_after = 1


class Overloaded(ManyModelsError):
    """The model's queue, or the server's, is full."""

    status = 503
    aws = (503, "ServiceUnavailable")
    retry_after = 1


class InvocationTimeout(ManyModelsError):
    """The model did not answer by the deadline."""

    status = 504
    original_status = 0


class WorkerDied(ManyModelsError):
    """The worker process ended while it ran the invocation."""


class InternalFailure(ManyModelsError):
    """The server itself failed, whatever the request and the model."""

    aws = (500, "InternalFailure")


class PredictionFailed(ManyModelsError):
    """The plugin or the model's script raised."""


def _tree(cls: type[ManyModelsError]) -> dict[str, type[ManyModelsError]]:
    found = {cls.__name__: cls}
    for child in cls.__subclasses__():
        found.update(_tree(child))
    return found


#: Every class by its name, which is how an error crosses from a worker to the front.
BY_NAME: dict[str, type[ManyModelsError]] = _tree(ManyModelsError)

"""How the control plane refuses."""

from __future__ import annotations

from contextvars import ContextVar
from typing import ClassVar

from ..errors import RequestError

#: What AWS has as account.
ACCOUNT = "000000000000"
#: The region in which who asks believes to be.
REGION: ContextVar[str] = ContextVar("region", default="local")


class Failure(RequestError):
    """A request that AWS would refuse too, or that is about what is not emulated."""

    #: What boto3 has as the error's code.
    kind: ClassVar[str] = "ValidationException"


class UnknownOperation(Failure):
    """An operation that is not emulated."""

    kind = "UnknownOperationException"


class BadJson(Failure):
    """A body that is not JSON, or has a value of another type than its member."""

    kind = "SerializationException"


class NotFound(Failure):
    """A resource whose tags are asked for and that is not there."""

    kind = "ResourceNotFound"


def arn(kind: str, name: str) -> str:
    """Return the ARN of a model, an endpoint-config or an endpoint, as who asks would have it of AWS."""
    return f"arn:aws:sagemaker:{REGION.get()}:{ACCOUNT}:{kind}/{name.lower()}"

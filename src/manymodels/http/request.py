"""One HTTP request, read whole."""

from __future__ import annotations

import itertools
import math
import re
import time
import uuid

import msgspec

from ..errors import BadTargetModel, BodyTooLarge, RequestError
from ..invocation import Invocation, Upload
from ..sagemaker import TARGET_MODEL
from ..server.messages import Failure

_TARGET_MODEL = TARGET_MODEL.encode()
_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
_SAGEMAKER = b"x-amzn-sagemaker-"
#: The other headers that are looked at; clients send many that are not.
_OTHERS = frozenset((b"content-type", b"accept", b"accept-encoding", b"content-encoding"))
_OTHERS |= {_TIMEOUT, b"x-amz-target", b"authorization"}
_SCOPE = re.compile(rb"Credential=[^/,\s]+/\d{8}/([a-z0-9-]{1,32})/")


class Request(msgspec.Struct, array_like=True):
    """A request to a model or about one."""

    method: str
    #: Decoded, without the query.
    path: str
    query: bytes
    #: None if it is larger than the server takes.
    body: bytes | None
    id: str
    content_type: str | None = None
    accept: str | None = None
    #: The TargetModel header.
    target: bytes | None = None
    #: What SageMaker passes on to a model: content type, accept, and its own headers.
    headers: dict[str, str] = {}
    #: The parameters in the path.
    parameters: dict[str, str] = {}
    #: Milliseconds the client waits for its answer, as it says.
    timeout: bytes | None = None
    #: Seconds the model has for it; None: as many as the settings say.
    limit: float | None = None
    #: What is asked of SageMaker's control plane, and the region for which that is signed.
    operation: str | None = None
    region: str | None = None
    #: How the body was sent, and how the reply may be.
    content_encoding: str | None = None
    accept_encoding: str | None = None
    #: Why the body cannot be had, if it cannot for another reason than its size.
    fault: Failure | None = None
    #: The body, if it is large; then `body` is empty.
    upload: Upload | None = None

    def read(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take from the headers what models and we ourselves want of them; names are in lower case."""
        for name, value in headers:
            if name.startswith(_SAGEMAKER):
                if name == _TARGET_MODEL:
                    self.target = value
                    self.headers[TARGET_MODEL] = value.decode("utf-8", "replace")
                else:
                    self.headers[name.decode("latin-1")] = value.decode("latin-1")
            elif name not in _OTHERS:
                continue
            elif name == b"content-type":
                self.content_type = self.headers["content-type"] = value.decode("latin-1")
            elif name == b"accept":
                accept = value.decode("latin-1")
                # A list may come as several headers.
                self.accept = self.headers["accept"] = accept if self.accept is None else f"{self.accept}, {accept}"
            elif name == _TIMEOUT:
                self.timeout = value
            elif name == b"accept-encoding":
                self.accept_encoding = _listed(self.accept_encoding, value)
            elif name == b"content-encoding":
                self.content_encoding = _listed(self.content_encoding, value)
            elif name == b"x-amz-target":
                self.operation = value.decode("latin-1")
            elif name == b"authorization" and self.path == "/":
                scope = _SCOPE.search(value)
                self.region = None if scope is None else scope[1].decode()

    def target_model(self) -> str | None:
        """Return the TargetModel header; None if absent.

        :raises BadTargetModel: if it is not UTF-8, as which boto3 sends it.
        """
        if self.target is None:
            return None
        try:
            return self.target.decode()
        except UnicodeDecodeError as error:
            raise BadTargetModel(f"the TargetModel header is not valid UTF-8: {error.reason}") from error

    def content(self, limit: int) -> bytes:
        """Return the body.

        :param limit: most bytes a body may have, for the message.
        :raises BodyTooLarge: if it had more.
        :raises RequestError: if it could not be unpacked.
        """
        if self.fault is not None:
            raise self.fault.error()
        if self.body is None:
            raise BodyTooLarge(
                f"the body has more than {limit} bytes, which is the limit; "
                f"send fewer rows at a time, or raise --max-body"
            )
        return self.body if self.upload is None else self.upload.read()

    def invocation(self, limit: int) -> Invocation:
        """Return the invocation the request makes."""
        upload = self.upload if self.fault is None else None
        body = self.content(limit) if upload is None else b""
        return Invocation(
            body, self.content_type, self.accept, self.headers, self.id, self.deadline(), self.limit, upload
        )

    def deadline(self) -> float:
        """Return when the client has no use for an answer any more, by the monotonic clock.

        :raises RequestError: if it says so in another way than in milliseconds.
        """
        if self.timeout is None:
            return math.inf
        if not self.timeout.isdigit() or len(self.timeout) > 9:
            said = self.timeout.decode("latin-1")
            raise RequestError(f"{_TIMEOUT.decode()} is {said!r}; say in whole milliseconds how long you wait")
        return time.monotonic() + int(self.timeout) / 1000


def _listed(before: str | None, value: bytes) -> str:
    """Return a header that may come several times, as one."""
    text = value.decode("latin-1")
    return text if before is None else f"{before}, {text}"


class Ids:
    """Makes ids of requests: UUIDs whose last part counts, as random ones take longer than the rest of parsing."""

    def __init__(self) -> None:
        self._prefix = str(uuid.uuid4())[:24]
        self._numbers = itertools.count()

    def __next__(self) -> str:
        """Return the next id."""
        return f"{self._prefix}{next(self._numbers):012x}"

"""``POST /endpoints/{EndpointName}/async-invocations``: what boto3's ``invoke_endpoint_async`` sends."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from .. import sagemaker
from ..asynchronous import Outcome, Queued, Runner
from ..endpoint import Outputs, Role
from ..errors import BadMember, BodyTooLarge, ManyModelsError
from ..invocation import Upload
from .replies import RESOLVED, Reply, aws_error
from .request import Request
from .runtime import check

#: Bytes of an input that comes in the request (shape BodyBlob of InvokeEndpointAsync).
INLINE = 128_000

_INPUT = re.compile(r"s3://[^/\s]+/[^\x00-\x1f\x7f]+")
_EXTENSION = re.compile(r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+")
_FILENAME = re.compile(r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PRINTABLE = re.compile(r"[!-~][ -~]*")
#: Types, which have headers of their own in this call, and those that models know them by.
_TYPES = (
    (sagemaker.ASYNC_CONTENT_TYPE, "ContentType", "content-type"),
    (sagemaker.STREAM_ACCEPT, "Accept", "accept"),
)
#: What the model is told of the request: all of SageMaker's headers but those that say where to put the answer.
_OWN = {
    sagemaker.ASYNC_CONTENT_TYPE,
    sagemaker.STREAM_ACCEPT,
    sagemaker.INPUT_LOCATION,
    sagemaker.OUTPUT_EXTENSION,
    sagemaker.FILENAME,
    sagemaker.REQUEST_TTL,
    sagemaker.ASYNC_TIMEOUT,
    "content-type",
    "accept",
}


class AsyncInvocations:
    """Takes on asynchronous invocations, and has them answered as if a client waited."""

    def __init__(self, role: Role, runner: Runner | None = None, output: str | None = None) -> None:
        """Take on nothing yet.

        :param runner: None where they are not wanted.
        :param output: the address below which answers are written, of endpoints without one of their own.
        """
        self._role = role
        self._runner = runner
        self._outputs = None if output is None else Outputs(output.rstrip("/"), output.rstrip("/"))

    def start(self, answer: Callable[[Request], Awaitable[Reply]]) -> None:
        """Answer what is in the queue.

        :param answer: answers any request.
        """
        self._answer = answer
        if self._runner is not None:
            self._runner.start(self)

    async def stop(self) -> None:
        """Leave the rest in the queue."""
        if self._runner is not None:
            await self._runner.stop()

    async def accept(self, request: Request) -> Reply:
        """Take on an invocation; it is in the queue, and on the disk, once this answers."""
        if self._runner is None:
            raise BadMember(
                "this server takes no asynchronous invocations: start it with --async-output and --async-queue"
            )
        check(request)
        given = request.headers
        target, model = self._model(request)
        inference = _checked(given, sagemaker.INFERENCE_ID, "InferenceId", _PRINTABLE, 64)
        filename = _checked(given, sagemaker.FILENAME, "Filename", _FILENAME, 32)
        id_ = str(uuid.uuid4())
        stem = quote(inference or id_, safe="")
        extension = self._extension(request)
        outputs = self._role.outputs(request.parameters["endpoint"]) or self._outputs
        if outputs is None:
            raise BadMember(
                f"the endpoint {request.parameters['endpoint']!r} has no AsyncInferenceConfig: "
                f"create one with it, or start the server with --async-output"
            )
        inside = f"/{extension}/" if extension else "/"

        def failure(id_: str) -> str:
            return f"{outputs.errors}{inside}{id_}-error.out"

        headers = {name: value for name, value in given.items() if name not in _OWN}
        for source, member, header in _TYPES:
            if (value := _checked(given, source, member, _PRINTABLE, 1024)) is not None:
                headers[header] = value
        location, body = self._input(request)
        now = time.time()
        queued = Queued(
            id=id_,
            endpoint=request.parameters["endpoint"],
            target=target,
            model=model,
            headers=headers,
            input=location,
            body=body,
            output=outputs.answers + inside + (filename or f"{stem}.out"),
            failure=failure(id_),
            expires=now + _seconds(given, sagemaker.REQUEST_TTL, "RequestTTLSeconds", 60, 21_600, 21_600),
            timeout=_seconds(given, sagemaker.ASYNC_TIMEOUT, "InvocationTimeoutSeconds", 1, 3600, 900),
            received=now,
            inference=inference or id_,
            topics=outputs.topics,
        )
        taken = await self._runner.add(queued)
        reply = Reply.json(202, {"InferenceId": inference or taken})
        reply.add(sagemaker.OUTPUT_LOCATION, queued.output)
        return reply.add(sagemaker.FAILURE_LOCATION, failure(taken))

    def _model(self, request: Request) -> tuple[str | None, str]:
        """Return the TargetModel, and the name of the model in this server.

        InvokeEndpointAsync has no such member, since in AWS such an endpoint serves one model: so the endpoint's name
        names it, unless a client adds the header.
        """
        endpoint, target = request.parameters["endpoint"], request.target_model()
        name, _ = self._role.route(endpoint, target, None)
        if name is None and self._role.multi_model:
            target = endpoint
            name, _ = self._role.route(endpoint, target, None)
        return target, name or ""

    def _input(self, request: Request) -> tuple[str | None, bytes]:
        given = request.headers.get(sagemaker.INPUT_LOCATION)
        if request.fault is not None:
            raise request.fault.error()
        body = request.body
        if body is None or request.upload is not None or len(body) > INLINE:
            raise BodyTooLarge(
                f"the body has more than {INLINE} bytes, the most that an asynchronous invocation brings along; "
                "put it into S3, and name it by InputLocation"
            )
        if (given is None) == (not body):
            raise BadMember("send either InputLocation, the address of an object in S3, or a body")
        if given is None:
            return None, body
        given = given.encode("latin-1").decode("utf-8", "replace")  # as boto3 sends it
        location = sagemaker.s3_address(given)
        if len(given) > 1024 or not _INPUT.fullmatch(location):
            raise BadMember(
                f"InputLocation is {given!r}; write s3://BUCKET/KEY, or the https:// address that the object has in "
                "AWS, in 1024 characters"
            )
        return location, body

    def _extension(self, request: Request) -> str:
        given = _checked(request.headers, sagemaker.OUTPUT_EXTENSION, "S3OutputPathExtension", _EXTENSION, 512)
        extension = (given or "").strip("/")
        if extension and any(part in ("", ".", "..") for part in extension.split("/")):
            raise BadMember(f"S3OutputPathExtension is {given!r}, which has empty segments, '.' or '..'")
        return extension

    # -- Answers --

    async def invoke(self, queued: Queued, body: bytes | Upload) -> Outcome:
        """Invoke the model as a client would."""
        request = self._request(queued, body)
        reply = await self._answer(request)
        # By nothing else that ends a line: U+0085 is part of many a name that is UTF-8 in Latin-1.
        headers = dict(line.split(": ", 1) for line in reply.head.removesuffix("\r\n").split("\r\n"))
        artifact = headers.get(RESOLVED)
        if reply.status < 300:
            return Outcome(reply.body, headers["content-type"], succeeded=True, artifact=artifact)
        passing = reply.status in (429, 503)
        return Outcome(reply.body, "application/json", succeeded=False, passing=passing, artifact=artifact)

    def failed(self, queued: Queued, error: ManyModelsError) -> Outcome:
        """Return what a client would be answered."""
        reply = aws_error(error, self._request(queued, b""))
        return Outcome(reply.body, "application/json", succeeded=False)

    def _request(self, queued: Queued, body: bytes | Upload) -> Request:
        path = f"/endpoints/{queued.endpoint}/invocations"
        request = Request("POST", path, b"", b"", queued.id, parameters={"endpoint": queued.endpoint})
        if isinstance(body, Upload):
            request.upload = body
        else:
            request.body = body
        request.headers = dict(queued.headers)
        request.content_type = queued.headers.get("content-type")
        request.accept = queued.headers.get("accept")
        if queued.target is not None:
            request.target = queued.target.encode()
            request.headers[sagemaker.TARGET_MODEL] = queued.target
        request.limit = queued.timeout
        return request


def _checked(headers: dict[str, str], name: str, member: str, pattern: re.Pattern[str], longest: int) -> str | None:
    """Return a header; None if it is not there.

    :raises BadMember: if it is not as SageMaker wants it.
    """
    value = headers.get(name)
    if value is not None and (len(value) > longest or not pattern.fullmatch(value)):
        raise BadMember(f"{member} is {value!r}; it must match {pattern.pattern}, in {longest} characters at most")
    return value


def _seconds(headers: dict[str, str], name: str, member: str, least: int, most: int, default: int) -> float:
    value = headers.get(name)
    if value is None:
        return float(default)
    if not (value.isascii() and value.isdigit() and len(value) < 9 and least <= int(value) <= most):
        raise BadMember(f"{member} is {value!r}; write whole seconds, {least} to {most}")
    return float(value)

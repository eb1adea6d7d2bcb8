"""The endpoint API: what boto3's ``sagemaker-runtime`` sends, member by member."""

from __future__ import annotations

import re

from .. import sagemaker
from ..endpoint import Role
from ..errors import BadMember, BadTargetModel, PredictionFailed
from ..invocation import Answer
from ..server.streams import collected
from .events import events_of
from .replies import Reply, answer, model_error, told
from .request import Request

#: Most characters of each member that is sent as a header (botocore service model ``sagemaker-runtime``), which
#: boto3 leaves to the server to check. The name of a model is checked as such.
_MOST = {
    "content-type": ("ContentType", 1024),
    "accept": ("Accept", 1024),
    sagemaker.STREAM_ACCEPT: ("Accept", 1024),
    sagemaker.CUSTOM_ATTRIBUTES: ("CustomAttributes", 1024),
    sagemaker.TARGET_VARIANT: ("TargetVariant", 63),
    sagemaker.INFERENCE_ID: ("InferenceId", 64),
    sagemaker.PREFIX_AWARE_ID: ("PrefixAwareId", 64),
    sagemaker.SESSION_ID: ("SessionId", 256),
}
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
#: What a model answers where it opens a session (shape NewSessionResponseHeader).
_OPENED = sagemaker.NEW_SESSION_ID.lower()
_SESSION = re.compile(rf"{_NAME.pattern};\sExpires=\d{{4}}-\d{{2}}-\d{{2}}T\d{{2}}:\d{{2}}:\d{{2}}Z")
#: EnableExplanations that asks for none.
_NO_EXPLANATIONS = "`false`"


class Runtime:
    """The operations of ``sagemaker-runtime``."""

    def __init__(self, role: Role, limit: int, most: int | None = None) -> None:
        """Answer for a role.

        :param limit: most bytes of a body.
        :param most: most bytes of an answer; None: any number.
        """
        self._role = role
        self._limit = limit
        self._most = most

    async def invoke(self, request: Request) -> Reply:
        """``POST /endpoints/{EndpointName}/invocations``: InvokeEndpoint.

        A streamed answer is collected, so that a model that fails on the way is a ModelError.
        """
        result, variant = await self._ask(request)
        result = await collected(result, self._limit)
        if result.status >= 400:
            return self._refused(result, request)
        _check_session(result)
        if self._most is not None and len(result.body) > self._most:
            raise PredictionFailed(f"the answer has {len(result.body)} bytes, and AWS passes on at most {self._most}")
        return answer(result).add(sagemaker.INVOKED_VARIANT, variant)

    async def invoke_streaming(self, request: Request) -> Reply:
        """``POST /endpoints/{EndpointName}/invocations-response-stream``: InvokeEndpointWithResponseStream."""
        if request.headers.get(sagemaker.SESSION_ID) == sagemaker.NEW_SESSION:
            raise BadMember("a stream opens no session: SessionId NEW_SESSION is for InvokeEndpoint")
        if (accept := request.headers.pop(sagemaker.STREAM_ACCEPT, None)) is not None:
            request.accept = request.headers["accept"] = accept
        result, variant = await self._ask(request)
        if result.status >= 400:
            return self._refused(await collected(result, self._limit), request)
        reply = events_of(result).add(sagemaker.STREAM_CONTENT_TYPE, result.content_type)
        return reply.add(sagemaker.INVOKED_VARIANT, variant)

    async def _ask(self, request: Request) -> tuple[Answer, str]:
        """Return the answer, and the variant that gave it."""
        check(request)
        if request.limit is None and self._role.outputs(request.parameters["endpoint"]) is not None:
            raise BadMember(
                f"Endpoint {request.parameters['endpoint']} takes asynchronous invocations only: invoke_endpoint_async"
            )
        wanted = request.headers.get(sagemaker.TARGET_VARIANT)
        name, variant = self._role.route(request.parameters["endpoint"], model_of(request), wanted)
        return await self._role.invoke(name, request.invocation(self._limit)), variant

    def _refused(self, result: Answer, request: Request) -> Reply:
        """Return the reply for a status of 400 or more, which the model's script chose."""
        message = result.body.decode("utf-8", "replace")
        return told(model_error(result.status, message, request.parameters["endpoint"]), result)


def check(request: Request) -> None:
    """Check the members of a request that are not names of models and endpoints.

    :raises BadMember: if one is too long, or asks for what the endpoint does not have.
    """
    headers = request.headers
    for name, value in headers.items():
        if name in _MOST and len(value) > _MOST[name][1]:
            member, most = _MOST[name]
            raise BadMember(f"{member} has {len(value)} characters; it may have {most}")
    for name in (sagemaker.SESSION_ID, sagemaker.TARGET_VARIANT):
        asked = headers.get(name)
        if asked is not None and asked != sagemaker.NEW_SESSION and not _NAME.fullmatch(asked):
            raise BadMember(f"{_MOST[name][0]} is {asked!r}; it may have letters, digits, and hyphens between them")
    if sagemaker.TARGET_CONTAINER in headers:
        raise BadMember(
            "the endpoint has no containers to choose among: leave out TargetContainerHostname; "
            "a model is chosen by TargetModel"
        )
    if headers.get(sagemaker.ENABLE_EXPLANATIONS, _NO_EXPLANATIONS) != _NO_EXPLANATIONS:
        raise BadMember("the endpoint explains no predictions: leave out EnableExplanations, or send `false`")


def _check_session(result: Answer) -> None:
    """Refuse a session that its client could not ask for by the id that it is given.

    :raises PredictionFailed: if the model opens one in another form than SageMaker's.
    """
    for name, value in result.headers.items():
        if name.lower() == _OPENED and (len(value) > _MOST[sagemaker.SESSION_ID][1] or not _SESSION.fullmatch(value)):
            raise PredictionFailed(
                f"the model opens a session by {name}: {value[:300]!r}; it has to be "
                f"'ID; Expires=YYYY-MM-DDThh:mm:ssZ', an id of letters, digits, and hyphens between them"
            )


def model_of(request: Request) -> str | None:
    """Return the model that a request names: by TargetModel, or by InferenceComponentName; None if by neither.

    The second is what InvokeEndpointWithResponseStream has, which knows no TargetModel.

    :raises BadTargetModel: if it names two, or is not UTF-8.
    """
    component = request.headers.get(sagemaker.INFERENCE_COMPONENT)
    if component is None:
        return request.target_model()
    if request.target is not None:
        raise BadTargetModel("TargetModel and InferenceComponentName both name the model: send one of them")
    try:
        return component.encode("latin-1").decode()  # as boto3 sends it
    except UnicodeDecodeError as error:
        raise BadTargetModel(f"InferenceComponentName is not valid UTF-8: {error.reason}") from error

"""The application: which path is answered by what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from .. import sagemaker
from ..endpoint import Role
from ..errors import InternalFailure, ManyModelsError, RequestError
from ..schema import decode
from ..server import ModelDescription
from ..settings import Settings
from .asynchronous import AsyncInvocations
from .docs import Docs
from .pages import failed
from .paging import asked, paged, token_of
from .replies import Reply, aws_error, container_error, invocations_error, resolved, timing
from .request import Request
from .routing import Route, Router
from .runtime import Runtime
from .streaming import reply_to

if TYPE_CHECKING:
    from ..emulation import ControlPlane

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]
ErrorReply = Callable[[ManyModelsError, Request], Reply]

_REQUEST_ID = sagemaker.REQUEST_ID.lower()
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class LoadRequest(msgspec.Struct):
    """The body of ``POST /models``; other members, which multi-model-server knows, are ignored."""

    model_name: str
    url: str


class NoRoute(RequestError):
    """No such path."""

    status = 404


class NoMethod(RequestError):
    """The path does not take this method."""

    status = 405


class Resource:
    """One path: its handlers by method, and how its errors are worded."""

    def __init__(self, error: ErrorReply, **handlers: Handler) -> None:
        self._error = error
        self._handlers = handlers

    async def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        start = time.perf_counter()
        handler = self._handlers.get(request.method)
        try:
            if handler is None:
                allowed = ", ".join(self._handlers)
                raise NoMethod(f"{request.path} takes {allowed}, not {request.method}")
            reply = await handler(request)
        except ManyModelsError as error:
            reply = self._failed(error, request)
        except Exception:
            logger.exception("a request failed", extra={"request_id": request.id})
            reply = self._failed(InternalFailure("internal error; the server's log has more"), request)
        reply.timings["total"] = time.perf_counter() - start
        head = (
            f"x-request-id: {request.id}\r\n{_REQUEST_ID}: {request.id}\r\nserver-timing: {timing(reply.timings)}\r\n"
        )
        reply.head += head
        return reply

    def _failed(self, error: ManyModelsError, request: Request) -> Reply:
        reply = self._error(error, request)
        if isinstance(error, NoMethod):
            reply.add("allow", ", ".join(self._handlers))
        resolved(reply, error.target_model)
        level = logging.WARNING if reply.status >= 500 else logging.INFO
        logger.log(
            level,
            "%s",
            error,
            extra={"status": reply.status, "model": error.target_model or _name(request), "request_id": request.id},
        )
        return reply


def _name(request: Request) -> str:
    return request.parameters.get("model") or request.headers.get(sagemaker.TARGET_MODEL, "")


class Application:
    """The handlers of all paths."""

    def __init__(self, role: Role, settings: Settings, asynchronous: AsyncInvocations) -> None:
        self._role = role
        self._asynchronous = asynchronous
        self._settings = settings
        self._limit = int(settings.max_body)

    def routes(self, plane: ControlPlane | None) -> list[Route]:
        """Return the paths; where several fit, the first holds."""
        docs = Docs(self._role)
        home = Resource(container_error, GET=docs.home, POST=self.no_control_plane)
        if plane is not None:
            from .control import Control, control_error  # which few servers need

            home = Resource(control_error, GET=docs.home, POST=Control(plane, self._limit).call)
        runtime = Runtime(self._role, self._limit, sagemaker.BODY_LIMIT if self._settings.emulate_sagemaker else None)
        return [
            Route("/", home),
            Route("/invocations", Resource(invocations_error, POST=self.invocations)),
            Route("/endpoints/{endpoint}/invocations", Resource(aws_error, POST=runtime.invoke)),
            Route("/endpoints/{endpoint}/async-invocations", Resource(aws_error, POST=self._asynchronous.accept)),
            Route(
                "/endpoints/{endpoint}/invocations-response-stream", Resource(aws_error, POST=runtime.invoke_streaming)
            ),
            Route("/models/{model}/invoke", Resource(container_error, POST=self.invoke_loaded)),
            Route("/models/{model}/refresh", Resource(container_error, POST=self.refresh)),
            Route("/ping", Resource(container_error, GET=self.ping)),
            Route("/metrics", Resource(container_error, GET=self.metrics)),
            Route("/models", Resource(container_error, GET=self.list_models, POST=self.load)),
            Route("/models/{model}", Resource(container_error, GET=self.describe, DELETE=self.unload)),
            Route("/docs", Resource(failed, GET=docs.index)),
            Route("/docs/{model}", Resource(failed, GET=docs.page)),
            Route("/openapi/{model}", Resource(container_error, GET=docs.openapi)),
            Route("/execution-parameters", Resource(container_error, GET=self.execution_parameters)),
            Route("/artifacts", Resource(container_error, GET=self.list_artifacts)),
            Route("/names", Resource(container_error, GET=self.list_names)),
            Route("/evictions", Resource(container_error, GET=self.list_evictions)),
        ]

    # -- Invocations --

    async def invocations(self, request: Request) -> Reply:
        """``POST /invocations``: the short form; the model is loaded if it has to be."""
        result = await self._role.invoke(request.target_model(), request.invocation(self._limit))
        return reply_to(result)

    async def invoke_loaded(self, request: Request) -> Reply:
        """``POST /models/{name}/invoke``: a loaded model, as SageMaker calls it."""
        result = await self._role.invoke_loaded(request.parameters["model"], request.invocation(self._limit))
        return reply_to(result)

    # -- The container API --

    async def ping(self, request: Request) -> Reply:
        """``GET /ping``: whether requests can be answered."""
        if self._role.ready():
            return Reply.json(200, {"status": "Healthy"})
        return Reply.json(503, {"status": "Unhealthy"})

    async def list_models(self, request: Request) -> Reply:
        """``GET /models``: the loaded models, a page at a time; and what the disk cache holds, if there is one."""
        models = self._role.models()
        page, token = paged(lambda after: (model.name for model in models if model.name > after), request.query)
        kept = set(page)
        content: dict[str, Any] = {"models": [_described(model) for model in models if model.name in kept]}
        if (cache := self._role.disk_cache()) is not None:
            content["diskCache"] = msgspec.to_builtins(cache)
        if token is not None:
            content["nextPageToken"] = token
        return Reply.json(200, content)

    async def load(self, request: Request) -> Reply:
        """``POST /models``: load a model; its name and url come as JSON, or in the query."""
        body = request.content(self._limit)
        query = {name: values[-1] for name, values in parse_qs(request.query.decode("latin-1")).items()}
        try:
            wanted = msgspec.json.decode(body, type=LoadRequest) if body else msgspec.convert(query, LoadRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f'send {{"model_name": "...", "url": "..."}}: {error}') from error
        await self._role.load(wanted.model_name, wanted.url)
        return Reply.json(200, {"status": f'Model "{wanted.model_name}" loaded'})

    async def describe(self, request: Request) -> Reply:
        """``GET /models/{name}``: one loaded model."""
        model = self._role.describe(request.parameters["model"])
        described = _described(model)
        if (schema := decode(model.schema)) is not None:
            described["schema"] = msgspec.to_builtins(schema)
        if names := self._role.names(model.name)[0]:
            described["names"] = msgspec.to_builtins(names)
        return Reply.json(200, described)

    async def unload(self, request: Request) -> Reply:
        """``DELETE /models/{name}``: unload a model; its memory is free once this answers."""
        name = request.parameters["model"]
        await self._role.unload(name)
        return Reply.json(200, {"status": f'Model "{name}" unloaded'})

    async def refresh(self, request: Request) -> Reply:
        """``POST /models/{name}/refresh``: ask the store at once if a loaded model's artifact was replaced."""
        return Reply.json(200, _described(await self._role.refresh(request.parameters["model"])))

    async def execution_parameters(self, request: Request) -> Reply:
        """``GET /execution-parameters``: how batch transform may ask, unless its request says otherwise."""
        content = {
            "MaxConcurrentTransforms": self._settings.workers,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": self._limit >> 20,
        }
        return Reply.json(200, content)

    async def no_control_plane(self, request: Request) -> Reply:
        """``POST /``: what clients of SageMaker's control plane ask; see `Control` for a server that has one."""
        raise NoRoute("there is no control plane of SageMaker here; --emulate-sagemaker adds one for a try")

    # -- Beyond SageMaker --

    async def list_artifacts(self, request: Request) -> Reply:
        """``GET /artifacts``: every TargetModel that can be invoked, a page at a time."""
        loop = asyncio.get_running_loop()
        page, token = await loop.run_in_executor(None, lambda: paged(self._role.artifacts, request.query))
        content: dict[str, Any] = {"artifacts": page}
        if token is not None:
            content["nextPageToken"] = token
        return Reply.json(200, content)

    async def list_evictions(self, request: Request) -> Reply:
        """``GET /evictions``: which models left and why, the newest first, a page at a time."""
        limit, last = asked(request.query)
        if last and not (last.isdecimal() and len(last) < 20):
            raise RequestError(f"next_page_token is of another list than this: {last!r}")
        left = self._role.evictions(int(last) if last else None, limit + 1)
        content: dict[str, Any] = {"evictions": msgspec.to_builtins(left[:limit])}
        if len(left) > limit:
            content["nextPageToken"] = token_of(str(left[limit - 1].number))
        return Reply.json(200, content)

    async def list_names(self, request: Request) -> Reply:
        """``GET /names``: the names above artifacts, a page at a time; and what is wrong with their file."""
        names, fault = self._role.names()
        by_name = {name.name: name for name in names}
        page, token = paged(lambda after: (name for name in sorted(by_name) if name > after), request.query)
        content: dict[str, Any] = {"names": [msgspec.to_builtins(by_name[name]) for name in page]}
        if fault:
            content["fault"] = fault
        if token is not None:
            content["nextPageToken"] = token
        return Reply.json(200, content)

    async def metrics(self, request: Request) -> Reply:
        """``GET /metrics``: the counts, for Prometheus."""
        result = await self._role.metrics(request.accept or "")
        return Reply.of(result.status, result.body, result.content_type)

    async def no_route(self, request: Request) -> Reply:
        """Answer any other path."""
        raise NoRoute(f"no such path: {request.path!r}; POST /invocations with a TargetModel header")


def _described(model: ModelDescription) -> dict[str, Any]:
    described = {
        "modelName": model.name,
        "modelUrl": model.path,
        "plugin": model.plugin,
        "bytes": model.bytes,
        "bytesAre": "measured" if model.measured else "estimated",
        "loadSeconds": round(model.load_seconds, 6),
        "workers": list(model.workers),
    }
    if model.framework is not None:
        described["framework"] = model.framework
    if model.environment is not None:
        described["environment"] = model.environment
    if model.notes:
        described["notes"] = list(model.notes)
    if model.golden is not None:
        described["golden"] = msgspec.to_builtins(model.golden)
    if model.predictor is not None:
        described["predictor"] = msgspec.to_builtins(model.predictor)
    if model.version:
        described["version"] = model.version
    if model.newer_version:
        described["newer"] = {"version": model.newer_version, "error": model.newer_error}
    if model.refused is not None:
        described["refused"] = model.refused
    return described


def create_app(
    role: Role,
    settings: Settings,
    asynchronous: AsyncInvocations | None = None,
    plane: ControlPlane | None = None,
) -> Router:
    """Return what answers requests for a role; starting and stopping all of them is the caller's.

    :param plane: what makes the role's endpoints, where SageMaker's control plane is emulated.
    """
    application = Application(role, settings, asynchronous or AsyncInvocations(role))
    no_route = Resource(container_error, **dict.fromkeys(_METHODS, application.no_route))
    return Router(application.routes(plane), no_route)

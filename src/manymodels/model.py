"""An artifact bound to its plugin and loaded: what a worker holds, and how it answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from . import columns, golden
from .acceleration import LeftToOriginal
from .artifact import Artifact
from .batching import Batch
from .codecs import any_accept
from .context import Context, ModelSettings
from .errors import GoldenFailed, LoadFailed, ManyModelsError, OutOfMemory, PredictionFailed
from .golden import Golden, GoldenResult
from .invocation import Answer, Invocation, Parts, Status, Streaming
from .plugins import Binding, Plugins, Predict
from .schema import encode
from .trial import ORIGINAL, Predictor, compare

logger = logging.getLogger(__name__)

#: Content type, status and headers of an answer.
_head = msgspec.msgpack.Decoder(tuple[str, Status, dict[str, str]])


class _Call(msgspec.Struct):
    """One invocation on its way through the model."""

    invocation: Invocation
    context: Context
    data: Any = None
    prediction: Any = None
    seconds: float = 0.0
    outcome: Answer | ManyModelsError | None = None


class Model:
    """A loaded model and the hooks it is bound to."""

    def __init__(self, artifact: Artifact, binding: Binding, plugins: Plugins, settings: ModelSettings) -> None:
        """Load the artifact.

        :raises LoadFailed: if the plugin cannot load it.
        :raises OutOfMemory: if memory ran out.
        """
        self._hooks = plugins.bound(binding.plugin)
        #: The same without wrappers: nobody is to watch what is tried out.
        self._plain = plugins.bound(binding.plugin, wrappers=False)
        self._predict_fn: Predict = self._hooks.predict_fn
        self._faster: Callable[[Any], Any] | None = None
        #: Which predictor serves; None: that has not been found out.
        self.predictor: Predictor | None = None
        #: Whether that has changed since it was last passed on.
        self.news = False
        #: Invocations so far.
        self.asked = 0
        #: How it did on its artifact's golden requests; None: it was not asked any.
        self.golden: GoldenResult | None = None
        #: What it takes and gives, as JSON; empty where that is not known.
        self.schema = b""
        framework = plugins.bound(binding.framework, wrappers=False) if binding.framework else None
        self.context = Context(
            artifact.name,
            str(artifact.path),
            settings=settings,
            options=artifact.manifest.settings,
            framework=framework,
        )
        try:
            requests = {} if settings.golden == "off" else golden.read(artifact)
            self._model = self._hooks.load(artifact, self.context)
            self._batch = self._hooks.batch(self._model, self.context) if settings.batching else None
            self._tell_schema(artifact)
            if requests:
                self._ask(requests)
        except (LoadFailed, OutOfMemory):
            raise
        except MemoryError as error:
            raise OutOfMemory(f"memory ran out while loading {artifact.name!r}") from error
        except (Exception, SystemExit) as error:  # a script may well call sys.exit()
            logger.exception("loading %r failed", artifact.name)
            raise LoadFailed(
                f"{artifact.name!r} cannot be loaded by the plugin {binding.plugin!r}: {_describe(error)}"
            ) from error

    @property
    def notes(self) -> list[str]:
        """What the plugin had to say of the model while loading it."""
        return self.context.notes

    def _tell_schema(self, artifact: Artifact) -> None:
        """Find out what it takes and gives; what the artifact declares is what requests are held to."""
        declared = artifact.manifest.schema
        try:
            own = self._plain.schema(self._model, self.context)
            if (schema := declared or own) is not None:
                self.schema = encode(schema)
        except Exception as error:
            own = None
            logger.exception("what %r takes cannot be described", artifact.name)
            self.context.note(f"its schema cannot be shown: {_describe(error)}")
        self._check = columns.checker(declared, own)

    def _ask(self, requests: Mapping[int, Golden]) -> None:
        """Ask golden requests, which also warms the model up.

        :raises GoldenFailed: if one is answered wrongly, unless that is only to be flagged.
        """
        watched, self._hooks, self._predict_fn = self._hooks, self._plain, self._plain.predict_fn
        failed = 0
        try:
            for failure in golden.failures(requests, lambda invocation: self.invoke([invocation])[0]):
                if self.context.settings.golden == "refuse":
                    raise GoldenFailed(f"{self.context.target_model!r} fails a golden request: {failure}")
                failed += 1
                self.context.note(failure)
        except ManyModelsError:
            watched.unload(self._model, self.context)
            raise
        finally:
            self._hooks, self._predict_fn = watched, watched.predict_fn
        self.golden = GoldenResult(len(requests), failed)

    def accelerate(self) -> Iterator[None]:
        """Ask the plugin for a faster predictor and let it serve if it agrees and is faster.

        A generator, to be run on while nobody waits; `predictor` says how it ended.
        """
        predictor = yield from self._compared()
        if predictor.name != ORIGINAL:
            self._predict_fn = self._hooks.in_place_of_predict_fn(self._accelerated)
        else:
            self._faster = None
        self.predictor, self.news = predictor, True

    def _compared(self) -> Generator[None, None, Predictor]:
        settings = self.context.settings
        if settings.accelerate == "off":
            return Predictor(reason="accelerate is off")
        try:
            offer = self._plain.accelerate(self._model, self.context)
            if offer is None:
                return Predictor(reason="the plugin knows no faster one")
            self._faster = offer.predict
            tolerance = None if settings.accelerate == "strict" else settings.accelerate_tolerance
            yield
            return (yield from compare(offer, self._original, self._batch, tolerance))
        except (Exception, SystemExit) as error:
            logger.exception("making a faster predictor of %r failed", self.context.target_model)
            return Predictor(reason=f"making a faster one failed: {_describe(error)}")

    def _original(self, data: Any) -> Any:
        return self._plain.predict_fn(data, self._model, self.context)

    def _accelerated(self, data: Any, model: Any, context: Context) -> Any:
        """Stand in for ``predict_fn``; what the faster predictor leaves to the original, it answers."""
        if self._faster is not None:
            try:
                return self._faster(data)
            except LeftToOriginal:
                pass
            except (Exception, SystemExit) as error:
                logger.exception("the faster predictor of %r failed and is not used any more", context.target_model)
                self._faster = None
                self._predict_fn = self._hooks.predict_fn
                self.predictor = Predictor(reason=f"the faster one failed: {_describe(error)}")
                self.news = True
        return self._plain.predict_fn(data, model, context)

    def unload(self) -> None:
        """Let the plugin release what it holds."""
        self._hooks.unload(self._model, self.context)

    def invoke(self, invocations: Sequence[Invocation]) -> list[Answer | ManyModelsError]:
        """Answer invocations that arrived together, each with an answer or an error of its own."""
        return [self._whole(result) if isinstance(result, Streaming) else result for result in self.stream(invocations)]

    def stream(self, invocations: Sequence[Invocation]) -> list[Answer | ManyModelsError]:
        """Answer invocations; of an answer that the plugin yields, a `Streaming`, only the first part is made."""
        calls = [_Call(invocation, self._context(invocation)) for invocation in invocations]
        if len(calls) > 1 and self._batch is not None:
            for call in calls:
                self._run(call, self._decode)
            live = [call for call in calls if call.outcome is None]
            joined = len(live) > 1 and self._predict_joined(live, self._batch)
            for call in live:
                self._run(call, *((self._encode,) if joined else (self._predict, self._encode)))
        else:
            for call in calls:
                self._run(call, self._decode, self._predict, self._encode)
        outcomes = [call.outcome for call in calls]
        return cast("list[Answer | ManyModelsError]", outcomes)  # each has one: its last step sets it, or fails

    def _context(self, invocation: Invocation) -> Context:
        accept = invocation.accept
        if accept is None or any_accept(accept):
            accept = self.context.settings.default_accept
        return self.context.for_request(invocation, accept)

    def _run(self, call: _Call, *steps: Callable[[_Call], None]) -> None:
        """Do the steps in turn; an error is the call's outcome, and ends them."""
        step = None
        try:
            for step in steps:
                step(call)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - logged there
            call.outcome = self._failure(error, getattr(step, "__name__", "").strip("_"))

    def _failure(self, error: BaseException, step: str = "streaming") -> ManyModelsError:
        """Return what is answered instead."""
        if isinstance(error, ManyModelsError):
            return error
        if isinstance(error, MemoryError):
            return OutOfMemory(f"memory ran out while {self.context.target_model!r} answered")
        logger.error("%s of %r failed", step, self.context.target_model, exc_info=error)
        return PredictionFailed(f"{self.context.target_model!r} failed: {_describe(error)}")

    def _whole(self, streaming: Streaming) -> Answer | ManyModelsError:
        try:
            return streaming.whole()
        except ManyModelsError as error:
            return error

    def _decode(self, call: _Call) -> None:
        invocation = call.invocation
        if invocation.upload is not None:
            invocation = call.invocation = call.context.invocation = _with_body(invocation)
        if self._check is not None:
            self._check(invocation.body, invocation.content_type)
        call.data = self._hooks.input_fn(invocation.body, invocation.content_type, self._model, call.context)

    def _predict(self, call: _Call) -> None:
        start = time.perf_counter()
        try:
            call.prediction = self._predict_fn(call.data, self._model, call.context)
        finally:
            call.seconds = time.perf_counter() - start

    def _predict_joined(self, calls: list[_Call], batch: Batch) -> bool:
        """Answer all calls with one; False leaves each to be run alone, so that no input fails another's."""
        start = time.perf_counter()
        try:
            joined = batch.join([call.data for call in calls])
            if joined is None:
                return False
            data, counts = joined
            shares = batch.split(self._predict_fn(data, self._model, calls[0].context), counts)
            if len(shares) != len(calls):
                raise ValueError(f"the plugin's batch split an answer to {len(calls)} into {len(shares)}")
        except Exception as error:  # noqa: BLE001 - whose input it was shows when each runs alone
            logger.debug("%d joined calls of %r run alone: %s", len(calls), self.context.target_model, error)
            return False
        seconds = time.perf_counter() - start
        for call, share in zip(calls, shares, strict=True):
            call.prediction = share
            call.seconds = seconds
        return True

    def _encode(self, call: _Call) -> None:
        context = call.context
        body, content_type = self._hooks.output_fn(call.prediction, self._model, context.accept, context)
        rest = None
        if isinstance(body, Iterator):
            rest = Parts(body, self._failure)
            start = time.perf_counter()
            body = next(rest, b"")  # first: what it sets of the reply until then goes into the head
            call.seconds += time.perf_counter() - start
        content_type = context.response_content_type or content_type
        status, headers = context.response_status, context.response_headers
        if (
            headers
            or type(status) is not int
            or status != 200
            or type(content_type) is not str
            or not content_type.isascii()
        ):
            # There and back: what a plugin set may be of any type, or out of range, or text that cannot be sent.
            content_type, status, headers = _head.decode(msgspec.msgpack.encode((content_type, status, headers)))
        body = body.encode() if isinstance(body, str) else bytes(body)
        timings = {"predict": call.seconds}
        if rest is None:
            call.outcome = Answer(body, content_type, status, headers, timings)
        else:
            call.outcome = Streaming(body, content_type, status, headers, timings, rest=rest)


def _describe(error: BaseException) -> str:
    """Return an exception in one line; native libraries put stacks and paths behind the first."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def _with_body(invocation: Invocation) -> Invocation:
    try:
        return invocation.whole()
    except OSError as error:
        raise PredictionFailed(
            f"the body is gone, and with it who waited for the answer, or the process that took the request: {error}"
        ) from error

"""Whether answers that the plugin yields come in parts, and end well whoever ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ManyModelsError, OutOfMemory, RequestError
from ..golden import Golden
from ..invocation import Answer, Invocation
from ..sagemaker import BODY_LIMIT
from ..server import ModelServer
from ..server.streams import collected, discard
from ..server.workers import create
from ..settings import load
from . import spoilt
from .outcome import Failed, NotApplicable
from .subject import SAMPLE, Hooked, Subject, check_answer

#: Seconds for an answer of a worker.
_PATIENCE = 30.0


def streams_in_parts(subject: Subject) -> str:
    """Golden requests whose answers are yielded get them in parts that are the whole answer when they are joined.

    A client that goes away closes the generator, which has to end then and leave the model as it was. Whatever body
    comes: a stream that breaks off does so with the client's fault, as `survives-bad-input` has it, and its worker
    answers on. One that yields its whole answer at once gains nothing by it.
    """
    hooked = subject.hooked()
    streamed = [golden for golden in subject.golden if isinstance(_body(hooked, golden), Iterator)]
    if not streamed:
        raise NotApplicable("no answer to a golden request is yielded")
    most = max(sum(1 for part in _body(hooked, golden) if part) for golden in streamed)
    if most < 2:
        raise Failed("each stream yields its whole answer at once")
    for golden in streamed:
        _leave(_body(hooked, golden))
    subject.check_all(subject.model(), " after streams that their clients left")
    bad = asyncio.run(_from_a_worker(subject, streamed))
    return f"up to {most} parts; {bad} bad requests"


def _body(hooked: Hooked, golden: Golden) -> Any:
    data, context = hooked.decode(golden)
    return hooked.hooks.output_fn(hooked.predict(data, context), hooked.model, context.accept, context)[0]


def _leave(body: Any) -> None:
    """Read one part and no more, as the platform does when a client goes away."""
    next(body, b"")
    try:
        getattr(body, "close", lambda: None)()
    except (Exception, SystemExit) as error:
        raise Failed(f"a stream whose client goes away ends with {type(error).__name__}: {error}") from error


async def _from_a_worker(subject: Subject, streamed: Sequence[Golden]) -> int:
    """Ask a worker for streams, to their end and not, and for bad ones; return the number of these."""
    server: ModelServer = create(load(workers=1, multi_model=True))
    await server.start([subject.name])
    try:
        pids = (await server.load(SAMPLE, subject.path, subject.binding)).workers
        number = 0
        for golden in streamed:
            discard(await server.invoke(SAMPLE, golden.invocation(), _PATIENCE))
            check_answer("a stream of a worker whose client left", golden, await _ask(server, golden.invocation()))
            for what, invocation in spoilt.bodies(golden):
                result = await _ask(server, invocation)
                if isinstance(result, ManyModelsError) and not isinstance(result, (RequestError, OutOfMemory)):
                    raise Failed(
                        f"a stream for {what}, sent as {invocation.content_type}, "
                        f"ends with {type(result).__name__}: {result}"
                    )
                number += 1
            check_answer("a stream after bad ones", golden, await _ask(server, golden.invocation()))
        if server.describe(SAMPLE).workers != pids:
            raise Failed("the worker that streams was ended")
        return number
    finally:
        await server.stop()


async def _ask(server: ModelServer, invocation: Invocation) -> Answer | ManyModelsError:
    try:
        return await collected(await server.invoke(SAMPLE, invocation, _PATIENCE), BODY_LIMIT)
    except ManyModelsError as error:
        return error

"""Answers what is queued: reads the input from S3, invokes the model, writes the answer to S3."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from ..errors import BadMember, BodyTooLarge, InternalFailure, LoadFailed, ManyModelsError, Overloaded, StoreUnavailable
from ..invocation import Upload
from ..metrics.record import Metrics
from ..server.tasks import Tasks
from ..spool import release
from .queue import Begun, Queue, Queued

if TYPE_CHECKING:  # it needs the package botocore, which is not always there
    from ..store.exchange import Exchange, Stated
    from .notices import Notices

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Invocations in hand at a time: those beyond the ones that models run read their input or write their answer.
IN_HAND = 16
#: Seconds between looks at what was postponed.
TICK = 0.5
#: Seconds before what could not be done now is tried again; they double up to the second.
BACK_OFF = (0.5, 60.0)
#: What an answer says of whose it is, as metadata of its object.
NOTE = "manymodels-invocation"
#: Which artifact answered to a name above artifacts, percent-encoded as metadata has to be.
ARTIFACT = "manymodels-target-model"


class Outcome(msgspec.Struct, frozen=True):
    """What an invocation came to."""

    #: Empty if an earlier server wrote it.
    body: bytes
    content_type: str
    #: Whether it is the model's answer, and not an error.
    succeeded: bool
    #: Whether trying again later may help.
    passing: bool = False
    #: What was asked in place of a name above artifacts, as HTTP has it.
    artifact: str | None = None


class Invoker(Protocol):
    """Who answers an invocation, as it would a client's that waits for it."""

    async def invoke(self, queued: Queued, body: bytes | Upload) -> Outcome:
        """Invoke the model; whatever goes wrong is an outcome."""

    def failed(self, queued: Queued, error: ManyModelsError) -> Outcome:
        """Return the outcome of what could not be asked of the model."""


class Runner:
    """Answers what is queued, some at a time."""

    def __init__(
        self, queue: Queue, exchange: Exchange, notices: Notices, metrics: Metrics, *, at_a_time: int, max_input: int
    ) -> None:
        """Begin nothing yet.

        :param at_a_time: invocations that models run at a time.
        :param max_input: bytes an input may have, and all that are in memory together; as many for answers that
            cannot be written yet.
        """
        self._queue = queue
        self._exchange = exchange
        self._notices = notices
        self._metrics = metrics
        self._max_input = max_input
        self._invoking = asyncio.Semaphore(at_a_time)
        self._in_hand = asyncio.Semaphore(IN_HAND)
        self._held = 0
        self._let_go = asyncio.Condition()
        #: Bytes of answers that wait to be written and are not in hand.
        self._aside = 0
        self._added = asyncio.Event()
        self._tasks = Tasks("answering asynchronous invocations")

    def start(self, invoker: Invoker) -> None:
        """Answer what is in the queue, and what comes."""
        self._invoker = invoker
        self._tasks.run(self._run())

    async def stop(self) -> None:
        """End; what is not answered yet is begun again when the queue is next opened."""
        await self._tasks.stop()
        await self._queue.close()

    async def add(self, queued: Queued) -> str:
        """Take on an invocation; see `Queue.add`."""
        taken = await self._queue.add(queued)
        self._added.set()
        self._count()
        return taken

    def _count(self) -> None:
        self._metrics.async_queued, self._metrics.async_running = self._queue.waiting, self._queue.running

    async def _run(self) -> None:
        """Begin what is due, as long as few enough are in hand."""
        while True:
            await self._in_hand.acquire()
            self._added.clear()
            begun = await self._firmly(self._queue.take)
            self._count()
            if begun is not None:
                self._tasks.run(self._answer(begun))
                continue
            self._in_hand.release()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._added.wait(), TICK)

    async def _answer(self, begun: Begun) -> None:
        queued = begun.queued
        place = contextlib.ExitStack()
        place.callback(self._in_hand.release)
        try:
            written = await self._found(queued, place) if begun.before else None
            if written is None:
                outcome = self._damaged(begun) if begun.damage else await self._outcome(queued)
                if outcome.passing and time.time() < queued.expires:
                    wait = _back_off(begun.before)
                    await self._firmly(lambda: self._queue.postpone(begun, wait))
                    return
                written = await self._write(queued, outcome, place)
            await self._notices.tell(queued, written)
            await self._firmly(lambda: self._queue.end(begun, remember=written.succeeded))
            self._metrics.async_ended["done" if written.succeeded else "failed"] += 1
        except LoadFailed as error:
            logger.error("an asynchronous answer is given up, which expired: %s", error, extra={"model": queued.model})
            await self._firmly(lambda: self._queue.end(begun, remember=False))
            self._metrics.async_ended["failed"] += 1
        except Exception:
            logger.exception("an asynchronous invocation is put off", extra={"model": queued.model})
            await self._firmly(lambda: self._queue.postpone(begun, BACK_OFF[1]))
        finally:
            place.close()
            self._count()

    async def _outcome(self, queued: Queued) -> Outcome:
        """Invoke the model, unless there is no input or it is too late."""
        try:
            async with self._input(queued) as body, self._invoking:
                if time.time() < queued.expires:
                    return await self._invoker.invoke(queued, body)
            raise BadMember("the invocation expired: it was not begun within RequestTTLSeconds")
        except StoreUnavailable as error:
            logger.warning("an input cannot be read yet: %s", error, extra={"model": queued.model})
            return msgspec.structs.replace(self._invoker.failed(queued, error), passing=True)
        except ManyModelsError as error:
            return self._invoker.failed(queued, error)

    def _damaged(self, begun: Begun) -> Outcome:
        """Return the outcome of what cannot be read in the queue."""
        text = f"the queue has lost what was asked ({begun.damage}); send it again"
        logger.error("an asynchronous invocation has failed: %s", text, extra={"model": begun.queued.model})
        return self._invoker.failed(begun.queued, InternalFailure(text))

    # -- Inputs --

    @contextlib.asynccontextmanager
    async def _input(self, queued: Queued) -> AsyncIterator[bytes | Upload]:
        """Read an invocation's input, once there is memory for it.

        :raises BadMember: if it cannot be read.
        :raises StoreUnavailable: if that may pass.
        """
        if queued.input is None or time.time() >= queued.expires:
            yield queued.body
            return
        with _readable():
            stated = await self._exchange.state(queued.input)
        if stated is None:
            raise BadMember(f"InputLocation cannot be read: there is no object {queued.input!r}")
        if stated.size > self._max_input:
            raise BodyTooLarge(
                f"{queued.input!r} has {stated.size} bytes, and the limit is {self._max_input}; raise --async-max-body"
            )
        async with self._room(stated.size):
            with _readable():
                body = await self._exchange.read(queued.input, stated)
            try:
                yield body
            finally:
                if isinstance(body, Upload):
                    release(body)

    @contextlib.asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for an input among those in memory."""
        async with self._let_go:
            await self._let_go.wait_for(lambda: self._held + size <= self._max_input)
            self._held += size
        try:
            yield
        finally:
            async with self._let_go:
                self._held -= size
                self._let_go.notify_all()

    # -- Outputs --

    async def _found(self, queued: Queued, place: contextlib.ExitStack) -> Outcome | None:
        """Return what an invocation that was begun before came to, without its body; None if that is not there."""
        for address in (queued.output, queued.failure):
            if (stated := await self._there(address, queued, place)) is not None:
                return Outcome(b"", stated.content_type, succeeded=address == queued.output)
        return None

    async def _there(self, address: str, queued: Queued, place: contextlib.ExitStack, size: int = 0) -> Stated | None:
        stated = await self._patiently(lambda: self._exchange.state(address), queued, place, size)
        return stated if stated is not None and stated.notes.get(NOTE) == queued.id else None

    async def _write(self, queued: Queued, outcome: Outcome, place: contextlib.ExitStack) -> Outcome:
        """Write an outcome; return what is written, which is a failure if there is another object in its stead."""
        if outcome.succeeded:
            size = len(outcome.body)
            if await self._create(queued, queued.output, outcome, place):
                return outcome
            if await self._there(queued.output, queued, place, size):
                return outcome
            outcome = self._invoker.failed(
                queued,
                BadMember(
                    f"there is an object {queued.output!r} already, which is left as it is; "
                    "choose another InferenceId, Filename or S3OutputPathExtension"
                ),
            )
        await self._create(queued, queued.failure, outcome, place, replace=True)
        return outcome

    async def _create(
        self, queued: Queued, address: str, outcome: Outcome, place: contextlib.ExitStack, *, replace: bool = False
    ) -> bool:
        notes = {NOTE: queued.id}
        if outcome.artifact is not None:
            notes[ARTIFACT] = quote(outcome.artifact, encoding="latin-1")

        def write() -> Awaitable[bool]:
            return self._exchange.write(address, outcome.body, outcome.content_type, notes, replace=replace)

        return await self._patiently(write, queued, place, len(outcome.body))

    async def _patiently(
        self, ask: Callable[[], Awaitable[T]], queued: Queued, place: contextlib.ExitStack, size: int
    ) -> T:
        """Ask until it is answered: what has been predicted is not to be predicted again.

        :param place: that of the invocation among those in hand, which another gets if this one has to wait.
        :param size: bytes that wait with it.
        :raises LoadFailed: if it is refused still after the invocation has expired.
        """
        tries = 0
        while True:
            try:
                return await ask()
            except LoadFailed as error:
                if not isinstance(error, StoreUnavailable) and time.time() >= queued.expires:
                    raise
                logger.error("an asynchronous answer cannot be written yet: %s", error, extra={"model": queued.model})
            if self._aside + size <= self._max_input:
                place.close()
                self._aside += size
                place.callback(self._take_back, size)
            await asyncio.sleep(_back_off(tries))
            tries += 1

    def _take_back(self, size: int) -> None:
        self._aside -= size

    async def _firmly(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write to the queue until that succeeds."""
        while True:
            try:
                return await write()
            except Overloaded:  # the queue has logged why
                await asyncio.sleep(1.0)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Say of an input that cannot be read that it is the client's; but not of a store that is away."""
    try:
        yield
    except StoreUnavailable:
        raise
    except LoadFailed as error:
        raise BadMember(f"InputLocation cannot be read: {error}") from error


def _back_off(tries: int) -> float:
    first, last = BACK_OFF
    return min(first * 2.0 ** min(tries, 20), last) * random.uniform(0.5, 1.0)  # noqa: S311

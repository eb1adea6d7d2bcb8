"""Ask shadows what others answered, and compare; whoever waits for the answer has it by then."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from ..agreement import Disagreement
from ..errors import ManyModelsError, Overloaded
from ..golden import Golden
from ..invocation import Answer, Invocation
from ..metrics.record import ShadowCounts
from ..sagemaker import SESSION_ID
from ..server.streams import Streamed, collected
from .rules import Shadow

logger = logging.getLogger(__name__)

#: Requests that the shadow of one name, and that all shadows, answer at a time; beyond, they are not asked.
EACH = 8
ALL = 64
#: Bytes of bodies and answers that are kept for them.
HELD = 32 << 20
#: Bytes of two answers that are compared in the event loop, in less time than a thread takes; and of those that are
#: compared at all.
INLINE = 4 << 10
COMPARED = 2 << 20


class Shadows:
    """Asks shadows."""

    def __init__(self, ask: Callable[[str, Invocation], Awaitable[Answer]]) -> None:
        """Begin with none under way.

        :param ask: answers an invocation of an artifact.
        """
        self._ask = ask
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: Counter[str] = Counter()
        self._held = 0

    def begin(self, name: str, shadow: Shadow, invocation: Invocation, served: Answer, counts: ShadowCounts) -> None:
        """Ask the shadow of a name, if it is its turn, and there are not too many asked already."""
        # It may be among what the name serves; and of what is streamed, no copy is kept.
        if shadow.model == served.target_model or served.status >= 300 or isinstance(served, Streamed):
            return
        if SESSION_ID in invocation.headers:  # it would open sessions that nobody closes
            return
        if random.random() >= shadow.share:  # noqa: S311 - no secret
            return
        size = invocation.size + len(served.body)
        if len(self._tasks) >= ALL or self._asked[name] >= EACH or self._held + size > HELD:
            counts.dropped += 1
            return
        try:
            invocation = invocation.whole()  # a large body is there until the client is answered
        except OSError:  # it hung up meanwhile
            counts.dropped += 1
            return
        self._held += size
        self._asked[name] += 1
        task = asyncio.create_task(self._answer(shadow, invocation, served, counts))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._end(task, name, size))

    def _end(self, task: asyncio.Task[None], name: str, size: int) -> None:
        self._tasks.discard(task)
        self._held -= size
        self._asked[name] -= 1
        if not self._asked[name]:
            del self._asked[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a shadow's answer was not compared", exc_info=error, extra={"model": name})

    async def _answer(self, shadow: Shadow, invocation: Invocation, served: Answer, counts: ShadowCounts) -> None:
        try:
            # The client's deadline says how long it waits for its answer, which it has.
            asked = self._ask(shadow.model, msgspec.structs.replace(invocation, deadline=math.inf))
            answer = await collected(await asked, COMPARED)
        except Overloaded:
            counts.dropped += 1
            return
        except ManyModelsError as error:
            counts.failed += 1
            counts.last = f"{type(error).__name__}: {error}"
            return
        try:
            difference = await _compare(shadow, served, answer)
        except Disagreement as error:
            counts.differed += 1
            counts.last = str(error)
        else:
            counts.agreed += 1
            counts.largest = max(counts.largest, difference)

    def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()


async def _compare(shadow: Shadow, served: Answer, answer: Answer) -> float:
    """Return the largest difference of two numbers in the answers.

    :raises Disagreement: if they differ by more than the shadow may.
    """
    if answer.status != served.status:
        raise Disagreement(f"status {answer.status} instead of {served.status}")
    if (served.body, served.content_type) == (answer.body, answer.content_type):
        return 0.0
    size = len(served.body) + len(answer.body)
    if size > COMPARED:
        raise Disagreement(f"other bytes, in more than the {COMPARED >> 20} MiB that are compared as values")
    expected = Golden(body=b"", answer=served.body, answer_content_type=served.content_type, tolerance=shadow.tolerance)
    answer = msgspec.structs.replace(answer, status=200)  # which is that of golden requests
    if size <= INLINE:
        return expected.check(answer)
    return await asyncio.get_running_loop().run_in_executor(None, expected.check, answer)

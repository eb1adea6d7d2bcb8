"""Invocations of a session go to the worker that opened it, where the model keeps what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..invocation import Answer, Invocation
from ..sagemaker import CLOSED_SESSION_ID, NEW_SESSION_ID, SESSION_ID

if TYPE_CHECKING:
    from .jobs import Call, Resident
    from .slot import Slot

#: Most characters of a session's id (shape NewSessionResponseHeader); longer ones are not remembered.
LONGEST = 256
#: Sessions remembered of one model; of the others, invocations go where those without a session go.
MOST = 10_000
_NEW = NEW_SESSION_ID.lower()
_CLOSED = CLOSED_SESSION_ID.lower()


def slot_of(resident: Resident, invocation: Invocation) -> Slot | None:
    """Return where the session of an invocation is; None if it has none that is known, or that worker is gone."""
    if not resident.sessions or (session := invocation.headers.get(SESSION_ID)) is None:
        return None
    slot = resident.sessions.get(session)
    return slot if slot is not None and resident in slot.held else None


def note(call: Call, answer: Answer) -> None:
    """Take note of the sessions that an answer opens and closes."""
    sessions = call.resident.sessions
    for name, value in answer.headers.items():
        if name.lower() == _NEW and call.slot is not None and len(value) <= LONGEST:
            session = value.partition(";")[0].strip()
            sessions.pop(session, None)
            sessions[session] = call.slot
            if len(sessions) > MOST:
                del sessions[next(iter(sessions))]
        elif name.lower() == _CLOSED:
            sessions.pop(value.strip(), None)

"""Trials of faster predictors, in idle moments of the process that holds the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from ..model import Model
from ..trial import ORIGINAL, Predictor
from .chores import Chores
from .memory import allocated
from .messages import sendable

#: Invocations after which a faster predictor is tried at once: for fewer, the trial costs more than it saves.
ASKED = 4
#: A number that no model has.
NOBODY = 0
#: Longest reason that is passed on, in characters; a plugin's error may be of any length.
_REASON = 1000


class Trials:
    """Has models accelerated by chores."""

    def __init__(self, chores: Chores, begins: Callable[[int], None], serves: Callable[[int, Predictor], None]) -> None:
        """Have no model yet.

        :param begins: called with a model's number before a faster predictor of it is made or tried, which may end
            the process; with `NOBODY` before what comes between its steps.
        :param serves: called with what serves a model from now on; after a trial, and if it changes later.
        """
        self._chores = chores
        self._begins = begins
        self._serves = serves
        #: The model whose steps the front knows of.
        self._trying: int | None = None

    def loaded(self, number: int, model: Model, *, allowed: bool) -> None:
        """Take on a model, by a number of the caller's that is also the key of its chore."""
        if allowed:
            self._chores.add_unhurried(number, partial(self._try, number, model))
        else:
            model.predictor, model.news = Predictor(reason="its worker ended while a faster one was tried"), True

    def pause(self) -> None:
        """Say before a job that no step is being done, where the front knows of one."""
        if self._trying is not None:
            self._trying = None
            self._begins(NOBODY)

    def asked(self, number: int, model: Model) -> None:
        """Take note that a model was asked."""
        if model.asked >= ASKED and model.predictor is None:
            self._chores.hasten(number)
        self._tell(number, model)

    def _try(self, number: int, model: Model) -> Iterator[None]:
        self._begin(number)
        before = allocated()
        steps = model.accelerate()
        next(steps, None)  # makes it; what comes then compares it
        taken = max(0, allocated() - before)
        yield
        self._begin(number)
        for _ in steps:
            yield
            self._begin(number)
        assert model.predictor is not None
        if model.predictor.name != ORIGINAL:
            model.predictor = msgspec.structs.replace(model.predictor, bytes=taken)
        self._tell(number, model)

    def _begin(self, number: int) -> None:
        """Say of which model the next step is, where the front knows of no step or of another's."""
        if self._trying != number:
            self._trying = number
            self._begins(number)

    def _tell(self, number: int, model: Model) -> None:
        if model.predictor is not None and model.news:
            model.news = False
            self._trying = None  # the front takes what follows for the end of a trial
            reason = sendable(model.predictor.reason)[:_REASON]
            self._serves(number, msgspec.structs.replace(model.predictor, reason=reason))

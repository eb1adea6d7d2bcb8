"""A faster way to the predictions of one model; what the ``accelerate`` hook returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class LeftToOriginal(Exception):
    """Raised by `Accelerated.predict` for data it does not take; the original answers, or refuses it."""


@dataclass(frozen=True)
class Accelerated:
    """A predictor that stands in for the plugin's ``predict_fn`` once it has shown that it agrees with it."""

    #: What computes, for the model's description, such as ``treelite``.
    name: str
    #: Takes what ``predict_fn`` takes as `data`, joined or not, and returns what it returns, to its types;
    #: leaves the data as it is.
    #: Whatever the original refuses it leaves to it, by raising `LeftToOriginal`.
    predict: Callable[[Any], Any]
    #: Data to compare both by, as ``input_fn`` or ``batch`` return it: made from the model's own thresholds,
    #: ranges and categories, so that every branch side is met. The first is of a single row, as requests are
    #: most often; the speed of both is compared on it, and on the last. Keep each so small that the original
    #: answers it in some ten milliseconds, for a request may come meanwhile and wait.
    probes: Sequence[Any]

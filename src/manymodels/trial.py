"""Let a faster predictor show that it agrees with the original, and that it is faster."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from .acceleration import Accelerated, LeftToOriginal
from .agreement import Disagreement, difference
from .batching import Batch

#: Name of the plugin's own ``predict_fn`` in descriptions.
ORIGINAL = "original"
#: Calls of which the fastest counts: what else the machine does makes single ones slow, never fast.
REPEATS = 5


class Predictor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Which predictor serves a model, and how it compared."""

    name: str = ORIGINAL
    #: Why the original serves.
    reason: str = ""
    #: The largest difference to the original on the probes, relative to ``max(1, |value|)``.
    difference: float | None = None
    #: Microseconds that each took for the first probe, a single row.
    original_us: float | None = None
    accelerated_us: float | None = None
    #: Memory the faster one takes beside the original, in bytes.
    bytes: int | None = None


def compare(
    offer: Accelerated, original: Callable[[Any], Any], batch: Batch | None, tolerance: float | None
) -> Generator[None, None, Predictor]:
    """Compare both on every probe, and on probes joined; then time both; return who serves.

    :param tolerance: as `difference` takes it.
    :returns: a generator that stops after each call of either predictor, so that requests need not wait
        for all of them. What the predictor raises is the reason why the original serves.
    """
    try:
        worst = 0.0
        for data in [*offer.probes, *_joined(offer, batch)]:
            worst = max(worst, (yield from _difference(offer, original, data, tolerance)))
        return (yield from _timed(offer, original, worst))
    except Disagreement as error:
        return Predictor(reason=f"{offer.name} does not agree: {error}")
    except LeftToOriginal:
        return Predictor(reason=f"{offer.name} leaves single rows to it")
    except Exception as error:  # noqa: BLE001 - whatever it is, the original is not concerned
        return Predictor(reason=f"{offer.name} failed on its probes: {type(error).__name__}: {error}")


def _joined(offer: Accelerated, batch: Batch | None) -> list[Any]:
    """Return what requests for the first and the last probe would be joined to."""
    if batch is None or not offer.probes:
        return []
    first, last = offer.probes[0], offer.probes[-1]
    # A copy each: a joined array may be one of its parts.
    pairs = [batch.join([copy.deepcopy(first), copy.deepcopy(other)]) for other in (first, last)]
    return [pair[0] for pair in pairs if pair is not None]


def _difference(
    offer: Accelerated, original: Callable[[Any], Any], data: Any, tolerance: float | None
) -> Generator[None, None, float]:
    refusal = None
    expected = None
    try:
        # Copies, since an estimator may be set to work in place.
        expected = original(copy.deepcopy(data))
    except Exception as error:  # noqa: BLE001 - probes that are refused are probes too
        refusal = error
    yield
    try:
        actual = offer.predict(copy.deepcopy(data))
    except LeftToOriginal:
        return 0.0
    if refusal is not None:
        raise Disagreement(f"it answers what is refused with {type(refusal).__name__}")
    yield
    return difference(expected, actual, tolerance)


def _timed(offer: Accelerated, original: Callable[[Any], Any], worst: float) -> Generator[None, None, Predictor]:
    if not offer.probes:
        return Predictor(reason=f"{offer.name} came without probes")
    one = yield from _fastest(offer, original, offer.probes[0])
    many = yield from _fastest(offer, original, offer.probes[-1])
    slow = "one row" if one[1] >= one[0] else "many rows" if many[1] > many[0] else ""
    return Predictor(
        name=ORIGINAL if slow else offer.name,
        reason=f"{offer.name} is not faster for {slow}" if slow else "",
        difference=worst,
        original_us=round(one[0] * 1e6, 1),
        accelerated_us=round(one[1] * 1e6, 1),
    )


def _fastest(
    offer: Accelerated, original: Callable[[Any], Any], data: Any
) -> Generator[None, None, tuple[float, float]]:
    best = [float("inf"), float("inf")]
    for _ in range(REPEATS):
        for which, predict in enumerate((original, offer.predict)):
            given = copy.deepcopy(data)
            start = time.perf_counter()
            predict(given)
            best[which] = min(best[which], time.perf_counter() - start)
            yield
    return best[0], best[1]

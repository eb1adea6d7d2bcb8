"""Whether the plugin answers what it is asked, alone, joined, and by its faster predictor."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Generator

from ..trial import Predictor, compare
from .outcome import Failed, NotApplicable
from .subject import Subject, check_answer

#: Groups of requests that are joined, beside every request with itself.
_GROUPS = 30


def loads(subject: Subject) -> str:
    """The sample artifact can be loaded, twice at a time, and unloaded.

    Once more under another name and path, since a store has many models of one kind.
    """
    first, second = subject.model(), subject.model(subject.copy())
    first.unload()
    subject.check_all(second, " after another model was unloaded")
    second.unload()
    return "; ".join(first.notes)


def answers_as_expected(subject: Subject) -> str:
    """Each golden request is answered as `sample_artifact` says, in each content type, again and again."""
    model = subject.model()
    subject.check_all(model)
    subject.check_all(model, " asked again")
    return f"{len(subject.golden)} requests: {', '.join(sorted({golden.content_type for golden in subject.golden}))}"


def batch_equals_single(subject: Subject) -> str:
    """Requests that `batch` joins get the answers they get alone, whatever the split and the order.

    While a worker is busy requests wait, and are joined as they come. The platform runs them one by one where joining
    fails, so that a `join` or `split` that raises costs all that batching gains, and nobody sees it.
    """
    hooked = subject.hooked()
    batch = hooked.hooks.batch(hooked.model, hooked.context)
    if batch is None:
        raise NotApplicable("the plugin joins no requests")
    draw = random.Random(0)  # noqa: S311 - not for secrets
    groups = [[golden] * count for golden in subject.golden for count in (2, 7)]
    groups += [draw.choices(subject.golden, k=draw.choice((2, 3, 5, 16))) for _ in range(_GROUPS)]
    joined = 0
    for group in groups:
        calls = [hooked.decode(golden) for golden in group]
        pair = batch.join([data for data, _ in calls])
        if pair is None:
            continue
        joined += 1
        shares = batch.split(hooked.predict(pair[0], calls[0][1]), pair[1])
        if len(shares) != len(group):
            raise Failed(f"batch splits the answer to {len(group)} requests into {len(shares)}")
        for golden, (_, context), share in zip(group, calls, shares, strict=True):
            what = f"a request ({golden.content_type}) joined with {len(group) - 1} others"
            check_answer(what, golden, hooked.encode(share, context))
    if not joined:
        raise Failed("batch joins no two of the golden requests, not even a request with itself")
    return f"{joined} of {len(groups)} groups of requests fit together"


def accelerate_agrees(subject: Subject) -> str:
    """What `accelerate` offers agrees with `predict_fn`, on its own probes and on the golden requests."""
    hooked = subject.hooked()
    offer = hooked.hooks.accelerate(hooked.model, hooked.context)
    if offer is None:
        raise NotApplicable("the plugin has no faster predictor for its sample")
    if not offer.probes:
        raise Failed(f"{offer.name} comes without probes, so that the platform never uses it")
    asked = [hooked.decode(golden)[0] for golden in subject.golden]
    whole = dataclasses.replace(offer, probes=[offer.probes[0], *asked, *offer.probes[1:]])
    batch = hooked.hooks.batch(hooked.model, hooked.context)
    predictor = _result(compare(whole, hooked.predict, batch, subject.settings.accelerate_tolerance))
    if predictor.difference is None:
        raise Failed(predictor.reason)
    speed = f"one row in {predictor.accelerated_us} us instead of {predictor.original_us}"
    return f"{offer.name}, within {predictor.difference:.1g}; {speed}"


def _result(trial: Generator[None, None, Predictor]) -> Predictor:
    while True:
        try:
            next(trial)
        except StopIteration as end:
            predictor: Predictor = end.value
            return predictor

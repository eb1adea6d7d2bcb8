"""Whether bad requests and bad artifacts cost nobody but those who sent them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import LoadFailed, ManyModelsError, OutOfMemory, RequestError
from ..golden import Golden
from ..invocation import Answer, Invocation
from ..model import Model
from ..pickles import is_pickle
from . import spoilt
from .outcome import Failed, NotApplicable
from .pickle_bomb import pickles
from .subject import SAMPLE, Subject, ask

#: Files of the sample that are damaged one after another.
_MOST_FILES = 20


def survives_bad_input(subject: Subject) -> str:
    """Bad bodies and headers are answered, or refused as the client's fault; good ones are answered as before.

    Refused with `BadInput`, `UnsupportedContentType` or `UnsupportedAccept`: an exception of any other kind is a 500,
    which says that the server is broken. Bodies that are empty, cut short, garbage, huge, of other shapes, with NaN,
    nulls and infinities in place of numbers. What is refused tells the client no path of the server.
    """
    model = subject.model()
    number = 0
    for golden in _by_type(subject.golden):
        for what, invocation in [*spoilt.bodies(golden), *spoilt.headers(golden)]:
            _say(f"{what}, sent as {golden.content_type}")
            _check_refusal(subject, f"{what}, sent as {invocation.content_type},", ask(model, invocation))
            number += 1
    subject.check_all(model, f" after {number} bad ones")
    return f"{number} bad requests"


def refuses_other_widths(subject: Subject) -> str:
    """Rows with a number too many are refused with `BadInput`, and not answered as if they were right."""
    model = subject.model()
    kinds = []
    for golden in subject.golden:
        invocation = spoilt.wider(golden)
        if invocation is None:
            continue
        kinds.append(golden.content_type)
        answer = ask(model, invocation)
        if isinstance(answer, Answer) and answer.status < 300:
            raise Failed(f"rows with a number too many ({golden.content_type}) are answered: {answer.body[:80]!r}")
        _check_refusal(subject, f"a row with a number too many ({golden.content_type})", answer)
    if not kinds:
        raise NotApplicable("no golden request holds rows of numbers in JSON, CSV, npy or libsvm")
    return ", ".join(sorted(set(kinds)))


def survives_damaged_artifacts(subject: Subject) -> str:
    """A file that is empty, cut in half or garbage is refused when it is loaded, in a sentence, without a crash.

    Whoever loads a damaged file natively may end the worker, and all models in it. A file that the model does not
    need may be damaged.
    """
    number = 0
    for path, name in _copies(subject):
        content = path.read_bytes()
        noise = bytes((number * 167 + 13) % 256 for number in range(max(len(content), 64)))
        for what, damaged in {"empty": b"", "cut in half": content[: len(content) // 2], "garbage": noise}.items():
            _say(f"loading with {name} {what}")
            path.write_bytes(damaged)
            number += 1
            _load_damaged(subject, _root(path, name), f"with {name} {what}")
        path.write_bytes(content)
    subject.check_all(subject.model(), " after damaged artifacts were loaded")
    return f"{number} damaged artifacts"


def refuses_pickles(subject: Subject) -> str:
    """Where the sample needs no pickle, a pickle under its files' names is refused, and not executed.

    A plugin says by its sample whether it loads pickles. One that does not is trusted with artifacts of strangers.
    """
    names = [name for name in subject.artifact().files if is_pickle(subject.path / name)]
    if names:
        raise NotApplicable(f"the plugin's own artifacts hold pickles: {', '.join(names)}")
    marker = subject.scratch() / "executed"
    for path, name in _copies(subject):
        content = path.read_bytes()
        for bomb in pickles(marker):
            path.write_bytes(bomb)
            _load_damaged(subject, _root(path, name), f"with a pickle as {name}")
            if marker.exists():
                raise Failed(f"a pickle as {name} was executed")
        path.write_bytes(content)
    return ""


def _by_type(golden: Iterable[Golden]) -> list[Golden]:
    """Return one request of each content type."""
    return list({one.content_type: one for one in reversed(list(golden))}.values())


def _say(what: str) -> None:
    """Leave a note for whoever reads the output of a crash, in place of what was said before."""
    sys.stderr.flush()
    os.ftruncate(2, 0)
    print(what, file=sys.stderr, flush=True)  # noqa: T201


def _check_refusal(subject: Subject, what: str, result: Answer | ManyModelsError) -> None:
    if isinstance(result, Answer):
        return
    if not isinstance(result, (RequestError, OutOfMemory)):
        raise Failed(f"{what} is answered with {type(result).__name__}: {result}")
    _check_text(subject, what, result)


def _check_text(subject: Subject, what: str, error: ManyModelsError) -> None:
    if str(subject.folder.parent) in str(error):
        raise Failed(f"{what} is refused with a text that shows a path of the server: {error}")
    if "Traceback" in str(error):
        raise Failed(f"{what} is refused with a traceback: {error}")


def _copies(subject: Subject) -> Iterable[tuple[Path, str]]:
    """Yield each file in a copy of the sample, with its name."""
    root = subject.copy()
    return [(root / name, name) for name in subject.artifact().files[:_MOST_FILES]]


def _root(path: Path, name: str) -> Path:
    return path.parents[name.count("/")]


def _load_damaged(subject: Subject, root: Path, what: str) -> None:
    try:
        model: Model = subject.model(root)
    except (LoadFailed, OutOfMemory) as error:
        _check_text(subject, f"the {SAMPLE} {what}", error)
        return
    first = subject.golden[0]
    ask(model, Invocation(first.body, first.content_type, first.accept))
    model.unload()

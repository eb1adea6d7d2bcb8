"""How training failed, and where SageMaker reads it."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True):
    """Why a training job failed."""

    #: What the process ends with.
    exit_code: int
    #: One sentence for people; SageMaker shows the first 1,024 characters of the file as FailureReason.
    reason: str
    #: A traceback, or the end of what a script wrote to standard error.
    details: str = ""


def record(failure: Failure, path: Path) -> None:
    """Write the failure file, unless there is one: a script's own says more."""
    text = "\n\n".join(part for part in (failure.reason, failure.details.strip()) if part) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        logger.warning("%s exists already and is left as it is", path)
    except OSError as error:
        logger.error("%s cannot be written: %s", path, error.strerror)  # the reason is shown in any case

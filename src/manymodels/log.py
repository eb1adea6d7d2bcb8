"""Structured logs: one line a record, with the model it is about."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

#: Opens a line of a worker's error stream that is a log record and not something a script printed.
RECORD_MARK = "\x1e"

_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _PLAIN}


def _dumps(value: Any) -> str:
    # The standard library's: it takes what a log may hold, such as names of files that are not UTF-8.
    return json.dumps(value, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, message, then ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, a traceback below it."""
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{stamp} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Lines for machines: one JSON object each."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return _dumps(fields)


class WorkerFormatter(logging.Formatter):
    """Lines a worker sends to the front, told apart from what a script prints."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one marked line."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return RECORD_MARK + _dumps([record.levelno, record.name, text])


def configure(level: str, form: str) -> None:
    """Send all logs to standard error.

    :param level: name of the lowest level shown.
    :param form: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    # Which says at `info`, for each client, where it found its credentials.
    logging.getLogger("botocore").setLevel(logging.WARNING if level.upper() == "INFO" else logging.NOTSET)

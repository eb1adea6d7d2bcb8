"""A worker's output in the server's log: whole lines, bounded in length and number."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from manymodels.log import RECORD_MARK
from manymodels.server import worker_log
from manymodels.server.worker_log import LINE, RATE, WorkerLog


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> WorkerLog:
    """A log of process 7, which runs the model ``m``, at a time that stands still."""
    caplog.set_level(logging.INFO)
    at(monkeypatch, 1000.0)
    return WorkerLog(7, lambda: "m")


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the time."""
    monkeypatch.setattr(worker_log, "time", SimpleNamespace(monotonic=lambda: seconds))


def marked(level: int, name: str, text: str) -> bytes:
    """Return a log record as a worker sends it."""
    return (RECORD_MARK + json.dumps([level, name, text]) + "\n").encode()


def test_lines_are_put_together(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    for data in (b"one\ntw", b"o", b"\n\n  \nthr", b"ee"):
        log.data_received(data)
    assert caplog.messages == ["one", "two"]
    log.connection_lost(None)
    assert caplog.messages == ["one", "two", "three"]
    (record, *_) = caplog.records
    assert (record.name, record.levelname) == ("manymodels.worker", "INFO")
    assert (vars(record)["model"], vars(record)["worker"]) == ("m", 7)


def test_records_keep_their_level_and_logger(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    log.data_received(marked(logging.ERROR, "some.script", "failed: 100 %s\nTraceback"))
    log.data_received(marked(logging.DEBUG, "some.script", "unseen"))
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "some.script",
        logging.ERROR,
        "failed: 100 %s\nTraceback",
    )
    assert "some.script" not in logging.root.manager.loggerDict


@pytest.mark.parametrize("line", ["[]", "[1]", '["a", "b", "c"]', "{", '[20, "x", "cut of', ""])
def test_a_record_a_script_made_up_is_a_line(log: WorkerLog, caplog: pytest.LogCaptureFixture, line: str) -> None:
    log.data_received(f"{RECORD_MARK}{line}\nnext\n".encode())
    assert caplog.messages[-1] == "next"
    assert {record.name for record in caplog.records} == {"manymodels.worker"}


def test_bytes_that_are_no_text_are_replaced(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    log.data_received(b"caf\xe9 \x00\n" + RECORD_MARK.encode() + b'[20, "x", "caf\xe9"]\n')
    assert caplog.messages[0] == "caf\ufffd \x00"
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_long_lines_are_cut(log: WorkerLog, caplog: pytest.LogCaptureFixture, size: int) -> None:
    data = b"x" * 3 * LINE + b"\nnext\n"
    for start in range(0, len(data), size):
        log.data_received(data[start : start + size])
    assert caplog.messages == ["x" * LINE, "next"]
    assert len(log._line) == 0


def test_a_flood_is_dropped_and_counted(
    log: WorkerLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.data_received(b"line\n" * (RATE + 50))
    log.data_received(b"y" * (1 << 20))
    assert caplog.messages == ["line"] * RATE
    assert len(log._line) <= LINE
    at(monkeypatch, 1001.0)
    log.data_received(b"\nagain\n")
    assert caplog.messages[RATE] == f"50 lines dropped: more than {RATE} a second"
    assert caplog.messages[-1] == "again"


def test_what_was_dropped_at_the_end_is_counted_too(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    log.data_received(b"line\n" * (RATE + 3))
    log.connection_lost(None)
    assert caplog.messages[RATE:] == [f"3 lines dropped: more than {RATE} a second"]
    assert caplog.records[-1].levelno == logging.WARNING

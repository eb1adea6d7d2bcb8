"""Log lines, for people, machines and the front."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from manymodels.log import RECORD_MARK, JsonFormatter, TextFormatter, WorkerFormatter, configure


@pytest.fixture
def _root() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def record(text: str = "loaded %s", *args: object, failed: bool = False, **extra: object) -> logging.LogRecord:
    """Return a log record."""
    info = None
    if failed:
        try:
            raise ValueError("too wide")
        except ValueError:
            info = sys.exc_info()
    return logging.getLogger("manymodels.x").makeRecord(
        "manymodels.x", logging.WARNING, __file__, 1, text, args, info, extra=extra
    )


def test_text_lines() -> None:
    line = TextFormatter().format(record("loaded %s", "m", model="shop/iris", worker=7))
    assert line[8:] == " warning loaded m model=shop/iris worker=7"
    lines = TextFormatter().format(record("failed", failed=True)).splitlines()
    assert lines[0].endswith("warning failed")
    assert lines[-1] == "ValueError: too wide"


def test_json_lines() -> None:
    line = JsonFormatter().format(record("loaded\n%s", "m", model="shop/iris", path=logging))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time")
    assert fields == {
        "level": "warning",
        "logger": "manymodels.x",
        "message": "loaded\nm",
        "model": "shop/iris",
        "path": str(logging),
    }
    assert json.loads(JsonFormatter().format(record("x", failed=True)))["traceback"].endswith("ValueError: too wide")


def test_a_line_that_is_not_utf8_is_logged_all_the_same() -> None:
    assert "caf" in JsonFormatter().format(record("caf\udce9"))
    assert "caf" in WorkerFormatter().format(record("caf\udce9"))


def test_worker_lines_are_marked_and_whole() -> None:
    line = WorkerFormatter().format(record("failed\nbadly", failed=True))
    assert line.startswith(RECORD_MARK)
    assert "\n" not in line
    level, name, text = json.loads(line[1:])
    assert (level, name) == (logging.WARNING, "manymodels.x")
    assert text.startswith("failed\nbadly\nTraceback")


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("form", ["text", "json"])
def test_configure_sends_everything_to_standard_error(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", form)
    logging.getLogger("some.library").info("unseen")
    logging.getLogger("some.library").warning("seen", extra={"model": "m"})
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    if form == "json":
        assert json.loads(output.err)["model"] == "m"
    else:
        assert output.err.endswith("warning seen model=m\n")


@pytest.mark.usefixtures("_root")
def test_where_credentials_were_found_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    for level, said in (("info", 0), ("debug", 1)):
        configure(level, "text")
        logging.getLogger("botocore.credentials").info("Found credentials in environment variables.")
        assert capsys.readouterr().err.count("Found credentials") == said

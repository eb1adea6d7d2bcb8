"""The watch on drift, around a plugin of the test: what is outside, what is said of it, what it never costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import manymodels_drift
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from manymodels_drift import HEADER
from manymodels_drift._ranges import RANGES, measured, of_model
from manymodels_drift._watch import Watch

from manymodels import Artifact, ModelSettings, Plugins, RowBatch, hookimpl
from manymodels.cli import cli
from manymodels.codecs import Table, decode
from manymodels.errors import BadInput
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding

TRAINING = b"age,city,income,bought\n18,Berlin,1000,0\n30,Paris,2000,1\n90,Berlin,,1\n"
WATCHED = measured(TRAINING, ["bought"], (0, 1))


class Framework:
    """A framework plugin whose answer is the number of rows."""

    def __init__(self, read: Callable[[bytes, str | None], Any] = decode, model: Any = "model") -> None:
        self._read = read
        self._model = model
        self.calls = 0

    @hookimpl
    def load(self) -> Any:
        return self._model

    @hookimpl
    def input_fn(self, body: bytes, content_type: str | None) -> Any:
        return self._read(body, content_type)

    @hookimpl
    def predict_fn(self, data: Any) -> Any:
        self.calls += 1
        return np.zeros(len(data)) if isinstance(data, np.ndarray) else [0]

    @hookimpl
    def batch(self) -> RowBatch:
        return RowBatch()


def loaded(tmp_path: Path, ranges: bytes | None = None, framework: Framework | None = None) -> Model:
    if ranges is not None:
        (tmp_path / RANGES).write_bytes(ranges)
    plugins = Plugins([("framework", framework or Framework()), ("drift", manymodels_drift)])
    return Model(Artifact(tmp_path, "shop"), Binding("framework"), plugins, ModelSettings())


def numbers(*bounds: tuple[float, float]) -> bytes:
    columns = [{"name": f"x{index}", "low": low, "high": high} for index, (low, high) in enumerate(bounds)]
    return json.dumps({"columns": columns}).encode()


def drift(model: Model, *bodies: bytes, content_type: str = "application/json") -> list[str | None]:
    outcomes = model.invoke([Invocation(body, content_type) for body in bodies])
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [outcome.headers.get(HEADER) for outcome in outcomes if isinstance(outcome, Answer)]


def test_a_reply_names_the_columns(tmp_path: Path) -> None:
    model = loaded(tmp_path, numbers((0, 10), (-1, 1), (5, 5)))
    assert drift(model, b"[[0, 1, 5], [10, -1, 5]]") == [None]
    assert drift(model, b"[[0, 1, 6], [11, -1, 4]]") == ["x0=1, x2=2"]
    assert drift(model, b"[11, 0, 5]") == ["x0=1"]
    assert drift(model, b"[[null, 0, 5]]") == [None]
    assert drift(model, b"11,0,5\n", content_type="text/csv") == ["x0=1"]
    assert model.notes == ["drift is watched in 3 columns"]


def test_each_of_joined_requests_has_its_own_header(tmp_path: Path) -> None:
    framework = Framework()
    model = loaded(tmp_path, numbers((0, 10)), framework)
    assert drift(model, b"[[1]]", b"[[11]]", b"[[2]]") == [None, "x0=1", None]
    assert framework.calls == 1


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (Table(("city", "age", "income"), np.array([["Rome", 17.0, 1500.0]], dtype=object)), "age=1, city=1"),
        (Table(("income", "more", "city", "age"), np.array([[1e9, 0, "Paris", 20]], dtype=object)), "income=1"),
        (Table(("age", "city"), np.array([[0, "Rome"]], dtype=object)), ""),
        (pd.DataFrame({"age": [20, 91], "city": ["Paris", "Rome"], "income": [None, 1.0]}), "age=1, city=1, income=1"),
        (pd.DataFrame({"age": [20, 91], "x": [0, 0]}), ""),
        (np.array([["old", np.nan, None]], dtype=object), "age=1"),
        (np.array([[20, "Paris", 1500]]), "age=1, income=1"),  # all are text, and 20 is not "20"
        (np.zeros((1, 5)), ""),
        (np.zeros((1, 3, 1)), ""),
        (np.zeros((0, 3)), ""),
    ],
)
def test_tables(table: Any, expected: str) -> None:
    assert Watch("shop", WATCHED).look(table, b"\xff", "text/plain") == expected


def test_what_is_no_table_is_decoded_from_the_body() -> None:
    watch = Watch("shop", WATCHED)
    assert watch.look(object(), b"age,city,income\n17,Rome,1500\n", "text/csv") == "age=1, city=1"
    assert watch.look(object(), b'{"features": [[20, "Oslo", 1500]]}', "application/json") == "city=1"
    assert watch.look(object(), b"age,city,income\n17,Rome,1500\n", "application/json") == ""


def test_texts_of_numbers_are_categories() -> None:
    watch = Watch("shop", measured(b"code\n1\n2\nx\n", [], (0, 1)))
    assert watch.look(np.array([[1.0], [2.0], [3.0]]), b"", None) == "code=1"


def test_a_header_is_bounded_and_can_be_sent(tmp_path: Path) -> None:
    columns = [{"name": f"\u00e9\r\nX: {'y' * 99}{index}", "low": 0, "high": 1} for index in range(99)]
    model = loaded(tmp_path, json.dumps({"columns": columns}).encode())
    (header,) = drift(model, json.dumps([[2] * 99]).encode())
    assert header is not None
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith("%C3%A9%0D%0AX%3A%20yyy")
    assert header.endswith("=1, ...")
    assert len(header) < 1000


def test_the_log_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    watch = Watch("shop", WATCHED, clock=lambda: now)
    old = np.array([[99, "Paris", None]], dtype=object)
    for _ in range(50):
        watch.look(old, b"", None)
    assert caplog.messages == ["'shop' drifts: of 1 rows, 'age' 1 outside 18 to 90"]
    now += 61
    watch.look(np.array([[99, "Rome", None]], dtype=object), b"", None)
    assert caplog.messages[1:] == [
        "'shop' drifts: of 50 rows, 'age' 50 outside 18 to 90, 'city' 1 outside 2 categories"
    ]


def test_as_many_outside_as_in_training_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    training = "x\n" + "\n".join(map(str, range(1000)))
    ranges = measured(training.encode(), [], (0.01, 0.99))
    (column,) = ranges.columns
    assert (column.low, column.high, column.outside) == (9.99, 989.01, 0.02)
    watch = Watch("shop", ranges)
    for number in range(1000):
        watch.look(np.array([[float(number * 389 % 1000)]]), b"", None)
    assert not caplog.messages
    for _ in range(40):
        watch.look(np.array([[1000.0]]), b"", None)
    assert len(caplog.messages) == 1


def test_a_failure_costs_no_request_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        columns = property(lambda self: 1 / 0)
        iloc = None

    model = loaded(tmp_path, numbers((0, 1)), Framework(lambda body, content_type: Broken()))
    assert drift(model, b"[[2]]", b"[[2]]") == [None, None]
    assert caplog.text.count("a request to 'shop' cannot be compared with the training data") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "is not valid"),
        (b'{"columns": []}', "names no columns"),
        (b'{"columns": [{"name": "a"}, {"name": "a"}]}', "names a column twice"),
        (b'{"columns": [{"name": "a", "low": 1}]}', "column 'a' must have low and high, or categories"),
        (b'{"columns": [{"name": "a", "min": 1}]}', "unknown field `min`"),
        (b"[" * 100_000, "is not valid"),
        (b" " * (1 << 20) + b"{}", "has more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_not_valid_is_a_note(tmp_path: Path, content: bytes, why: str) -> None:
    model = loaded(tmp_path, content)
    (note,) = model.notes
    assert note.startswith("drift is not watched: ")
    assert why in note
    assert drift(model, b"[[1]]") == [None]


def test_a_model_without_ranges_is_not_watched(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    assert drift(model, b"[[1e9]]") == [None]
    assert model.notes == []
    assert model.context.state == {}


def test_what_a_model_says_itself(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [5.0, 9.0, 7.0]})
    pipeline = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(frame, [0, 1, 1])
    model = loaded(tmp_path, framework=Framework(model=pipeline))
    assert drift(model, b"[[2.5, 5]]") == ["a=1"]
    assert drift(model, b'[{"b": 10, "a": 1}]') == ["b=1"]
    assert of_model(LogisticRegression()) is None


def test_a_model_that_cannot_be_asked_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loaded(tmp_path, framework=Framework(model=SimpleNamespace(steps=[("no pair",)])))
    assert drift(model, b"[[1]]") == [None]
    assert model.notes == ["drift is not watched: IndexError, see the log"]


def test_the_command_writes_what_is_read(tmp_path: Path) -> None:
    Plugins([("drift", manymodels_drift)]).hook.register_commands(cli=cli)
    (tmp_path / "data.csv").write_bytes(TRAINING)
    output = tmp_path / RANGES
    done = CliRunner().invoke(cli, ["drift-ranges", str(tmp_path / "data.csv"), "-o", str(output), "--drop", "bought"])
    assert done.output == f"{output} holds the ranges of 3 columns\n"
    assert json.loads(output.read_bytes())["columns"] == [
        {"name": "age", "low": 18.0, "high": 90.0, "outside": 0.0},
        {"name": "city", "categories": ["Berlin", "Paris"]},
        {"name": "income", "low": 1000.0, "high": 2000.0, "outside": 0.0},
    ]
    assert drift(loaded(tmp_path), b'[{"age": 17, "city": "Rome", "income": 1000}]') == ["age=1, city=1"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["--drop", "price"], "there is no column price; there are age, city"), (["--quantiles", "1", "0"], "less than")],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], why: str) -> None:
    Plugins([("drift", manymodels_drift)]).hook.register_commands(cli=cli)
    (tmp_path / "data.csv").write_bytes(TRAINING)
    done = CliRunner().invoke(cli, ["drift-ranges", str(tmp_path / "data.csv"), "-o", str(tmp_path / "o"), *arguments])
    assert done.exit_code != 0
    assert why in done.output + str(done.exception)
    assert not (tmp_path / "o").exists()


def test_columns_of_identifiers_are_not_watched() -> None:
    rows = "".join(f"user{index},,1\n" for index in range(1001))
    ranges = measured(f"id,empty,x\n{rows}".encode(), [], (0, 1))
    assert [column.is_bounded for column in ranges.columns] == [False, False, True]
    assert Watch("shop", ranges).look(np.array([["new", 5, 2]], dtype=object), b"", None) == "x=1"
    with pytest.raises(BadInput, match="no column is left"):
        measured(b"a\n1\n", ["a"], (0, 1))

"""Golden requests: when an answer is the one that must be given, the file of them, and what becomes of a model."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from arrays import npy
from serving import BACKENDS, FLOWER, Server, archive, iris, serve

from manymodels import Artifact, Golden, ModelSettings, Plugins, hookimpl
from manymodels.agreement import Disagreement
from manymodels.artifact import GOLDEN
from manymodels.errors import BadArtifact, BadInput, GoldenFailed, OutOfMemory
from manymodels.golden import LIMIT, MOST, GoldenResult, parse, read, write
from manymodels.invocation import Answer
from manymodels.model import Model
from manymodels.plugins import Binding


def golden(answer: bytes, content_type: str) -> Golden:
    return Golden(body=b"", answer=answer, answer_content_type=content_type)


@pytest.mark.parametrize(
    ("content_type", "answer", "same", "other"),
    [
        ("application/json", b'[{"score": 0.5}]', b'[ {"score": 0.50000000000001} ]', b'[{"score": 0.6}]'),
        ("application/json", b'["a"]', b'["a"]', b'["b"]'),
        ("application/json", b"[1]", b"[1]", b"[1"),
        ("application/jsonlines", b"[1.0]\n[2.0]\n", b"[1.0]\n[2.0]", b"[1.0]\n"),
        ("text/csv", b"a,0.5\nb,1\n", b"a,0.50000000000001\r\nb,1.0\r\n", b"a,0.6\nb,1\n"),
        ("text/csv; charset=utf-8", b"0.5\n", b"0.5\n", b"\xff\n"),
        ("application/x-npy", npy([1.0]), npy([1.0 + 1e-12]), npy([2.0])),
        ("application/x-npy", npy([1.0]), npy([1.0]), b"no array"),
        ("image/png", b"\x89PNG", b"\x89PNG", b"\x89PNg"),
        ("text/csv", b"a\n", b"a\n", b"a\rb\n"),
    ],
)
def test_answers_are_compared_as_values(content_type: str, answer: bytes, same: bytes, other: bytes) -> None:
    asked = golden(answer, content_type)
    assert asked.check(Answer(same, content_type)) <= 1e-9
    with pytest.raises(Disagreement):
        asked.check(Answer(other, content_type))


def test_answers_that_are_nested_too_deep_are_not_compared() -> None:
    nested = b"[" * 900 + b"]" * 900
    with pytest.raises(Disagreement, match="nested too deep"):
        golden(nested, "application/json").check(Answer(nested, "application/json"))


def test_another_status_or_type_is_another_answer() -> None:
    asked = golden(b"[1]", "application/json")
    with pytest.raises(Disagreement, match="status 201 instead of 200"):
        asked.check(Answer(b"[1]", "application/json", status=201))
    with pytest.raises(Disagreement, match="Content-Type text/csv instead of application/json"):
        asked.check(Answer(b"1", "text/csv"))


def test_the_request_is_asked_as_it_is() -> None:
    invocation = Golden(body=b"1,2\n", content_type="text/csv", accept="text/csv", answer=b"3\n").invocation()
    assert (invocation.body, invocation.content_type, invocation.accept) == (b"1,2\n", "text/csv", "text/csv")


# -- The file --


def test_a_line_written_by_hand() -> None:
    (asked,) = parse(b'{"body": {"features": [[1.0, 2]]}, "answer": [3.0], "tolerance": 0.01}', "x").values()
    assert asked == Golden(body=b'{"features": [[1.0, 2]]}', answer=b"[3.0]", tolerance=0.01)
    (asked,) = parse(b'{"body": "1,2\\n", "content_type": "text/csv", "answer": [3]}', "x").values()
    assert (asked.body, asked.content_type) == (b"1,2\n", "text/csv")
    (asked,) = parse(
        b'{"body": [1], "accept": "image/png", "answer_base64": "iQ==", "answer_content_type": "a/b"}', "x"
    ).values()
    assert (asked.accept, asked.answer, asked.answer_content_type) == ("image/png", b"\x89", "a/b")


@pytest.mark.parametrize(
    "asked",
    [
        Golden(body=b'{"a":  [1.50,\n 1e2, 123456789012345678901234567890]}', answer=b'"\xc3\xbc"\n'),
        Golden(body=b"1,a\r\n", content_type="text/csv; header=absent", answer=b"x\n", answer_content_type="text/csv"),
        Golden(
            body=npy([1.0]),
            content_type="application/x-npy",
            answer=npy([2.0]),
            answer_content_type="application/x-npy",
        ),
        Golden(body=b"no json", answer=b"", tolerance=0.5, accept="text/csv"),
        Golden(body=b"[" * 900 + b"]" * 900, answer=b"\xff"),
        Golden(body=b"", content_type="text/plain", answer=b"[NaN]"),
    ],
)
def test_what_is_written_is_read_again(asked: Golden) -> None:
    content = write([asked, asked])
    assert content.count(b"\n") == 2
    for found in parse(content, "x").values():
        same = dict.fromkeys(("content_type", "accept", "answer_content_type", "tolerance"))
        assert {name: getattr(found, name) for name in same} == {name: getattr(asked, name) for name in same}
        for one, other in ((found.body, asked.body), (found.answer, asked.answer)):
            assert one == other or json.loads(one) == json.loads(other)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"[1]", "Expected `object`"),
        (b'{"body": 1, "answer": 1, "answr": 1}', "unknown field `answr`"),
        (b'{"body": 1}', "one of answer and answer_base64"),
        (b'{"answer": 1}', "one of body and body_base64"),
        (b'{"body": 1, "body_base64": "", "answer": 1}', "one of body and body_base64"),
        (
            b'{"body": [1], "content_type": "text/csv", "answer": 1}',
            "body is text/csv, so it must be a text, or base64",
        ),
        (b'{"body": 1, "answer": 1, "tolerance": -1}', "tolerance"),
        (b'{"body": 1, "answer_base64": "*"}', "base64"),
        (b'{"body": "\xff", "answer": 1}', "line 3, is not valid"),
        (b'{"body": ' + b"[" * 10**5 + b"]" * 10**5 + b', "answer": 1}', "recursion"),
        (b'{"body": 1, "answer": 1', "truncated"),
    ],
)
def test_a_line_that_is_not_valid_is_named(line: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / GOLDEN).write_bytes(b'{"body": 1, "answer": 1}\n\n' + line)
    with pytest.raises(BadArtifact, match=r"^golden\.jsonl of 'shop', line 3, is not valid: ") as error:
        read(Artifact(tmp_path, "shop"))
    assert fault in str(error.value)


def test_the_file_is_bounded(tmp_path: Path) -> None:
    line = b'{"body": 1, "answer": 1}\n'
    assert len(parse(line * MOST, "x")) == MOST
    with pytest.raises(BadArtifact, match=f"more than {MOST} requests"):
        parse(line * (MOST + 1), "x")
    with pytest.raises(BadArtifact, match="holds no requests"):
        parse(b" \n", "x")
    with (tmp_path / GOLDEN).open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(BadArtifact, match=f"more than {LIMIT} bytes"):
        read(Artifact(tmp_path))
    (tmp_path / GOLDEN).unlink()
    os.mkfifo(tmp_path / GOLDEN)
    with pytest.raises(BadArtifact, match="not a file"):
        read(Artifact(tmp_path))


def test_plugins_do_not_see_it(tmp_path: Path) -> None:
    (tmp_path / GOLDEN).touch()
    (tmp_path / "model.json").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / GOLDEN).touch()
    assert Artifact(tmp_path).match("*", "*.json*") == ["model.json", "model.json"]


# -- A model that is asked --


class Adder:
    """Adds to numbers what its artifact holds."""

    def __init__(self, act: Callable[[Any], Any] | None = None) -> None:
        self._act = act
        self.calls: list[str] = []

    @hookimpl
    def load(self, artifact: Artifact) -> float:
        return float((artifact.path / "add").read_text())

    @hookimpl
    def predict_fn(self, data: Any, model: float) -> Any:
        self.calls.append("predict_fn")
        return self._act(data) if self._act is not None else data + model

    @hookimpl
    def unload(self) -> None:
        self.calls.append("unload")


class Watcher:
    """Counts predictions."""

    def __init__(self) -> None:
        self.seen = 0

    @hookimpl(wrapper=True)
    def predict_fn(self) -> Iterator[None]:
        self.seen += 1
        return (yield)


def make(path: Path, plugin: Adder, watcher: Watcher | None = None, **settings: Any) -> Model:
    """Load a model that adds 1, with three golden requests of which the second has another answer."""
    (path / "add").write_text("1")
    (path / GOLDEN).write_text(
        '{"body": [1], "answer": [2.0]}\n{"body": [1, 2], "answer": [2.0, 4.0]}\n\n{"body": [5], "answer": [6.0]}\n'
    )
    plugins = Plugins([("adder", plugin), ("watcher", watcher or Watcher())])
    return Model(Artifact(path, "shop"), Binding("adder"), plugins, ModelSettings(**settings))


def test_a_model_that_fails_is_refused(tmp_path: Path) -> None:
    plugin = Adder()
    with pytest.raises(GoldenFailed) as error:
        make(tmp_path, plugin)
    assert str(error.value) == (
        "'shop' fails a golden request: golden.jsonl, line 2: the model answers [2.0,3.0] instead of [2.0, 4.0]: "
        "a difference of 0.25, more than 1e-09"
    )
    assert plugin.calls == ["predict_fn", "predict_fn", "unload"]


def test_or_flagged(tmp_path: Path) -> None:
    watcher = Watcher()
    model = make(tmp_path, Adder(), watcher, golden="flag")
    assert model.golden == GoldenResult(requests=3, failed=1)
    (note,) = model.notes
    assert note.startswith("golden.jsonl, line 2: ")
    assert watcher.seen == 0, "golden requests are no invocations"
    assert model.asked == 0
    (answer,) = model.invoke([Golden(body=b"[1]", answer=b"").invocation()])
    assert isinstance(answer, Answer)
    assert answer.body == b"[2.0]"
    assert watcher.seen == 1


def test_or_not_asked(tmp_path: Path) -> None:
    plugin = Adder()
    assert make(tmp_path, plugin, golden="off").golden is None
    assert plugin.calls == []


def test_an_error_is_no_answer(tmp_path: Path) -> None:
    def refuse(data: Any) -> Any:
        raise BadInput("no such shop")

    with pytest.raises(GoldenFailed, match=r"line 1: BadInput instead of \[2.0\]: no such shop"):
        make(tmp_path, Adder(refuse))


def test_memory_that_runs_out_says_nothing_of_the_model(tmp_path: Path) -> None:
    def run_out(data: Any) -> Any:
        raise MemoryError

    for golden in ("refuse", "flag"):
        plugin = Adder(run_out)
        with pytest.raises(OutOfMemory):
            make(tmp_path, plugin, golden=golden)
        assert plugin.calls == ["predict_fn", "unload"]


def test_a_file_that_is_not_valid_is_found_before_the_load(tmp_path: Path) -> None:
    class Unloadable(Adder):
        @hookimpl
        def load(self, artifact: Artifact) -> float:
            raise AssertionError

    (tmp_path / GOLDEN).write_text("{}")
    with pytest.raises(BadArtifact, match="line 1"):
        Model(Artifact(tmp_path), Binding("a"), Plugins([("a", Unloadable())]), ModelSettings())


# -- On a server --


@pytest.fixture(scope="module")
def flagging(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("flagging")
    write_models(root / "store")
    with serve(root, root / "store", "--workers", "1", "--golden", "flag", backend=backend) as server:
        yield server


def write_models(store: Path) -> None:
    """Write ``good.tar.gz`` and ``bad.tar.gz``, which answers the second of two requests wrongly."""
    file = io.BytesIO()
    joblib.dump(iris(), file)
    asked = Golden(body=json.dumps([FLOWER]).encode(), answer=b"[0]")
    wrong = Golden(body=json.dumps([FLOWER]).encode(), answer=b"[1]")
    for name, requests in {"good": [asked, asked], "bad": [asked, wrong]}.items():
        archive(store / f"{name}.tar.gz", {"model.joblib": file.getvalue(), GOLDEN: write(requests)})


@pytest.mark.backends(*BACKENDS)
def test_a_server_refuses(backend: str, tmp_path: Path) -> None:
    write_models(tmp_path / "store")
    with serve(tmp_path, tmp_path / "store", "--workers", "1", backend=backend) as server:
        assert server.predict("good.tar.gz") == [0]
        assert server.client.get("/models/good.tar.gz").json()["golden"] == {"requests": 2, "failed": 0}
        reply = server.invoke("bad.tar.gz", [FLOWER])
        assert (reply.status_code, reply.json()["type"]) == (424, "GoldenFailed")
        assert "golden.jsonl, line 2: the model answers [0] instead of [1]" in reply.json()["message"]
        assert server.loaded() == ["good.tar.gz"]
        metrics = server.client.get("/metrics").text
        assert 'manymodels_load_failures_total{error="GoldenFailed"} 1.0' in metrics
        assert "manymodels_golden_failures_total 0.0" in metrics
        assert "manymodels_batch_size_sum 1.0" in metrics, "golden requests do not count as invocations"


@pytest.mark.backends(*BACKENDS)
def test_a_server_flags(flagging: Server) -> None:
    assert flagging.predict("bad.tar.gz") == [0]
    described = flagging.client.get("/models/bad.tar.gz").json()
    assert described["golden"] == {"requests": 2, "failed": 1}
    assert any("golden.jsonl, line 2" in note for note in described["notes"])
    assert "golden.jsonl, line 2" in flagging.log()
    assert "manymodels_golden_failures_total 1.0" in flagging.client.get("/metrics").text


def test_golden_requests_that_do_not_end(tmp_path: Path) -> None:
    code = b"import time\ndef model_fn(d):\n    return 1\ndef predict_fn(data, model):\n    time.sleep(600)\n"
    asked = write([Golden(body=b"[1]", answer=b"[1]")])
    archive(tmp_path / "store" / "slow.tar.gz", {"code/inference.py": code, GOLDEN: asked})
    with serve(tmp_path, tmp_path / "store", "--workers", "1", "--load-timeout", "2") as server:
        reply = server.invoke("slow.tar.gz", b"[1]")
        assert reply.status_code == 424
        assert "did not load within 2 s" in reply.json()["message"]

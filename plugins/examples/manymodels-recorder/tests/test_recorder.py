"""The recorder, around a plugin of the test: what it writes, what it leaves out, what it never costs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import manymodels_recorder
import pytest
from manymodels_recorder import Recorder

from manymodels import Artifact, Context, ModelSettings, Plugins, hookimpl
from manymodels.errors import ManyModelsError
from manymodels.golden import parse
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding


class Doubles:
    """A framework plugin that doubles what it is sent."""

    @hookimpl
    def load(self) -> str:
        return "model"

    @hookimpl
    def predict_fn(self, data: Any, context: Context) -> Any:
        if context.headers.get("status"):
            context.set_response_status(int(context.headers["status"]))
        return data * 2


def loaded(tmp_path: Path, recorder: Recorder, name: str = "shop") -> Model:
    (tmp_path / "artifact").mkdir(exist_ok=True)
    plugins = Plugins([("doubles", Doubles()), ("recorder", recorder)])
    return Model(Artifact(tmp_path / "artifact", name), Binding("doubles"), plugins, ModelSettings())


def ask(model: Model, *bodies: bytes, content_type: str | None = "application/json", **fields: Any) -> list[bytes]:
    outcomes = model.invoke([Invocation(body, content_type, **fields) for body in bodies])
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [outcome.body for outcome in outcomes if isinstance(outcome, Answer)]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_what_is_recorded_can_be_replayed(tmp_path: Path) -> None:
    model = loaded(tmp_path, Recorder(tmp_path / "rec", rate=1))
    ask(model, b"[1, 2]", b"[3]", accept="text/csv")
    ask(model, b"1,2\n", content_type="text/csv")
    (file,) = files(tmp_path / "rec")
    goldens = list(parse(file.read_bytes(), file.name).values())
    assert [golden.content_type for golden in goldens] == ["application/json", "application/json", "text/csv"]
    assert [golden.accept for golden in goldens] == ["text/csv", "text/csv", "application/json"]
    other = loaded(tmp_path, Recorder(None))
    for golden in goldens:
        (answer,) = other.invoke([golden.invocation()])
        assert isinstance(answer, Answer)
        assert golden.check(answer) == 0
    assert other.invoke([Invocation(b"[5]", accept="text/csv")]) != other.invoke([goldens[1].invocation()])


def test_what_is_not_recorded(tmp_path: Path) -> None:
    model = loaded(tmp_path, Recorder(tmp_path / "rec", rate=1))
    ask(model, b"[1]", content_type=None)
    ask(model, b"[1]", headers={"status": "206"})
    (outcome,) = model.invoke([Invocation(b"no JSON", "application/json")])
    assert isinstance(outcome, ManyModelsError)
    ask(loaded(tmp_path, Recorder(tmp_path / "rec", rate=0)), *[b"[1]"] * 20)
    ask(loaded(tmp_path, Recorder(None, rate=1)), b"[1]")
    assert not (tmp_path / "rec").exists()


def test_a_share_is_recorded(tmp_path: Path) -> None:
    ask(loaded(tmp_path, Recorder(tmp_path / "rec", rate=0.5)), *[b"[1]"] * 400)
    (file,) = files(tmp_path / "rec")
    assert 120 < len(file.read_text().splitlines()) < 280  # further off once in 10^14 times


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        ask(loaded(tmp_path, Recorder(tmp_path / "a" / "rec", rate=1)), b"[1]")
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "rec").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "rec").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("team/iris.tar.gz", "team%2Firis.tar.gz"),
        ("../../etc/cron", "%2E.%2F..%2Fetc%2Fcron"),
        (".", "%2E"),
        ("a\x00b\n\udcff", "a%00b%0A%ED%B3%BF"),
        ("mod\u00e8le", "mod%C3%A8le"),
    ],
)
def test_a_hostile_name_is_a_name(tmp_path: Path, name: str, file: str) -> None:
    ask(loaded(tmp_path, Recorder(tmp_path / "rec", rate=1), name), b"[1]")
    (path,) = files(tmp_path / "rec")
    assert path.name.rsplit(".", 2)[0] == file
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("rec", "artifact")] == []


def test_long_names_have_files_of_their_own(tmp_path: Path) -> None:
    for end in "ab":
        ask(loaded(tmp_path, Recorder(tmp_path / "rec", rate=1), "\u00e9" * 1023 + end), b"[1]")
    assert len({path.name.split(".")[0] for path in files(tmp_path / "rec")}) == 2


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / ".bytes").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("7")
    ask(loaded(tmp_path, Recorder(tmp_path / "rec", rate=1)), b"[1]")
    assert (tmp_path / "precious").read_text() == "7"
    assert "is not recorded" in caplog.text


def test_bytes_of_a_model_are_bounded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "rec", rate=1, model_bytes=500)
    model = loaded(tmp_path, recorder)
    ask(model, *[b"[1]"] * 100)
    ask(model, b"[" + b"1," * 300 + b"1]")
    ask(loaded(tmp_path, recorder), *[b"[1]"] * 100)  # loaded again: its file is as full as it was
    ask(loaded(tmp_path, recorder, "other"), b"[1]")
    other, shop = files(tmp_path / "rec")
    assert 400 < shop.stat().st_size <= 500
    assert parse(shop.read_bytes(), "whole lines")
    assert 0 < other.stat().st_size < 100


def test_bytes_of_all_are_bounded_for_all_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fill(process: int) -> None:
        recorder = Recorder(tmp_path / "rec", rate=1, total_bytes=10 * 4096)
        for number in range(100):
            ask(loaded(tmp_path, recorder, f"{process}-{number}"), b"[1]")

    children = []
    for process in range(4):
        if (child := os.fork()) == 0:
            fill(process)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    fill(4)
    assert len(files(tmp_path / "rec")) == 10, "each takes a block"
    assert caplog.text.count("is full: MANYMODELS_RECORDER_TOTAL_BYTES=40960") == 1

    files(tmp_path / "rec")[0].unlink()
    fill(5)  # a new process counts what is there
    assert len(files(tmp_path / "rec")) == 10


def test_a_fork_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    model = loaded(tmp_path, Recorder(tmp_path / "rec", rate=1))
    ask(model, b"[1]")
    if (child := os.fork()) == 0:
        ask(model, b"[2]")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(files(tmp_path / "rec")) == 2


def test_what_cannot_be_written_fails_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rec").write_text("a file where the folder should be")
    model = loaded(tmp_path, Recorder(tmp_path / "rec", rate=1))
    assert ask(model, b"[1]", b"[2]") == ask(model, b"[1]", b"[2]")
    assert caplog.text.count("a request to 'shop' is not recorded in") == 1
    assert "FileExistsError" in caplog.text


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tmp_path, Recorder(tmp_path / "rec", rate=1))
    ask(model, b"[1]")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[:10]))
        ask(model, b"[2]")
    ask(model, b"[3]")
    (file,) = files(tmp_path / "rec")
    assert [golden.body for golden in parse(file.read_bytes(), file.name).values()] == [b"[1]", b"[3]"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (manymodels_recorder.RATE, "2"),
        (manymodels_recorder.RATE, "nan"),
        (manymodels_recorder.RATE, "often"),
        (manymodels_recorder.MODEL_BYTES, "-1"),
        (manymodels_recorder.TOTAL_BYTES, "1MiB"),
    ],
)
def test_a_variable_that_is_not_valid_is_named(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable}='{value}' is no number"):
        Recorder.configured({variable: value})


def test_the_environment_configures_it(tmp_path: Path) -> None:
    recorder = Recorder.configured({manymodels_recorder.FOLDER: str(tmp_path / "rec"), manymodels_recorder.RATE: "1"})
    ask(loaded(tmp_path, recorder), b"[1]")
    assert len(files(tmp_path / "rec")) == 1
    ask(loaded(tmp_path, Recorder.configured({})), b"[1]")

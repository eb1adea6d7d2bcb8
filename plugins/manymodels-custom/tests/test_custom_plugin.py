"""Which function of a script, of its framework or of the platform answers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import manymodels_custom
import manymodels_sklearn
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from manymodels import Artifact, Field, ModelSettings, Plugins, Schema
from manymodels.errors import (
    BadInput,
    LoadFailed,
    NoPlugin,
    PredictionFailed,
    UnsupportedAccept,
    UnsupportedContentType,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding
from manymodels.schema import decode

Ask = Callable[..., Answer]
Serve = Callable[..., Model]
Make = Callable[..., Artifact]

MODEL_FN = "def model_fn(model_dir): return 'the model'\n"
ECHO = MODEL_FN + "def predict_fn(data, model): return [data, model]\n"
SHOW = "def output_fn(prediction, accept): return repr(prediction), 'text/plain'\n"
TRANSFORM = MODEL_FN + "def transform_fn(model, body, content_type, accept): return repr((model, body, accept))\n"


@pytest.mark.parametrize(
    ("file", "program"),
    [
        ("inference.py", "inference.py"),
        ("code/inference.py", "inference"),
        ("serve.py", "serve.py"),
        ("code/my-serve.py", "my-serve"),
    ],
)
def test_a_script_alone_is_served(file: str, program: str, make: Make, plugins: Plugins, ask: Ask) -> None:
    artifact = make({file: ECHO})
    settings = ModelSettings(program=program)
    binding = plugins.bind(artifact, settings)
    assert binding == Binding("custom")
    assert ask(Model(artifact, binding, plugins, settings), b"[1]").body == b'[[1],"the model"]'


def test_other_python_files_are_not_claimed(make: Make, plugins: Plugins) -> None:
    with pytest.raises(NoPlugin, match=r"no plugin claims .* or add code that loads it: code/inference\.py$"):
        plugins.bind(make({"code/train.py": ECHO, "lib/inference.py": ECHO}), ModelSettings())


def test_the_script_at_the_root_goes_before_the_one_in_code(serve: Serve, ask: Ask) -> None:
    inner = MODEL_FN.replace("the model", "code") + "def predict_fn(data, model): return model\n"
    model = serve({"inference.py": inner.replace("'code'", "'root'"), "code/inference.py": inner})
    assert ask(model, b"[1]").body == b'"root"'


def test_a_script_is_bound_on_top_of_the_framework(make: Make, plugins: Plugins) -> None:
    artifact = make({"code/inference.py": "", "model.toy": "2"})
    assert plugins.bind(artifact, ModelSettings()) == Binding("custom", "toy")


def test_the_manifest_may_leave_the_framework_out(serve: Serve, make: Make, plugins: Plugins) -> None:
    files = {"inference.py": "", "model.toy": "2", "manymodels.json": '{"framework": "custom"}'}
    assert plugins.bind(make(files), ModelSettings()) == Binding("custom")
    with pytest.raises(
        LoadFailed, match=r"^inference\.py defines no model_fn and no plugin claims the rest of 'model'$"
    ):
        serve(files)


def test_the_manifest_names_custom_but_there_is_no_script(serve: Serve) -> None:
    with pytest.raises(LoadFailed, match=r"'model' holds no serve\.py and no code/serve\.py"):
        serve({"a.py": "", "manymodels.json": '{"framework": "custom"}'}, program="serve")


# Each part of an invocation, by what the script defines.


def test_an_empty_script_leaves_all_to_the_framework(serve: Serve, ask: Ask) -> None:
    answer = ask(serve({"inference.py": "", "model.toy": "2"}), b"1 2")
    assert (answer.body, answer.content_type) == (b"2.0 4.0", "text/toy")


def test_input_fn_feeds_the_framework(serve: Serve, ask: Ask) -> None:
    script = "import json\ndef input_fn(body, content_type): return json.loads(body)['rows']\n"
    model = serve({"inference.py": script, "model.toy": "2"})
    assert ask(model, b'{"rows": [3]}', "application/json").body == b"6.0"


def test_output_fn_follows_the_framework(serve: Serve, ask: Ask) -> None:
    answer = ask(serve({"inference.py": SHOW, "model.toy": "2"}), b"1")
    assert (answer.body, answer.content_type) == (b"[2.0]", "text/plain")


def test_predict_fn_is_given_platform_data_and_the_framework_model(serve: Serve, ask: Ask) -> None:
    script = "def predict_fn(data, model): return [type(data).__name__, data.tolist(), model]\n"
    answer = ask(serve({"inference.py": script, "model.toy": "2"}), b"1,2\n", "text/csv")
    assert json.loads(answer.body) == ["ndarray", [[1.0, 2.0]], {"factor": 2.0}]


def test_transform_fn_is_given_the_framework_model(serve: Serve, ask: Ask) -> None:
    script = "def transform_fn(model, body, content_type, accept): return [model['factor'], content_type]\n"
    assert ask(serve({"inference.py": script, "model.toy": "2"}), b"").body == b'[2.0,"application/json"]'


PREDICTS = """
class Sum:
    def predict(self, rows): return rows.sum(axis=1)
def model_fn(model_dir): return Sum()
"""


@pytest.mark.parametrize(
    ("body", "content_type", "sums"),
    [
        (b"[[1, 2], [3, 4]]", "application/json", [3, 7]),
        (b"[1, 2]", "application/json", [3]),
        (b"1,2\n", "text/csv", [3]),
        (b'[{"a": 1, "b": 5}]', "application/json", [6]),
    ],
)
def test_the_model_of_model_fn_predicts_by_its_own_method(
    body: bytes, content_type: str, sums: list[int], serve: Serve, ask: Ask
) -> None:
    model = serve({"code/inference.py": PREDICTS, "model.toy": "not read"})
    assert json.loads(ask(model, body, content_type).body) == sums


def test_nobody_predicts(serve: Serve) -> None:
    with pytest.raises(LoadFailed, match=r"no predict_fn and no transform_fn, and the str that its model_fn returned"):
        serve({"inference.py": MODEL_FN})


def test_none_is_a_value(serve: Serve, ask: Ask) -> None:
    script = """
def model_fn(model_dir): return None
def input_fn(body, content_type): return None
def predict_fn(data, model): return data if model is None else 1
"""
    assert ask(serve({"inference.py": script, "model.toy": "2"}), b"1").body == b"null"
    script += "def output_fn(prediction, accept): return [prediction]\n"
    assert ask(serve({"inference.py": script, "model.toy": "2"}, "other"), b"1").body == b"[null]"


def test_functions_around_loading(serve: Serve, ask: Ask) -> None:
    script = """
seen = []
def pre_model_fn(model_dir): seen.append("before")
def model_fn(model_dir): seen.append("load"); return model_dir
def model_warmup_fn(model_dir, model, context): seen.append([model == model_dir, context.target_model])
def predict_fn(data, model): return seen
"""
    assert json.loads(ask(serve({"inference.py": script}), b"[1]").body) == ["before", "load", [True, "model"]]


# Arguments.


@pytest.mark.parametrize("functions", [("input_fn", "predict_fn", "output_fn"), ("transform_fn",)])
@pytest.mark.parametrize("with_context", [False, True])
def test_context_is_given_to_functions_that_take_it(
    with_context: bool, functions: tuple[str, ...], serve: Serve, ask: Ask
) -> None:
    arguments = {
        "model_fn": ["model_dir"],
        "input_fn": ["body", "kind"],
        "predict_fn": ["data", "model"],
        "output_fn": ["prediction", "accept"],
        "transform_fn": ["model", "body", "kind", "accept"],
    }
    script = "seen = []\n"
    for name in ("model_fn", *functions):
        parameters = [*arguments[name], *(["whatever"] if with_context else [])]
        request = "whatever.get_request_header(0, 'X-Tenant')" if with_context else "None"
        script += f"def {name}({', '.join(parameters)}):\n    seen.append({request}); return seen\n"
    answer = ask(serve({"inference.py": script}), b"[1]", headers={"x-tenant": "t"})
    assert json.loads(answer.body) == [None, *(["t" if with_context else None] * len(functions))]


def test_star_arguments_count_as_parameters(serve: Serve, ask: Ask) -> None:
    script = MODEL_FN + "def predict_fn(data, model, *more): return more[0].model_name\n"
    assert ask(serve({"inference.py": script}), b"[1]").body == b'"model"'


def test_context_sets_the_reply(serve: Serve, ask: Ask) -> None:
    script = (
        ECHO
        + """
def output_fn(prediction, accept, context):
    context.set_response_status(202)
    context.set_response_header(0, "X-Model", context.model_name)
    context.set_response_content_type(0, "text/html")
    return "done", "text/plain"
"""
    )
    answer = ask(serve({"inference.py": script}), b"[1]")
    assert (answer.status, answer.headers, answer.content_type) == (202, {"X-Model": "model"}, "text/html")


@pytest.mark.parametrize("parameters", ["", "data", "data, model, context, more"])
def test_a_function_of_another_shape_is_refused(parameters: str, serve: Serve) -> None:
    count = len([name for name in parameters.split(",") if name])
    with pytest.raises(
        LoadFailed,
        match=rf"^predict_fn of code/inference\.py has {count} parameters; it is called as "
        r"predict_fn\(data, model\) or predict_fn\(data, model, context\)$",
    ):
        serve({"code/inference.py": MODEL_FN + f"def predict_fn({parameters}): pass\n"})


def test_transform_fn_excludes_what_it_replaces(serve: Serve) -> None:
    with pytest.raises(
        LoadFailed, match=r"transform_fn, .* and output_fn and predict_fn too; remove one or the other$"
    ):
        serve({"inference.py": TRANSFORM + SHOW + "def predict_fn(data, model): pass\n"})


@pytest.mark.parametrize(
    ("content_type", "body", "given"),
    [
        ("application/json", "é".encode(), "é"),
        ("text/csv; charset=ISO-8859-1", "é".encode("latin-1"), "é"),
        (None, b"1", "1"),
        ("application/x-npy", b"1", b"1"),
        ("application/json-seq", b"1", b"1"),
    ],
)
def test_text_is_given_as_str(content_type: str | None, body: bytes, given: Any, serve: Serve, ask: Ask) -> None:
    for name, script in {
        "input": MODEL_FN + "def input_fn(body, kind): return body\ndef predict_fn(data, model): return data\n" + SHOW,
        "transform": MODEL_FN + "def transform_fn(model, body, kind, accept): return repr(body)\n",
    }.items():
        assert ask(serve({"inference.py": script}, name), body, content_type).body == repr(given).encode()


def test_text_in_another_charset_than_it_says(serve: Serve, ask: Ask) -> None:
    model = serve({"inference.py": TRANSFORM})
    with pytest.raises(BadInput, match="the body is not UTF-8"):
        ask(model, b"\xff", "text/csv")
    with pytest.raises(UnsupportedContentType, match="charset 'punycode' is not supported; send one of utf-8"):
        ask(model, b"a", "text/csv; charset=punycode")


@pytest.mark.parametrize(
    ("result", "accept", "body", "content_type"),
    [
        ("'text'", "text/x-own", b"text", "text/x-own"),
        ("b'bytes'", None, b"bytes", "application/json"),
        ("'text'", "*/*", b"text", "application/json"),
        ("('text', 'text/html')", "application/json", b"text", "text/html"),
        ("bytearray(b'array')", "a/b", b"array", "a/b"),
        ("[[1, 2]]", "text/csv", b"1,2\n", "text/csv"),
        ("([[1, 2]], 'text/csv')", "application/json", b"1,2\n", "text/csv"),
        ("(1, 2)", "application/json", b"[1,2]", "application/json"),
        ("{'a': 1}", None, b'{"a":1}', "application/json"),
    ],
)
def test_what_output_fn_may_return(
    result: str, accept: str | None, body: bytes, content_type: str, serve: Serve, ask: Ask
) -> None:
    for name, script in {
        "output": f"{ECHO}def output_fn(prediction, accept): return {result}\n",
        "transform": f"{MODEL_FN}def transform_fn(model, body, kind, accept): return {result}\n",
    }.items():
        answer = ask(serve({"inference.py": script}, name), b"[1]", accept=accept)
        assert (answer.body, answer.content_type) == (body, content_type)


def test_what_output_fn_returns_must_fit_its_type(serve: Serve, ask: Ask) -> None:
    with pytest.raises(UnsupportedAccept):
        ask(serve({"inference.py": ECHO + "def output_fn(data, accept): return [1], 'a/b'\n"}), b"[1]")


def test_transform_fn_is_given_accept(serve: Serve, ask: Ask) -> None:
    model = serve({"inference.py": TRANSFORM}, default_accept="text/csv")
    assert ask(model, b"1", accept="a/b").body == b"('the model', '1', 'a/b')"
    assert ask(model, b"1").body == b"('the model', '1', 'text/csv')"


def test_requests_that_arrive_together_have_their_own_context(serve: Serve) -> None:
    script = MODEL_FN + "def transform_fn(model, body, kind, accept, context): return body + context.request_id\n"
    model = serve({"inference.py": script})
    answers = model.invoke([Invocation(str(n).encode(), request_id=f"-{n}") for n in range(3)])
    assert [answer.body for answer in answers if isinstance(answer, Answer)] == [b"0-0", b"1-1", b"2-2"]


# Joining and unloading.


@pytest.mark.parametrize("script", ["", "def model_warmup_fn(model_dir, model): pass\n"])
def test_what_the_framework_answers_alone_is_joined(script: str, serve: Serve, toy: Any) -> None:
    model = serve({"inference.py": script, "model.toy": "2"})
    answers = model.invoke([Invocation(b"1 2"), Invocation(b"3")])
    assert [answer.body for answer in answers if isinstance(answer, Answer)] == [b"2.0 4.0", b"6.0"]
    assert toy.joined.calls == 1


@pytest.mark.parametrize(
    "script",
    ["def input_fn(body, kind): return [1]\n", "def predict_fn(data, model): return 1\n", SHOW, PREDICTS],
)
def test_what_the_script_answers_is_not_joined(script: str, serve: Serve, toy: Any) -> None:
    model = serve({"inference.py": script, "model.toy": "2"})
    model.invoke([Invocation(b"1"), Invocation(b"3")])
    assert toy.joined.calls == 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("", "quick "),  # it could be built and called; whether it is faster is not the question here
        ("def output_fn(prediction, accept): return str(prediction)\n", "quick "),
        ("def predict_fn(data, model): return 1\n", "the plugin knows no faster one"),
        (PREDICTS, "the plugin knows no faster one"),
    ],
)
def test_what_the_framework_predicts_is_accelerated_as_it_does(script: str, reason: str, serve: Serve) -> None:
    model = serve({"inference.py": script, "utils.py": "", "model.toy": "2"})
    for _ in model.accelerate():
        pass
    predictor = model.predictor
    assert predictor is not None
    assert f"{predictor.name} {predictor.reason}".removeprefix("original ").startswith(reason)
    assert "failed" not in predictor.reason


@pytest.mark.parametrize(
    ("script", "schema"),
    [
        ("", Schema(inputs=(Field(name="x", type="number"),), outputs=(Field(name="y", type="number"),))),
        ("def input_fn(body, kind): return [1]\n", Schema(outputs=(Field(name="y", type="number"),))),
        (SHOW, Schema(inputs=(Field(name="x", type="number"),))),
        ("def predict_fn(data, model): return 1\n", None),
        (PREDICTS, None),
    ],
)
def test_what_the_framework_takes_and_gives_is_told_as_it_does(
    script: str, schema: Schema | None, serve: Serve
) -> None:
    assert decode(serve({"inference.py": script, "model.toy": "2"}).schema) == schema


def test_the_framework_unloads_what_it_loaded(serve: Serve, toy: Any) -> None:
    serve({"inference.py": "", "model.toy": "2"}).unload()
    serve({"inference.py": PREDICTS, "model.toy": "3"}, "other").unload()
    assert toy.unloaded == [{"factor": 2.0}]


# One script for all models.

SHARED = """
count = 0
def model_fn(model_dir):
    with open("name.txt") as file: return file.read()
def predict_fn(data, model):
    global count
    count += 1
    return [model, count]
"""


def _archive(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return archive


@pytest.mark.parametrize("prefix", ["", "code/"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_shared_script_is_imported_for_each_model(
    packed: bool, prefix: str, tmp_path: Path, serve: Serve, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    archive = _archive(tmp_path / "shared", {f"{prefix}serve.py": SHARED, "helpers.py": ""})
    directory = str(archive if packed else tmp_path / "shared")
    one = serve({"name.txt": "one"}, "one", submit_directory=directory, program="serve")
    two = serve({"name.txt": "two"}, "two", submit_directory=directory, program="serve")
    assert [json.loads(ask(model, b"[1]").body) for model in (one, two, one)] == [["one", 1], ["two", 1], ["one", 2]]
    if packed:
        (folder,) = tmp_path.glob("manymodels-code-*")
        assert len(list(folder.iterdir())) == 1


def test_a_changed_archive_is_unpacked_anew(
    tmp_path: Path, serve: Serve, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for version in ("first", "the second"):
        script = f"{MODEL_FN}def predict_fn(data, model): return {version!r}\n"
        archive = _archive(tmp_path / "shared", {"inference.py": script})
        model = serve({"x": ""}, submit_directory=str(archive))
        assert json.loads(ask(model, b"[1]").body) == version


def test_the_artifacts_own_script_goes_before_the_shared_one(tmp_path: Path, serve: Serve, ask: Ask) -> None:
    _archive(tmp_path / "shared", {"inference.py": SHARED})
    model = serve({"code/inference.py": ECHO}, submit_directory=str(tmp_path / "shared"))
    assert ask(model, b"[1]").body == b'[[1],"the model"]'


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("s3://bucket/source.tar.gz", r"'s3://bucket/source\.tar\.gz' is not on this machine; copy it to a folder"),
        ("missing", r"'missing' does not exist$"),
        ("empty", r"'empty' holds no inference\.py and no code/inference\.py$"),
    ],
)
def test_a_shared_script_that_cannot_be_had(
    directory: str, message: str, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(LoadFailed, match=message):
        serve({"model.toy": "2"}, submit_directory=directory)
    monkeypatch.undo()


def test_an_archive_that_is_none(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "source.tar.gz").write_bytes(b"no archive")
    with pytest.raises(LoadFailed, match=r"source\.tar\.gz"):
        serve({"x": ""}, submit_directory=str(tmp_path / "source.tar.gz"))


def test_a_folder_others_may_write_is_not_run_from(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    archive = _archive(tmp_path / "shared", {"inference.py": ECHO})
    serve({"x": ""}, submit_directory=str(archive))
    (folder,) = tmp_path.glob("manymodels-code-*")
    folder.chmod(0o777)
    with pytest.raises(LoadFailed, match="must be a folder that only its owner may write"):
        serve({"x": ""}, submit_directory=str(archive))


# scikit-learn below a script.


@pytest.fixture
def regression(make: Make) -> Artifact:
    artifact = make({"code/inference.py": ""})
    estimator = LinearRegression().fit(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [0.0, 2.0, 3.0])
    joblib.dump(estimator, artifact.path / "model.joblib")
    return artifact


@pytest.mark.parametrize(
    "script",
    [
        "",
        "import io, numpy\ndef input_fn(body, kind): return numpy.loadtxt(io.StringIO(body), delimiter=',', ndmin=2)\n",
        "def predict_fn(data, model): return model.predict(data)\n",
        "import joblib\ndef model_fn(model_dir): return joblib.load(model_dir + '/model.joblib')\n",
    ],
)
def test_scikit_learn_fills_in(script: str, regression: Artifact, make: Make, ask: Ask) -> None:
    plugins = Plugins([("custom", manymodels_custom), ("sklearn", manymodels_sklearn)])
    make({"code/inference.py": script})
    binding = plugins.bind(regression, ModelSettings())
    assert binding == Binding("custom", "sklearn")
    model = Model(regression, binding, plugins, ModelSettings())
    assert json.loads(ask(model, b"1,1\n2,0\n", "text/csv").body) == pytest.approx([5.0, 4.0])


def test_an_error_of_the_framework_passes(regression: Artifact, ask: Ask) -> None:
    plugins = Plugins([("custom", manymodels_custom), ("sklearn", manymodels_sklearn)])
    model = Model(regression, plugins.bind(regression, ModelSettings()), plugins, ModelSettings())
    with pytest.raises(BadInput):
        ask(model, b"1,1,1\n", "text/csv")


def test_an_unexpected_error_of_the_framework_names_the_model(serve: Serve, ask: Ask) -> None:
    model = serve({"inference.py": "", "model.toy": "2"})
    with pytest.raises(PredictionFailed, match=r"^'model': ValueError: could not convert"):
        ask(model, b"one")

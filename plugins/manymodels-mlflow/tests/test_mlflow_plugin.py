"""MLflow's model folders, driven as the platform drives them; the models are saved by MLflow itself."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import manymodels_mlflow
import manymodels_sklearn
import manymodels_xgboost
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from serving import serve

from manymodels import Artifact, Field, ModelSettings, Plugins, Schema
from manymodels.errors import (
    BadArtifact,
    BadInput,
    LoadFailed,
    ManyModelsError,
    NoPlugin,
    PredictionFailed,
    UnsupportedAccept,
    UnsupportedContentType,
)
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.schema import decode
from manymodels.store import DiskCache, LocalStore

COLUMNS = pd.DataFrame({"age": [0.1, 0.9, 0.3, 0.8], "visits": [1, 2, 3, 4]})
LABELS = np.array([0, 1, 0, 1])

CODE = """
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        {}

mlflow.models.set_model(Model())
"""


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Import MLflow and its flavors once, without what they warn of, nor log of what tests do on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc.scoring_server
        import mlflow.sklearn
        import mlflow.xgboost  # noqa: F401
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a Python model from the body of its ``predict``; return its folder."""

    def make(body: str, name: str = "model", **options: Any) -> Path:
        import mlflow.pyfunc

        code = tmp_path / f"{name}.py"
        code.write_text(CODE.format(body.replace("\n", "\n        ")))
        folder = tmp_path / "store" / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(folder, python_model=code, **{"pip_requirements": [], **options})
        return folder

    return make


@pytest.fixture
def sklearn_model(tmp_path: Path) -> Path:
    """A scikit-learn classifier of two columns, pickled."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path / "store" / "sklearn"
    model = LogisticRegression(C=1e3).fit(COLUMNS, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            model,
            folder,
            signature=infer_signature(COLUMNS, LABELS),
            serialization_format="pickle",
            pip_requirements=["scikit-learn==1.2.2", "not-there==1.0", "--extra-index-url https://x.invalid"],
        )
    return folder


OTHERS = [("sklearn", manymodels_sklearn), ("xgboost", manymodels_xgboost)]
PLUGINS = [*OTHERS, ("mlflow", manymodels_mlflow)]


def load(path: Path, plugins: list[tuple[str, Any]] = PLUGINS, **settings: Any) -> Model:
    registered, artifact, chosen = Plugins(plugins), Artifact(path), ModelSettings(**settings)
    return Model(artifact, registered.bind(artifact, chosen), registered, chosen)


def ask(model: Model, body: bytes, content_type: str | None = None) -> Any:
    (answer,) = model.invoke([Invocation(body, content_type)])
    assert isinstance(answer, Answer), answer
    return json.loads(answer.body)


def test_plugin_is_found() -> None:
    (entry,) = entry_points(group="manymodels", name="mlflow")
    assert entry.load() is manymodels_mlflow


def test_the_plugin_itself_imports_no_framework() -> None:
    code = "import sys, manymodels_mlflow; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"mlflow", "pandas"}.isdisjoint(done.stdout.split())


def test_sample_is_answered_as_it_says(tmp_path: Path) -> None:
    goldens = manymodels_mlflow.sample_artifact(tmp_path)
    model = load(tmp_path)
    for golden in goldens:
        (answer,) = model.invoke([golden.invocation()])
        assert isinstance(answer, Answer), answer
        golden.check(answer)


# claim


@pytest.mark.parametrize("order", [PLUGINS, PLUGINS[::-1]], ids=["last", "first"])
def test_a_folder_of_files_that_others_know_is_one_plugins(
    sklearn_model: Path, order: list[tuple[str, Any]], tmp_path: Path
) -> None:
    plugins = Plugins(order)
    assert plugins.bind(Artifact(sklearn_model), ModelSettings()).plugin == "mlflow"
    shutil.copy(sklearn_model / "model.pkl", tmp_path / "model.pkl")
    assert plugins.bind(Artifact(tmp_path, only="model.pkl"), ModelSettings()).plugin == "sklearn"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NoPlugin, match="no plugin claims"):
        plugins.bind(Artifact(tmp_path / "nothing"), ModelSettings())


def test_the_store_lists_the_folder_and_nothing_in_it(sklearn_model: Path, tmp_path: Path) -> None:
    plugins, settings = Plugins(PLUGINS), ModelSettings()
    cache = DiskCache(tmp_path / "cache")
    store = LocalStore(sklearn_model.parent, cache, lambda path: plugins.claims(Artifact(path), settings))
    assert list(store.list()) == ["sklearn"]
    assert store.find("sklearn").kind == "folder"


@pytest.mark.parametrize("pickled", [False, True])
def test_without_the_plugin_the_error_shows_what_it_is(save: Callable[..., Path], pickled: bool) -> None:
    folder = save("return model_input")
    if pickled:
        (folder / "python_model.pkl").write_bytes(pickle.dumps(Version("1")))
    with pytest.raises(NoPlugin, match=r"no plugin claims 'model': it holds MLmodel, .* install the plugin"):
        load(folder, OTHERS)


# loading


def test_a_scikit_learn_model_is_answered_as_by_mlflow(sklearn_model: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd

    model = load(sklearn_model)
    table = pd.DataFrame({"age": [0.2, 0.7], "visits": [3, 1]})
    expected = mlflow.pyfunc.load_model(str(sklearn_model), suppress_warnings=True).predict(table).tolist()
    body = json.dumps({"dataframe_split": table.to_dict(orient="split")}).encode()
    assert ask(model, body) == {"predictions": expected} == {"predictions": [0, 1]}


def test_an_xgboost_model_is_answered(tmp_path: Path) -> None:
    import mlflow.xgboost
    import xgboost

    rows = np.random.default_rng(0).random((40, 2))
    booster = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(rows, rows.sum(axis=1))
    mlflow.xgboost.save_model(booster, tmp_path / "model", pip_requirements=[])
    answer = ask(load(tmp_path / "model"), json.dumps({"inputs": rows[:3].tolist()}).encode())
    np.testing.assert_allclose(answer["predictions"], booster.predict(rows[:3]), rtol=1e-6)


def test_what_the_server_has_in_another_version_is_noted(sklearn_model: Path) -> None:
    mlmodel = sklearn_model / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("python_version: 3.", "python_version: 2."))
    notes = load(sklearn_model).notes
    assert any(note.startswith("requires scikit-learn==1.2.2, served with ") for note in notes), notes
    assert "requires not-there==1.0; no distribution of that name is installed" in notes
    assert any(note.startswith("saved with Python 2.") for note in notes), notes


def test_a_missing_module_is_named_with_what_the_model_was_saved_with(save: Callable[..., Path]) -> None:
    folder = save("return model_input", pip_requirements=["nowhere==3.1"])
    code = folder / "model.py"
    code.write_text("import nowhere\n" + code.read_text())
    with pytest.raises(LoadFailed, match=r"needs the module 'nowhere'; install it .*saved with .*nowhere==3\.1\)"):
        load(folder)


def test_a_folder_without_the_flavor_is_refused(save: Callable[..., Path]) -> None:
    folder = save("return model_input")
    (folder / "MLmodel").write_text("flavors:\n  spark:\n    model_data: sparkml\n")
    with pytest.raises(LoadFailed, match=r"has no flavor python_function, .*\(flavors: spark\)"):
        load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"- 1\n", b"\xff\xfe", b"a: [", b"flavors: 7\n", b"signature: 3\nflavors: {}\n"]
)
def test_an_mlmodel_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "MLmodel").write_bytes(content)
    with pytest.raises(LoadFailed, match=r"MLmodel of .* is not one of MLflow's|has no flavor"):
        load(tmp_path)


def test_a_missing_or_damaged_file_is_named(sklearn_model: Path) -> None:
    (sklearn_model / "model.pkl").write_bytes((sklearn_model / "model.pkl").read_bytes()[:200])
    with pytest.raises(BadArtifact, match="a pickle in 'sklearn' is corrupt"):
        load(sklearn_model)
    (sklearn_model / "model.pkl").unlink()
    with pytest.raises(BadArtifact, match=r"'model\.pkl' of 'sklearn' cannot be read: No such file"):
        load(sklearn_model)


@pytest.mark.parametrize("name", ["c%20d", "a#b"])
def test_a_path_that_mlflow_would_read_as_a_url_is_refused(save: Callable[..., Path], name: str) -> None:
    folder = save("return model_input")
    with pytest.raises(LoadFailed, match="which MLflow takes for a URL's; rename it"):
        load(folder.rename(folder.parent / name))


def with_modules(save: Callable[..., Path], tmp_path: Path) -> Path:
    (tmp_path / "team_helpers.py").write_text("FACTOR = 3\n")
    body = "import team_helpers\nreturn (model_input['a'] * team_helpers.FACTOR).tolist()"
    return save(body, "modules", code_paths=[str(tmp_path / "team_helpers.py")])


def test_modules_of_its_own_need_a_process_of_its_own(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r'code_paths.*\{"isolated": true\}'):
        load(with_modules(save, tmp_path))


def test_two_models_of_one_class_name_do_not_meet(save: Callable[..., Path]) -> None:
    models = [load(save(f"return [{number}]", f"model{number}")) for number in (1, 2)]
    assert [ask(model, b'{"inputs": [0]}') for model in models] == [{"predictions": [1]}, {"predictions": [2]}]


# processes


def test_nothing_is_asked_of_the_network(save: Callable[..., Path]) -> None:
    folder = save("return model_input")
    code = f"""
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("ASKED", event, arguments)

sys.addaudithook(refuse)
import threading
from pathlib import Path
from manymodels import Artifact, ModelSettings, Plugins
from manymodels.invocation import Invocation
from manymodels.model import Model
import manymodels_mlflow

plugins, artifact, settings = Plugins([("mlflow", manymodels_mlflow)]), Artifact(Path({str(folder)!r})), ModelSettings()
model = Model(artifact, plugins.bind(artifact, settings), plugins, settings)
(answer,) = model.invoke([Invocation(b'{{"inputs": [1]}}')])
print(answer.body.decode(), threading.active_count())
"""
    # MLflow sends nothing where it believes itself to be tested.
    kept = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS")
    env = {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == '{"predictions":[1]} 1\n', done.stdout + done.stderr


def test_through_the_server(sklearn_model: Path, save: Callable[..., Path], tmp_path: Path) -> None:
    save("import os\nreturn [os.getppid()]", "parent")
    (with_modules(save, tmp_path) / "manymodels.json").write_text('{"isolated": true}')
    rows = b'{"dataframe_records": [{"visits": 2, "age": 0.9}]}'
    with serve(tmp_path, sklearn_model.parent, "--workers", "1", env={"MANYMODELS_BLOCK_PLUGINS": ""}) as server:

        def ask(name: str, body: bytes) -> Any:
            reply = server.invoke(name, body, content_type="application/json")
            assert reply.status_code == 200, reply.text
            return reply.json()["predictions"]

        assert ask("sklearn", rows) == [1]
        assert ask("modules", b'{"inputs": {"a": [2.0]}}') == [6.0]
        # A fork of the process that has imported MLflow, which so is one that starts no threads.
        assert ask("parent", b'{"inputs": [0]}')[0] in [process.pid for process in server.processes()]
        refused = server.invoke("sklearn", b'{"inputs": [[1]]}', content_type="application/json")
        assert refused.status_code == 400
        assert "missing inputs ['age', 'visits']" in refused.text
        assert "starts threads" not in server.log()


# requests


JSON, CSV = "application/json", "text/csv"


def invoke(model: Model, body: Any, content_type: str | None = None, accept: str = JSON) -> Answer | ManyModelsError:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(sent, content_type, accept)])
    return answer


def predictions(model: Model, body: Any, content_type: str | None = None) -> Any:
    answer = invoke(model, body, content_type)
    assert isinstance(answer, Answer), answer
    assert answer.content_type == JSON
    reply = json.loads(answer.body)
    assert list(reply) == ["predictions"]
    return reply["predictions"]


def columns(**dtypes: str) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(Schema([ColSpec(kind, name) for name, kind in dtypes.items()]))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"dataframe_split": {"columns": ["visits", "age"], "data": [[2, 0.9], [1, 0.1]]}}, None),
        ({"dataframe_split": {"index": [7, 9], "columns": ["visits", "age"], "data": [[2, 0.9], [1, 0.1]]}}, None),
        ({"dataframe_records": [{"age": 0.9, "visits": 2}, {"visits": 1, "age": 0.1}]}, JSON),
        ({"instances": [{"age": 0.9, "visits": 2}, {"visits": 1, "age": 0.1}]}, f"{JSON}; charset=utf-8"),
        ({"inputs": {"age": [0.9, 0.1], "visits": [2, 1]}}, JSON),
        (b"visits,age\n2,0.9\n1,0.1\n", CSV),
    ],
)
def test_the_forms_of_mlflows_server(sklearn_model: Path, body: Any, content_type: str | None) -> None:
    assert predictions(load(sklearn_model), body, content_type) == [1, 0]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        ({"dataframe_records": [{"age": 1.0}]}, None, r"missing inputs \['visits'\]"),
        ({"dataframe_records": [{"age": "old", "visits": 1}]}, None, "convert column age to type 'float64'"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, None, "not a valid dataframe"),
        ({"dataframe_split": [[1, 2]]}, None, "must be a dictionary"),
        ({"dataframe_records": {"age": 1}}, None, "must be a list of records"),
        ({"inputs": {"age": [1], "visits": [1, 2]}}, None, "same length"),
        ({"instances": [[1, 2]]}, None, r"missing inputs \['age', 'visits'\]"),
        ({"inputs": [], "instances": []}, None, "has the keys 'inputs', 'instances'; send an object with one of"),
        ({"features": [[1, 2]]}, None, "has the keys 'features'; send an object with one of dataframe_split"),
        ({"inputs": {"age": [1], "visits": [1]}, "params": [1]}, None, '"params" is no object'),
        ([[1, 2]], None, "is no object; send"),
        (b"", None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
        (b"\xff", None, "not UTF-8"),
        (b"0.9,2\n", CSV, "missing inputs"),
        (b"age,visits\nold,2\n", CSV, "could not convert string to float: 'old'"),
        (b"", CSV, "No columns to parse"),
    ],
)
def test_what_is_not_the_models_is_refused(sklearn_model: Path, body: Any, content_type: str | None, says: str) -> None:
    error = invoke(load(sklearn_model), body, content_type)
    assert isinstance(error, BadInput), error
    with pytest.raises(BadInput, match=says):
        raise error


def test_other_content_types_and_accepts_are_refused(sklearn_model: Path) -> None:
    model = load(sklearn_model)
    assert isinstance(invoke(model, b"1", "application/x-npy"), UnsupportedContentType)
    rows = {"inputs": {"age": [1.0], "visits": [1]}}
    assert isinstance(invoke(model, rows, accept="image/png"), UnsupportedAccept)


def test_what_the_framework_refuses_is_the_clients(sklearn_model: Path) -> None:
    error = invoke(load(sklearn_model), {"dataframe_records": [{"age": None, "visits": 1}]})
    assert isinstance(error, BadInput)
    assert "the model refuses the data: Input X contains NaN" in str(error)


def test_an_error_in_the_users_function_is_not(save: Callable[..., Path]) -> None:
    error = invoke(load(save("return [int('x')]")), {"inputs": [1]})
    assert isinstance(error, PredictionFailed), error
    assert "invalid literal for int()" in str(error)


def test_parameters_are_checked_by_the_signature(save: Callable[..., Path]) -> None:
    from mlflow.models import infer_signature

    signature = infer_signature(np.array([1.0]), np.array([1.0]), {"times": 2})
    model = load(save("return (model_input * params['times'])", signature=signature))
    assert predictions(model, {"inputs": [1.5]}) == [3.0]
    assert predictions(model, {"inputs": [1.5], "params": {"times": 4}}) == [6.0]
    error = invoke(model, {"inputs": [1.5], "params": {"times": "often"}})
    assert isinstance(error, BadInput)
    assert "'times'" in str(error)


def test_tensors_are_checked_by_the_signature(save: Callable[..., Path]) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 2))]))
    model = load(save("return [str(model_input.dtype), model_input.sum().item()]", signature=signature))
    assert predictions(model, {"inputs": [[1, 2], [3, 4]]}) == ["float32", 10.0]
    error = invoke(model, {"inputs": [[1, 2, 3]]})
    assert isinstance(error, BadInput)
    assert "Shape of input (1, 3) does not match expected shape (-1, 2)" in str(error)


def test_a_model_with_type_hints_takes_its_own_types(tmp_path: Path) -> None:
    import mlflow.pyfunc

    code = tmp_path / "typed.py"
    code.write_text(
        "import mlflow\n"
        "class Typed(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[str]) -> list[str]:\n"
        "        return [text.upper() for text in model_input]\n"
        "mlflow.models.set_model(Typed())\n"
    )
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=code, pip_requirements=[])
    model = load(tmp_path / "model")
    assert predictions(model, {"inputs": ["a", "b"]}) == ["A", "B"]
    error = invoke(model, {"inputs": [1]})
    assert isinstance(error, BadInput), error
    error = invoke(model, {"instances": ["a"]})
    assert isinstance(error, BadInput)
    assert 'send {"inputs": ...}' in str(error)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("numpy.float32([0.1])", [float(np.float32(0.1))]),
        ("numpy.array([[1, 2], [3, 4]])", [[1, 2], [3, 4]]),
        ("numpy.array([1.0, numpy.nan, numpy.inf])", [1.0, None, None]),
        ("numpy.array(['a', None], dtype=object)", ["a", None]),
        ("pandas.Series([1, 2], name='y')", [{"y": 1}, {"y": 2}]),
        ("pandas.DataFrame({'y': [1.5], 'when': pandas.to_datetime(['2020-01-02'])})", [
            {"y": 1.5, "when": "2020-01-02T00:00:00"}
        ]),
        ("{'scores': numpy.array([1.5]), 'label': 'x'}", {"scores": [1.5], "label": "x"}),
        ("None", None),
    ],
)  # fmt: skip
def test_replies_are_those_of_mlflows_server(save: Callable[..., Path], returned: str, expected: Any) -> None:
    assert predictions(load(save(f"import numpy, pandas\nreturn {returned}")), {"inputs": [1]}) == expected


def test_what_json_cannot_hold_is_an_error_of_the_model(save: Callable[..., Path]) -> None:
    error = invoke(load(save("return object()")), {"inputs": [1]})
    assert isinstance(error, PredictionFailed)
    assert "cannot be written as JSON" in str(error)


def test_other_accepts_carry_the_predictions_alone(save: Callable[..., Path]) -> None:
    model = load(save("import pandas\nreturn pandas.DataFrame({'y': [1.5, 2.5], 'z': ['a', 'b']})"))
    answer = invoke(model, {"inputs": [1]}, accept=CSV)
    assert isinstance(answer, Answer)
    assert (answer.body, answer.content_type) == (b"1.5,a\n2.5,b\n", CSV)
    answer = invoke(model, {"inputs": [1]}, accept="application/jsonlines")
    assert isinstance(answer, Answer)
    assert answer.body == b'{"y":1.5,"z":"a"}\n{"y":2.5,"z":"b"}\n'
    records = "application/x-recordio-protobuf"
    assert isinstance(invoke(model, {"inputs": [1]}, accept=records), UnsupportedAccept)  # has texts
    numbers = load(save("import pandas\nreturn pandas.DataFrame({'y': [1.5]})", "numbers"))
    answer = invoke(numbers, {"inputs": [1]}, accept=records)
    assert isinstance(answer, Answer)
    assert answer.content_type == records
    assert b"\x0a\x01y" in answer.body


def test_columns_that_may_be_missing_and_text(save: Callable[..., Path]) -> None:
    model = load(save("return model_input['town'].tolist()", signature=columns(town="string", day="datetime")))
    assert predictions(model, {"dataframe_records": [{"town": "Rome", "day": "2020-01-02"}]}) == ["Rome"]
    error = invoke(model, {"dataframe_records": [{"town": "Rome", "day": "soon"}]})
    assert isinstance(error, BadInput)
    assert "column day" in str(error)


# the schema


def test_the_schema_is_the_signature(sklearn_model: Path) -> None:
    assert decode(load(sklearn_model).schema) == Schema(
        inputs=(Field(name="age", type="number"), Field(name="visits", type="integer")),
        outputs=(Field(type="integer", shape=(-1,)),),
    )


def test_what_signatures_hold(save: Callable[..., Path]) -> None:
    import mlflow.types
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, TensorSpec

    def told(name: str, inputs: list[Any], outputs: list[Any]) -> Schema | None:
        signature = ModelSignature(mlflow.types.Schema(inputs), mlflow.types.Schema(outputs))
        return decode(load(save("return []", name=name, signature=signature)).schema)

    days = mlflow.types.schema.Array("datetime")
    columns = [ColSpec("boolean", "yes"), ColSpec("binary", "picture"), ColSpec("datetime", "day", required=False)]
    assert told("columns", [*columns, ColSpec(days, "days")], [ColSpec("string")]) == Schema(
        inputs=(
            Field(name="yes", type="boolean"),
            Field(name="picture", type="string"),
            Field(name="day", type="string", optional=True),
            Field(name="days"),
        ),
        outputs=(Field(type="string"),),
    )
    images = TensorSpec(np.dtype("uint8"), (-1, 28, 28), "image")
    texts = TensorSpec(np.dtype("str"), (-1,), "caption")
    assert told("tensors", [images, texts], [ColSpec("double"), ColSpec("double")]) == Schema(
        inputs=(
            Field(name="image", type="integer", shape=(-1, 28, 28)),
            Field(name="caption", type="string", shape=(-1,)),
        ),
        outputs=(Field(type="number", shape=(-1, 2)),),
    )
    assert decode(load(save("return []")).schema) == Schema()


# joining


def test_rows_of_a_framework_are_joined_and_split(sklearn_model: Path) -> None:
    model = load(sklearn_model)
    table = pd.DataFrame({"age": [0.9, 0.1, 0.8], "visits": [2, 1, 4]})
    bodies = [json.dumps({"dataframe_split": part.to_dict(orient="split")}).encode() for part in (table[:1], table[1:])]
    wrong = b'{"dataframe_records": [{"age": 1.0}]}'
    first, second, third = model.invoke([Invocation(body) for body in (bodies[0], wrong, bodies[1])])
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert isinstance(second, BadInput)
    first, third = model.invoke([Invocation(body) for body in bodies])
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert (json.loads(first.body), json.loads(third.body)) == ({"predictions": [1]}, {"predictions": [0, 1]})
    assert first.timings == third.timings, "they were one call"


def test_probabilities_of_as_many_outputs_as_rows_stay_with_their_requests(tmp_path: Path) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.multioutput import MultiOutputClassifier

    table = COLUMNS.to_numpy()
    estimator = MultiOutputClassifier(LogisticRegression()).fit(table, np.column_stack([LABELS, LABELS[::-1]]))
    mlflow.sklearn.save_model(estimator, tmp_path / "model", pyfunc_predict_fn="predict_proba")
    model = load(tmp_path / "model")
    requests = [Invocation(json.dumps({"inputs": row}).encode()) for row in ([[0.9, 2]], [[0.1, 1]])]
    alone = [answer for request in requests for answer in model.invoke([request])]
    joined = model.invoke(requests)
    assert [answer.body for answer in joined if isinstance(answer, Answer)] == [
        answer.body for answer in alone if isinstance(answer, Answer)
    ]


def test_functions_of_the_users_are_not_joined(save: Callable[..., Path]) -> None:
    model = load(save("return [len(model_input)]"))
    answers = model.invoke([Invocation(b'{"inputs": [[1], [2]]}'), Invocation(b'{"inputs": [[1]]}')])
    assert [answer.body for answer in answers if isinstance(answer, Answer)] == [
        b'{"predictions":[2]}',
        b'{"predictions":[1]}',
    ]


NAMES = st.sampled_from(["age", "visits", "columns", "data"])
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    form=st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    value=JSONS,
    params=st.none() | JSONS,
)
def test_whatever_is_sent_is_the_clients_error_or_answered(form: str, value: Any, params: Any, fuzzed: Model) -> None:
    answer = invoke(fuzzed, {form: value, "params": params})
    assert isinstance(answer, (Answer, BadInput)), (form, value, params, answer)


@pytest.fixture
def fuzzed(sklearn_model: Path) -> Model:
    return load(sklearn_model)

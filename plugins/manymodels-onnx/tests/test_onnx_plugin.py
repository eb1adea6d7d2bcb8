"""The ONNX plugin, driven as the platform drives it, with models in ONNX's own bytes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import manymodels_onnx
import numpy as np
import pytest
from manymodels_onnx._sample import argument, message, model, node, tensor

from manymodels import Artifact, Context, Field, ModelSettings, Plugins, Schema, codecs
from manymodels.errors import BadInput, LoadFailed, ManyModelsError, UnsupportedAccept
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.schema import decode

WEIGHTS = np.array([[1.0], [10.0], [100.0]], np.float32)
ROWS = [[1.0, 2.0, 3.0], [0.0, 0.5, 0.0]]
SUMS = [[321.0], [5.0]]

LINEAR = model(
    [node("MatMul", ["rows", "weights"], "sums")],
    [argument("rows", "float32", ["n", 3])],
    [argument("sums", "float32", ["n", 1])],
    tensor("weights", WEIGHTS),
)
#: Two columns of several dtypes, as scikit-learn's pipelines have them, and two outputs.
COLUMNS = model(
    [node("Identity", ["city"], "same"), node("Add", ["age", "age"], "twice")],
    [argument("age", "int64", ["n", 1]), argument("city", "object", ["n", 1])],
    [argument("same", "object", ["n", 1]), argument("twice", "int64", ["n", 1])],
)
#: A pair of matrices, of which one has a fixed size.
MATRICES = model(
    [node("MatMul", ["a", "b"], "product")],
    [argument("a", "float64", ["n", 2]), argument("b", "float64", [2, 2])],
    [argument("product", "float64", ["n", 2])],
)
VALUES = model(
    [node("Neg", ["values"], "less")],
    [argument("values", "float32", ["n"])],
    [argument("less", "float32", ["n"])],
)
FIXED = model(
    [node("Neg", ["rows"], "less")], [argument("rows", "float32", [1, 3])], [argument("less", "float32", [1, 3])]
)
# The probabilities of scikit-learn's classifiers, as its converter writes them: for each row a map by the class.
NUMBERS = message((1, message((1, 1))))
BY_CLASS = message((5, message((1, 7), (2, NUMBERS))))
MAPS = model(
    [
        node(
            "ZipMap", ["rows"], "maps", message((1, "classlabels_int64s"), (8, 0), (8, 1), (20, 7)), domain="ai.onnx.ml"
        )
    ],
    [argument("rows", "float32", ["n", 2])],
    [message((1, "maps"), (2, message((4, message((1, BY_CLASS))))))],
)


def load(path: Path, content: bytes, options: dict[str, Any] | None = None) -> Model:
    (path / "model.onnx").write_bytes(content)
    if options is not None:
        (path / "manymodels.json").write_text(json.dumps({"settings": options}))
    plugins = Plugins([("onnx", manymodels_onnx)])
    found = Artifact(path, "m")
    settings = ModelSettings()
    return Model(found, plugins.bind(found, settings), plugins, settings)


def send(model: Model, body: Any, content_type: str | None = "application/json", accept: str | None = None) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.invoke([Invocation(content, content_type, accept)])
    if isinstance(answer, ManyModelsError):
        raise answer
    return answer


def ask(model: Model, body: Any, content_type: str | None = "application/json") -> Any:
    return json.loads(send(model, body, content_type).body)


@pytest.fixture
def linear(tmp_path: Path) -> Model:
    return load(tmp_path, LINEAR)


@pytest.fixture
def columns(tmp_path: Path) -> Model:
    return load(tmp_path, COLUMNS)


# Load


def test_importing_the_plugin_and_claiming_import_no_framework(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(LINEAR)
    code = (
        "import sys, manymodels_onnx; from pathlib import Path; from manymodels import Artifact; "
        f"assert manymodels_onnx.claim(Artifact(Path({str(tmp_path)!r}))) == 'onnx'; "
        "print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_importing_onnx_runtime_starts_no_thread_for_telemetry() -> None:
    code = (
        "import os, numpy, manymodels_onnx; before = os.listdir('/proc/self/task'); import onnxruntime; "
        "print(len(os.listdir('/proc/self/task')) - len(before))"
    )
    # Where CI is set, there is none anyway.
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)

    assert done.stdout == "0\n"


def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "onnx.txt").write_bytes(LINEAR)
    (tmp_path / ".hidden.onnx").write_bytes(LINEAR)

    assert manymodels_onnx.claim(Artifact(tmp_path)) is None


def test_several_models_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"holds no ONNX model; name it model\.onnx"):
        manymodels_onnx.load(Artifact(tmp_path), Context("m", str(tmp_path)))
    (tmp_path / "a.onnx").write_bytes(LINEAR)
    with pytest.raises(LoadFailed, match=r"several ONNX models \(a\.onnx, model\.onnx\); keep one"):
        load(tmp_path, LINEAR)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "'model.onnx' of 'm' is no ONNX model: cannot mmap an empty file"),
        (pickle.dumps(os.system), "is no ONNX model: it is"),
        (LINEAR[:-3], "is no ONNX model: it is no protobuf, or cut off"),
        (b"ORTM" * 9, "is no ONNX model: it is"),
        (message((1, 8)), "cannot be run by ONNX Runtime .*: .*[Nn]o graph"),
        (model([node("Unheard", ["rows"], "y")], [argument("rows", "float32", ["n"])], []), "Unheard"),
        (model([node("Neg", ["rows"], "y", domain="my.own")], [argument("rows", "float32", ["n"])], []), "my.own"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(LoadFailed, match=says) as caught:
        load(tmp_path, content)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def external(location: str, *more: tuple[str, str]) -> bytes:
    """Return a tensor whose data is in another file."""
    entries = [message((1, key), (2, value)) for key, value in [("location", location), *more]]
    return message((1, 3), (1, 1), (2, 1), (8, "weights"), *((13, entry) for entry in entries), (14, 1))


def linear_with(weights: bytes) -> bytes:
    return model(
        [node("MatMul", ["rows", "weights"], "sums")],
        [argument("rows", "float32", ["n", 3])],
        [argument("sums", "float32", ["n", 1])],
        weights,
    )


def test_data_may_be_in_other_files_of_the_artifact(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.data").write_bytes(WEIGHTS.tobytes())

    assert ask(load(tmp_path, linear_with(external("weights/w.data"))), ROWS) == SUMS
    assert ask(load(tmp_path, linear_with(external("./weights/w.data"))), ROWS) == SUMS


@pytest.mark.parametrize(
    "location",
    ["../secret", "sub/../../secret", "{outside}", "missing", "link", "*/_ORT_MEM_ADDR_/*", ".hidden"],
)
def test_data_outside_of_the_artifact_is_refused(tmp_path: Path, location: str) -> None:
    """ONNX Runtime would read what is there, or take the number behind its own mark for an address of memory."""
    artifact = tmp_path / "artifact"
    (artifact / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret", artifact / ".hidden"):
        path.write_bytes(WEIGHTS.tobytes())
    (artifact / "link").symlink_to(tmp_path / "secret")
    told = location.format(outside=tmp_path / "secret")

    with pytest.raises(LoadFailed, match=r"refers to data in .* which is no file of the artifact"):
        load(artifact, linear_with(external(told, ("offset", "0"), ("length", "12"))))


def attribute(number: int, content: bytes) -> bytes:
    return message((1, "value"), (number, content), (20, 4 if number == 5 else 5))


@pytest.mark.parametrize("place", ["constant", "branch", "function", "sparse", "training", "before another type"])
def test_data_outside_is_found_wherever_it_is_named(tmp_path: Path, place: str) -> None:
    bad = external("../secret")
    constant = node("Constant", [], "weights", attribute(5, bad))
    inner = message((1, constant), (2, "inner"), (12, argument("weights", "float32", [3, 1])))
    content = {
        "constant": model([constant], [], []),
        "branch": model([node("If", ["c"], "y", attribute(6, inner))], [], []),
        "function": LINEAR + message((25, message((1, "f"), (7, constant)))),
        "sparse": LINEAR + message((7, message((15, message((1, bad)))))),
        "training": LINEAR + message((20, message((2, inner)))),
        # Readers of protobuf leave out what is of another type than the field.
        "before another type": linear_with(message((13, message((1, "location"), (2, "../secret"), (1, 1), (2, 1))))),
    }[place]

    with pytest.raises(LoadFailed, match=r"refers to data in '\.\./secret'"):
        load(tmp_path, content)


def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    graph = message((2, "g"))
    for _ in range(60):
        graph = message((1, node("If", ["c"], "y", attribute(6, graph))))

    with pytest.raises(LoadFailed, match="nested too deep"):
        load(tmp_path, message((7, graph)))


def test_the_threads_are_the_operators(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(LINEAR)
    context = Context("m", str(tmp_path), settings=ModelSettings(threads=1))
    options = manymodels_onnx.load(Artifact(tmp_path), context).session.get_session_options()

    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_an_input_that_cannot_be_sent_is_named(tmp_path: Path) -> None:
    sequence = message((4, message((1, message((1, message((1, 1))))))))
    given = message((1, "parts"), (2, sequence))
    join = node("ConcatFromSequence", ["parts"], "y", message((1, "axis"), (3, 0), (20, 2)))

    with pytest.raises(LoadFailed, match=r"takes 'parts' as seq\(tensor\(float\)\), which cannot be sent"):
        load(tmp_path, model([join], [given], [argument("y", "float32", ["n"])]))


# Requests


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS).encode(), "application/json"),
        (json.dumps({"instances": ROWS}).encode(), "application/json"),
        (json.dumps({"inputs": {"rows": ROWS}}).encode(), "application/json"),
        (json.dumps({"inputs": ROWS}).encode(), "application/json"),
        (json.dumps({"features": ROWS}).encode(), None),
        (json.dumps({"columns": ["a", "b", "c"], "data": ROWS}).encode(), None),
        (b"\n".join(json.dumps(row).encode() for row in ROWS), "application/jsonlines"),
        (b"1,2,3\n0,0.5,0\n", "text/csv"),
        (codecs.encode(np.array(ROWS), "application/x-npy")[0], "application/x-npy"),
        (b"1:1 2:2 3:3\n2:0.5 3:0\n", "text/libsvm"),
    ],
)
def test_every_form_of_a_body_gives_the_same_answer(linear: Model, body: bytes, content_type: str | None) -> None:
    assert ask(linear, body, content_type) == SUMS


def test_a_flat_list_is_one_row_of_a_matrix_and_all_values_of_a_vector(linear: Model, tmp_path: Path) -> None:
    assert ask(linear, ROWS[0]) == SUMS[:1]
    vector = load(tmp_path, VALUES)
    assert ask(vector, [1, 2]) == [-1, -2]
    assert ask(vector, [[1], [2]]) == [-1, -2]
    assert ask(vector, b"1\n2\n", "text/csv") == [-1, -2]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"inputs": {"age": [[3], [4]], "city": [["Rome"], ["Oslo"]]}}, "application/json"),
        ({"inputs": {"city": ["Rome", "Oslo"], "age": [3, 4.0]}}, "application/json"),
        ([{"city": "Rome", "age": 3}, {"city": "Oslo", "age": 4}], "application/json"),
        ({"columns": ["city", "age"], "data": [["Rome", 3], ["Oslo", 4]]}, "application/json"),
        ([[3, "Rome"], [4, "Oslo"]], "application/json"),
        (b"city,age\nRome,3\nOslo,4\n", "text/csv"),
        (b"3,Rome\n4,Oslo\n", "text/csv"),
    ],
)
def test_columns_are_sent_by_name_or_in_order(columns: Model, body: Any, content_type: str) -> None:
    assert ask(columns, body, content_type) == {"same": [["Rome"], ["Oslo"]], "twice": [[6], [8]]}


def test_several_arrays_are_sent_by_name(tmp_path: Path) -> None:
    both = load(tmp_path, MATRICES)

    assert ask(both, {"inputs": {"a": [[1, 2]], "b": [[1, 0], [0, 2]]}}) == [[1.0, 4.0]]
    with pytest.raises(BadInput, match=r"takes several arrays; send .*'a', 'b'"):
        ask(both, [[1, 2]])
    with pytest.raises(BadInput, match="\"inputs\" must be an object of 'a', 'b'"):
        ask(both, {"inputs": [[1, 2]]})
    with pytest.raises(BadInput, match=r"the input 'b' has the shape \(2, 2\), got \(3, 2\)"):
        ask(both, {"inputs": {"a": [[1, 2]], "b": [[1, 0], [0, 2], [3, 3]]}})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([[1, 2]], r"the input 'rows' has the shape \(any, 3\), got \(1, 2\)"),
        ([[[1, 2, 3]]], r"got \(1, 1, 3\)"),
        ([], r"got \(1, 0\)"),
        ([[1, 2, "red"]], "'rows' takes numbers, got 'red'"),
        ([[1, 2], [3]], "row 2 has 1 values"),
        ({"rows": ROWS}, "send rows, or"),
        ({"inputs": {"row": ROWS}}, "the request lacks 'rows'; the model does not know 'row'"),
        ({"inputs": {"rows": {"a": 1}}}, "'rows' must be an array"),
        ({"inputs": {"rows": [{"a": 1}]}}, "'rows' must be an array"),
        ({"inputs": {"rows": None}}, r"got \(\)|takes numbers"),
    ],
)
def test_what_the_model_cannot_take_is_refused_in_a_sentence(linear: Model, body: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        ask(linear, body)


@pytest.mark.parametrize(
    ("age", "city", "says"),
    [
        (1.5, "Rome", "'age' takes int64"),
        (None, "Rome", "'age' takes int64"),
        (1e300, "Rome", "'age' takes int64"),
        ("old", "Rome", "'age' takes numbers, got 'old'"),
        (1, 2, "'city' takes text, got 2"),
        (1, None, "'city' takes text, got nan"),
    ],
)
def test_values_are_cast_only_where_they_stay_what_they_are(columns: Model, age: Any, city: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        ask(columns, [[age, city]])


def test_long_integers_are_taken_to_the_last_digit_or_refused(tmp_path: Path, columns: Model) -> None:
    long = 2**53 + 1
    assert ask(columns, [[long, "Rome"]]) == {"same": [["Rome"]], "twice": [[2 * long]]}
    assert ask(columns, [{"city": "Rome", "age": long}]) == {"same": [["Rome"]], "twice": [[2 * long]]}

    (tmp_path / "two").mkdir()
    outputs = [argument("same", "int64", ["n", 1]), argument("less", "float32", ["n", 1])]
    two = load(
        tmp_path / "two",
        model(
            [node("Identity", ["id"], "same"), node("Neg", ["x"], "less")],
            [argument("id", "int64", ["n", 1]), argument("x", "float32", ["n", 1])],
            outputs,
        ),
    )
    assert ask(two, [[long, 1]]) == {"same": [[long]], "less": [[-1.0]]}
    assert ask(two, {"inputs": {"id": [[long]], "x": [[0.5]]}}) == {"same": [[long]], "less": [[-0.5]]}
    for body, kind in ((b"[[9007199254740993, 0.5]]", "application/json"), (b"9007199254740993,0.5", "text/csv")):
        with pytest.raises(BadInput, match=r"'id' takes int64, .* may have lost digits; send \{\"inputs"):
            ask(two, body, kind)


def test_missing_and_huge_numbers_are_those_of_float32(tmp_path: Path) -> None:
    assert send(load(tmp_path, VALUES), [None, 1e300], accept="text/csv").body == b"nan\n-inf\n"


def test_rows_of_unequal_inputs_are_refused_by_onnx_runtime(tmp_path: Path) -> None:
    added = model(
        [node("Add", ["a", "b"], "c")],
        [argument("a", "float32", ["n"]), argument("b", "float32", ["n"])],
        [argument("c", "float32", ["n"])],
    )
    with pytest.raises(ManyModelsError, match="Add"):
        ask(load(tmp_path, added), {"inputs": {"a": [1, 2, 3], "b": [1, 2]}})


# Replies


def test_outputs_can_be_chosen(tmp_path: Path) -> None:
    chosen = load(tmp_path, COLUMNS, {"outputs": ["twice"]})

    assert ask(chosen, [[3, "Rome"]]) == [[6]]
    assert send(chosen, [[3, "Rome"]], accept="text/csv").body == b"6\n"


@pytest.mark.parametrize(
    ("outputs", "says"),
    [(["thrice"], "names 'thrice'; the model has same, twice"), ([], "a list"), ("twice", "a list")],
)
def test_outputs_the_model_does_not_have_are_refused_at_load(tmp_path: Path, outputs: Any, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        load(tmp_path, COLUMNS, {"outputs": outputs})


def test_several_outputs_are_an_object_and_no_table(columns: Model) -> None:
    with pytest.raises(UnsupportedAccept, match="application/json"):
        send(columns, [[3, "Rome"]], accept="text/csv")


# Joined invocations


def rows_of(model: Model, bodies: list[Any]) -> list[Any]:
    answers = model.invoke([Invocation(json.dumps(body).encode(), "application/json") for body in bodies])
    return [json.loads(answer.body) if isinstance(answer, Answer) else answer for answer in answers]


def test_joined_answers_equal_single_ones_and_a_bad_invocation_fails_alone(linear: Model, tmp_path: Path) -> None:
    first, second, refused = rows_of(linear, [ROWS, ROWS[:1], [[1]]])
    assert (first, second) == (SUMS, SUMS[:1])
    assert isinstance(refused, BadInput)

    several = load(tmp_path, COLUMNS)
    assert rows_of(several, [[[1, "a"], [2, "b"]], [[3, "c"]]]) == [
        {"same": [["a"], ["b"]], "twice": [[2], [4]]},
        {"same": [["c"]], "twice": [[6]]},
    ]


@pytest.mark.parametrize(
    ("content", "joins"), [(LINEAR, True), (COLUMNS, True), (VALUES, True), (FIXED, False), (MATRICES, False)]
)
def test_only_models_of_any_number_of_rows_join_requests(tmp_path: Path, content: bytes, joins: bool) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    loaded = manymodels_onnx.load(Artifact(tmp_path), Context("m", str(tmp_path)))

    assert (manymodels_onnx.batch(loaded) is not None) == joins


def test_requests_whose_inputs_differ_in_length_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(COLUMNS)
    batch = manymodels_onnx.batch(manymodels_onnx.load(Artifact(tmp_path), Context("m", str(tmp_path))))
    assert batch is not None

    assert batch.join([{"a": np.zeros((2, 1)), "b": np.zeros((1, 1))}] * 2) is None
    assert batch.join([{"a": np.zeros((2, 1))}, {"a": np.zeros((2, 3))}]) is None


# The schema


@pytest.mark.parametrize(
    ("content", "options", "schema"),
    [
        (
            LINEAR,
            {},
            Schema(
                inputs=(Field(name="rows", type="number", shape=(-1, 3)),),
                outputs=(Field(name="sums", type="number", shape=(-1, 1)),),
            ),
        ),
        (
            COLUMNS,
            {"outputs": ["twice"]},
            Schema(
                inputs=(Field(name="age", type="integer"), Field(name="city", type="string")),
                outputs=(Field(name="twice", type="integer", shape=(-1, 1)),),
            ),
        ),
        (
            MATRICES,
            {},
            Schema(
                inputs=(
                    Field(name="a", type="number", shape=(-1, 2)),
                    Field(name="b", type="number", shape=(2, 2)),
                ),
                outputs=(Field(name="product", type="number", shape=(-1, 2)),),
            ),
        ),
        (MAPS, {}, Schema(inputs=(Field(name="rows", type="number", shape=(-1, 2)),), outputs=(Field(name="maps"),))),
    ],
)
def test_what_a_model_tells(tmp_path: Path, content: bytes, options: dict[str, Any], schema: Schema) -> None:
    model = load(tmp_path, content, options)
    assert decode(model.schema) == schema
    assert not model.notes


# The sample


def test_the_sample_is_answered_as_it_says(tmp_path: Path) -> None:
    goldens = manymodels_onnx.sample_artifact(tmp_path)
    model = load(tmp_path, (tmp_path / "model.onnx").read_bytes())

    for golden in goldens:
        (answer,) = model.invoke([golden.invocation()])
        assert isinstance(answer, Answer), answer
        golden.check(answer)


def test_the_exported_names_are_the_hooks_and_the_version() -> None:
    module = manymodels_onnx
    hooks = {name for name in vars(module) if hasattr(getattr(module, name), "manymodels_impl")}

    assert module.__all__ == sorted({*hooks, "__version__"})

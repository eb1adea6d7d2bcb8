"""What a model takes and gives: who says so, and what becomes of bodies with other columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.sparse
from arrays import sparse_npz

from manymodels import Artifact, Context, Field, Manifest, ModelSettings, Plugins, Schema, hookimpl
from manymodels.artifact import MANIFEST
from manymodels.columns import checker
from manymodels.errors import BadArtifact, BadInput
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model
from manymodels.plugins import Binding
from manymodels.schema import LIMIT, decode, encode

SHOP = Schema(
    inputs=(
        Field(name="city", type="string", values=("Berlin", "Bonn")),
        Field(name="day", type="integer"),
        Field(name="open", type="boolean"),
        Field(name="degrees", type="number", optional=True),
        Field(name="note"),
    )
)
GOOD = {"city": "Bonn", "day": 3, "open": True, "degrees": 20.5, "note": "fair"}


def npz(width: int) -> bytes:
    return sparse_npz(scipy.sparse.csr_matrix(np.ones((1, width))))


# -- The schema itself --


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ({"inputs": [{"name": "a", "type": "float"}]}, "Invalid enum value 'float'"),
        ({"inputs": [{"name": "a", "typ": "number"}]}, "unknown field `typ`"),
        ({"input": []}, "unknown field `input`"),
        ({"inputs": [{"name": "a"}, {"type": "number"}]}, "several inputs need a name each"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "two outputs have the same name"),
        ({"inputs": [{"shape": [-2, 3]}]}, "lengths in a shape are 0 or more"),
    ],
)
def test_a_manifest_with_a_bad_schema(written: Any, fault: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": written}))
    with pytest.raises(BadArtifact, match=f"^{MANIFEST} of 'shop' is not valid: ") as error:
        _ = Artifact(tmp_path, "shop").manifest
    assert fault in str(error.value)


def test_as_it_is_kept() -> None:
    assert decode(encode(SHOP)) == SHOP
    assert decode(b"") is None
    for nonsense in (b"{", b"[]", b'{"inputs": 1}', b"[" * 10**5):
        assert decode(nonsense) is None
    with pytest.raises(TypeError, match="a dict is no Schema"):
        encode({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"more than {LIMIT} bytes"):
        encode(Schema(inputs=tuple(Field(name=f"column {number}") for number in range(10_000))))


# -- Bodies --


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", [GOOD, GOOD | {"degrees": None}]),
        ("application/json", [{name: value for name, value in GOOD.items() if name != "degrees"}]),
        ("application/json", dict(reversed(GOOD.items()))),
        ("application/json", [list(GOOD.values())]),
        ("application/json", list(GOOD.values())),
        ("application/json", {"features": [list(GOOD.values())]}),
        ("application/json", {"columns": list(GOOD), "data": [list(GOOD.values())]}),
        ("application/json", {"instances": [GOOD]}),
        ("application/json", {"days": [1, 2], "a form": "of the model's own"}),
        ("application/json", [GOOD | {"day": 3.0, "open": 0}]),
        ("text/csv", "Bonn,3,1,20.5,fair\nBerlin,4,0,,\n"),
        ("text/csv", "day,city,open,degrees,note\n3,Bonn,1,20.5,fair\n"),
        ("application/x-npz", npz(5)),
        ("image/png", b"of a type that the plugin knows"),
    ],
)
def test_columns_that_are_declared(content_type: str, body: Any) -> None:
    check = checker(SHOP, None)
    assert check is not None
    check(encoded(body), content_type)


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (
            "application/json",
            [{"city": "Bonn", "dya": 3, "open": True, "wind": 1}],
            "the columns are not the model's (missing: 'day', 'note'; unknown: 'dya', 'wind')",
        ),
        (
            "application/json",
            GOOD | {"day": 3.5, "city": "Rome"},
            "the columns have values that are not the model's "
            "('city' takes 'Berlin', 'Bonn', not 'Rome'; 'day' takes integer, not 3.5)",
        ),
        ("application/json", [GOOD, GOOD | {"degrees": "warm"}], "'degrees' takes number, not 'warm'"),
        ("application/json", [GOOD | {"degrees": True}], "'degrees' takes number, not True"),
        ("application/json", [GOOD | {"open": "yes"}], "'open' takes boolean, not 'yes'"),
        ("application/json", [GOOD | {"city": 5}], "'city' takes string, not 5"),
        ("application/json", [[1, 2]], "the model takes rows of 5 columns, and the input has shape (1, 2)"),
        ("application/json", [[[1]]], "the model takes rows of 5 columns, and the input has shape (1, 1, 1)"),
        ("text/csv", "Bonn,3,1,warm,fair\n", "'degrees' takes number, not 'warm'"),
        ("text/csv", "1,2,3,4,5\n", "'city' takes string, not 1.0"),
        ("application/x-npz", npz(6), "the model takes rows of 5 columns, and the input has 6"),
        ("application/json", b"[", "JSON"),
    ],
)
def test_columns_that_are_not(content_type: str, body: Any, message: str) -> None:
    check = checker(SHOP, None)
    assert check is not None
    with pytest.raises(BadInput) as error:
        check(encoded(body), content_type)
    assert message in str(error.value)


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()


def test_a_model_that_knows_no_names_gets_columns_in_their_order() -> None:
    declared = Schema(inputs=(Field(name="a", type="number"), Field(name="b", type="number")))
    swapped = b'[{"b": 1, "a": 2}]'
    for own in (None, Schema(), Schema(inputs=declared.inputs)):
        check = checker(declared, own)
        assert check is not None
        check(swapped, "application/json")
    check = checker(declared, Schema(inputs=(Field(shape=(-1, 2)),)))
    assert check is not None
    check(b'[{"a": 2, "b": 1}]', "application/json")
    with pytest.raises(BadInput, match=r"knows no names: send its columns in their order \('a', 'b'\)"):
        check(swapped, "application/json")


def test_only_declared_columns_are_checked() -> None:
    assert checker(None, SHOP) is None
    assert checker(Schema(), SHOP) is None
    assert checker(Schema(inputs=(Field(type="number", shape=(-1, 2)),)), None) is None


# -- A model --


class Told:
    """A plugin whose models say what a test wants, and answer what they are sent."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    @hookimpl
    def load(self) -> str:
        return "model"

    @hookimpl
    def predict_fn(self, data: Any) -> Any:
        return data

    @hookimpl
    def schema(self, model: str, context: Context) -> Any:
        assert (model, context.target_model) == ("model", "shop")
        if isinstance(self._schema, Exception):
            raise self._schema
        return self._schema


def make(path: Path, own: Any, declared: Schema | None = None) -> Model:
    (path / MANIFEST).write_bytes(msgspec.json.encode(Manifest(schema=declared)))
    plugins = Plugins([("told", Told(own))])
    return Model(Artifact(path, "shop"), Binding("told"), plugins, ModelSettings())


def test_the_plugin_tells(tmp_path: Path) -> None:
    model = make(tmp_path, SHOP)
    assert decode(model.schema) == SHOP
    (answer,) = model.invoke([Invocation(b'[{"other": 1}]')])
    assert isinstance(answer, Answer), "what the plugin says is for it to refuse"
    assert make(tmp_path, None).schema == b""


def test_the_artifact_knows_better(tmp_path: Path) -> None:
    declared = Schema(inputs=(Field(name="a", type="number"),))
    model = make(tmp_path, SHOP, declared)
    assert decode(model.schema) == declared
    good, bad = model.invoke([Invocation(b'[{"a": 1}]'), Invocation(b'[{"b": 1}]')])
    assert isinstance(good, Answer)
    assert isinstance(bad, BadInput)
    assert str(bad) == "the columns are not the model's (missing: 'a'; unknown: 'b')"


@pytest.mark.parametrize("own", [ValueError("of no\nuse"), {"inputs": []}, Schema(inputs=(Field(name="a" * LIMIT),))])
def test_what_cannot_be_shown_is_noted(own: Any, tmp_path: Path) -> None:
    model = make(tmp_path, own)
    assert model.schema == b""
    (note,) = model.notes
    assert note.startswith("its schema cannot be shown: ")

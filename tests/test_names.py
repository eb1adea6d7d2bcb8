"""Which TargetModels are taken."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels.errors import BadTargetModel
from manymodels.store import check_target_model


@pytest.mark.parametrize(
    "name",
    [
        "model.tar.gz",
        "team/a b/model.tar.gz",
        "modèle-模型.tar.gz",
        "%2e%2e/model.tar.gz",
        "..model",
        "model..",
        "...",
        "ab:c.tar.gz",
        "~/model",
        "$(id)",
        "x" * 1024,
    ],
)
def test_taken_as_it_is(name: str) -> None:
    assert check_target_model(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 2000, "is 2000 characters long, more than 1024"),
        ("../x", "'.' or '..' segment"),
        ("a/../../x", "'.' or '..' segment"),
        ("a/..", "'.' or '..' segment"),
        ("./x", "'.' or '..' segment"),
        ("/etc/passwd", "absolute"),
        ("//host/x", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("\\\\host\\x", "backslash"),
        ("..\\x", "backslash"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        ("a\0b", "NUL"),
        ("a\nb", "cannot be printed"),
        ("a\x7fb", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        (" a", "starts with a space"),
        ("\u3000a", "starts with a space"),
        ("a\udcff", "not valid UTF-8"),
    ],
)
def test_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(BadTargetModel) as caught:
        check_target_model(name)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@given(st.text(max_size=40) | st.text(alphabet="./\\a:", max_size=12))
def test_what_is_taken_stays_below_its_root(name: str) -> None:
    try:
        check_target_model(name)
    except BadTargetModel:
        return
    path = os.path.normpath(os.path.join("/store", name))
    assert path == f"/store/{name}"
    assert name.encode().decode() == name

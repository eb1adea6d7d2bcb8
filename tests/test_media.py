"""Media types and the Accept header."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manymodels import codecs
from manymodels.codecs import choose, media_type
from manymodels.errors import (
    UnsupportedAccept,
)


def test_media_type_parts() -> None:
    assert media_type(None) == ("application/json", {})
    assert media_type("") == ("application/json", {})
    assert media_type(" Text/CSV ; Charset=UTF-8;label_size=0") == ("text/csv", {"charset": "UTF-8", "label_size": "0"})
    assert media_type(r'text/csv; a="x;\"y\\"; b') == ("text/csv", {"a": r'x;"y' + "\\"})


# Accept


OFFERED = ("application/json", "text/csv", "application/x-npy")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("*/*", "application/json"),
        ("", "application/json"),
        (" , ", "application/json"),
        ("*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "text/csv"),
        ("application/*, text/csv", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/json;q=0.1, application/*", "application/x-npy"),
        ("image/png, application/json;q=0.2", "application/json"),
        ('application/json;profile="a,text/csv;q=1";q=0.5, text/csv;q=0.4', "application/json"),
        ("application/json;v=1;q=0.1, text/csv;q=0.5, application/json", "application/json"),
        ("text/html, image/gif, *; q=.2, */*; q=.2", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
    ],
)
def test_choose(accept: str, chosen: str) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["image/png", "json", "text/*;q=0", "*/*;q=0", "text/csv;q=0"])
def test_nothing_acceptable_names_what_is_offered(accept: str) -> None:
    with pytest.raises(UnsupportedAccept, match="application/json, text/csv, application/x-npy"):
        choose(accept, OFFERED)


@pytest.mark.parametrize("quality", ["x", "", "nan", "1.5", "-1", "inf"])
def test_bad_quality(quality: str) -> None:
    with pytest.raises(UnsupportedAccept, match="quality"):
        choose(f"text/csv;q={quality}", OFFERED)


def test_any_accept() -> None:
    assert all(map(codecs.any_accept, (None, "", " ", "*/*", " */* ")))
    assert not any(map(codecs.any_accept, ("text/csv", "text/csv, */*", "text/*")))


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(st.text(), st.text(alphabet='ab/*,;="q\\01. ', max_size=40))
def test_any_header_text_is_answered(content_type: str, accept: str) -> None:
    media_type(content_type)
    try:
        chosen = choose(accept, OFFERED)
    except UnsupportedAccept:
        return
    assert chosen in OFFERED

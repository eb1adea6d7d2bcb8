"""When an answer is the one that a golden request asks for."""

from __future__ import annotations

import io

import numpy as np
import pytest

from manymodels import Golden
from manymodels.agreement import Disagreement
from manymodels.invocation import Answer


def npy(values: list[float]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


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
    ],
)
def test_answers_are_compared_as_values(content_type: str, answer: bytes, same: bytes, other: bytes) -> None:
    asked = golden(answer, content_type)
    assert asked.check(Answer(same, content_type)) <= 1e-9
    with pytest.raises(Disagreement):
        asked.check(Answer(other, content_type))


def test_another_status_or_type_is_another_answer() -> None:
    asked = golden(b"[1]", "application/json")
    with pytest.raises(Disagreement, match="status 201 instead of 200"):
        asked.check(Answer(b"[1]", "application/json", status=201))
    with pytest.raises(Disagreement, match="Content-Type text/csv instead of application/json"):
        asked.check(Answer(b"1", "text/csv"))


def test_the_request_is_asked_as_it_is() -> None:
    invocation = Golden(body=b"1,2\n", content_type="text/csv", accept="text/csv", answer=b"3\n").invocation()
    assert (invocation.body, invocation.content_type, invocation.accept) == (b"1,2\n", "text/csv", "text/csv")

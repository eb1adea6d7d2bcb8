"""What the front and workers say to each other, cut into frames anywhere."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels.errors import BY_NAME, ManyModelsError, PredictionFailed
from manymodels.invocation import Answer, Invocation
from manymodels.plugins import Binding
from manymodels.server import messages
from manymodels.server.messages import (
    Answered,
    Cancel,
    Dropped,
    Failed,
    Failure,
    Frames,
    Load,
    Loaded,
    Memory,
    Run,
    Serves,
    Unload,
    Unloaded,
    frame,
    outcome,
    to_front_decoder,
    to_worker_decoder,
)
from manymodels.trial import Predictor

TEXT = st.text(max_size=20)
NUMBER = st.integers(0, 2**53)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=3)
INVOCATION = st.builds(Invocation, st.binary(max_size=50), st.none() | TEXT, st.none() | TEXT, HEADERS, TEXT)
ANSWER = st.builds(
    Answer,
    st.binary(max_size=50),
    TEXT,
    st.integers(200, 599),
    HEADERS,
    st.dictionaries(TEXT, st.floats(0, 9), max_size=2),
)
FAILURE = st.builds(Failure, st.sampled_from(sorted(BY_NAME)), TEXT)
TO_WORKER = st.one_of(
    st.builds(Load, NUMBER, NUMBER, TEXT, TEXT, st.builds(Binding, TEXT, st.none() | TEXT)),
    st.builds(Unload, NUMBER, NUMBER),
    st.builds(Run, NUMBER, NUMBER, st.lists(INVOCATION, max_size=3)),
    st.builds(Cancel, st.lists(NUMBER, max_size=3)),
)
TO_FRONT = st.one_of(
    st.builds(Loaded, NUMBER, NUMBER, st.booleans(), st.floats(0, 9), st.lists(TEXT, max_size=2)),
    st.builds(Unloaded, NUMBER),
    st.builds(Dropped, st.lists(NUMBER, max_size=3)),
    st.builds(Answered, NUMBER, st.lists(ANSWER.map(outcome) | FAILURE, max_size=3)),
    st.builds(Failed, NUMBER, FAILURE),
    st.builds(Serves, NUMBER, TEXT, st.builds(Predictor, name=TEXT, difference=st.none() | st.floats(0, 9)), NUMBER),
    st.builds(Memory, NUMBER),
)


def feed(decoder: Any, stream: bytes, cuts: list[int]) -> list[Any]:
    """Feed a stream in pieces; return all messages."""
    frames = Frames(decoder)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [message for start, end in itertools.pairwise(edges) for message in frames.feed(stream[start:end])]


@given(st.lists(st.lists(TO_WORKER, max_size=3), max_size=4), st.lists(st.integers(0), max_size=8))
def test_messages_to_workers_arrive_whole_and_in_order(sent: list[list[Any]], cuts: list[int]) -> None:
    stream = b"".join(map(bytes, map(frame, sent)))
    assert feed(to_worker_decoder, stream, cuts) == [message for group in sent for message in group]


@given(st.lists(st.lists(TO_FRONT, max_size=3), max_size=4), st.lists(st.integers(0), max_size=8))
def test_messages_to_the_front_arrive_whole_and_in_order(sent: list[list[Any]], cuts: list[int]) -> None:
    stream = b"".join(map(bytes, map(frame, sent)))
    assert feed(to_front_decoder, stream, cuts) == [message for group in sent for message in group]


def test_a_frame_may_come_byte_by_byte() -> None:
    frames = Frames(to_front_decoder)
    stream = bytes(frame([Unloaded(1), Unloaded(2)]))
    assert [frames.feed(stream[n : n + 1]) for n in range(len(stream))][-1] == [Unloaded(1), Unloaded(2)]
    assert frames.feed(stream) == [Unloaded(1), Unloaded(2)]


@given(st.binary(max_size=60))
def test_garbage_is_an_error_or_is_waited_for(content: bytes) -> None:
    frames = Frames(to_front_decoder)
    try:
        frames.feed(len(content).to_bytes(4, "little") + content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert to_front_decoder.decode(content) is not None


@pytest.mark.parametrize("content", [pickle.dumps([Unloaded]), b"\x91\x92\xa7unknown\x01", b"\xc0", b""])
def test_what_is_no_list_of_messages_is_an_error(content: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Frames(to_front_decoder).feed(len(content).to_bytes(4, "little") + content)


def test_a_frame_too_long_is_an_error_before_it_is_read() -> None:
    with pytest.raises(msgspec.DecodeError, match=f"a frame of {messages.LIMIT + 1} bytes, more than {messages.LIMIT}"):
        Frames(to_front_decoder).feed((messages.LIMIT + 1).to_bytes(4, "little"))


@pytest.mark.parametrize("cls", BY_NAME.values(), ids=BY_NAME)
def test_errors_cross_with_class_and_text(cls: type[ManyModelsError]) -> None:
    error = Failure.of(cls("it failed")).error()
    assert (type(error), str(error)) == (cls, "it failed")


def test_an_error_of_a_plugins_own_class_crosses_as_a_failed_prediction() -> None:
    class Own(ManyModelsError):
        """One of a plugin's own."""

    error = Failure.of(Own("it failed")).error()
    assert (type(error), str(error)) == (PredictionFailed, "it failed")


def test_texts_that_are_not_utf8_can_be_sent() -> None:
    failure = Failure.of(PredictionFailed("caf\udce9 é"))
    assert failure.message == "caf\\udce9 é"
    assert Frames(to_front_decoder).feed(bytes(frame([Failed(1, failure)]))) == [Failed(1, failure)]

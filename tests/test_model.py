"""A loaded model: how it answers, alone and joined, and what becomes of its errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manymodels import Artifact, Batch, Context, ModelSettings, Plugins, hookimpl
from manymodels.codecs import decode
from manymodels.errors import (
    BadInput,
    LoadFailed,
    ManyModelsError,
    NoPlugin,
    OutOfMemory,
    PredictionFailed,
    UnsupportedAccept,
    UnsupportedContentType,
)
from manymodels.invocation import Answer, Invocation, Streaming
from manymodels.model import Model
from manymodels.plugins import Binding


class Lists:
    """Joins lists of numbers."""

    def __init__(self, cut: Callable[[list[Any]], list[Any]] = list) -> None:
        self._cut = cut

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        if any(not isinstance(item, list) for item in data):
            return None
        return [number for item in data for number in item], [len(item) for item in data]

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        shares = []
        for count in counts:
            shares.append(prediction[:count])
            prediction = prediction[count:]
        return self._cut(shares)


class Plugin:
    """A plugin that doubles numbers and does what a test wants of the context."""

    def __init__(self, batch: Batch | None = None, act: Callable[[Any, Context], Any] | None = None) -> None:
        self._batch = batch
        self._act = act
        self.calls: list[Any] = []

    @hookimpl
    def load(self, artifact: Artifact, context: Context) -> Any:
        context.note(f"loaded {artifact.name}")
        return self._act(None, context) if self._act and artifact.match("act") else "model"

    @hookimpl
    def input_fn(self, body: bytes, content_type: str | None) -> Any:
        data = decode(body, content_type)
        return data.tolist() if isinstance(data, np.ndarray) else data

    @hookimpl
    def predict_fn(self, data: Any, context: Context) -> Any:
        self.calls.append(data)
        if self._act is not None:
            return self._act(data, context)
        if isinstance(data, list):
            return [number * 2 for number in data]
        return data

    @hookimpl
    def batch(self) -> Batch | None:
        return self._batch


def make(plugin: object, path: Path, **settings: Any) -> Model:
    """Load an artifact."""
    plugins = Plugins([("plugin", plugin)])
    return Model(Artifact(path, "shop"), Binding("plugin"), plugins, ModelSettings(**settings))


def invoke(model: Model, *bodies: bytes, **request: Any) -> list[bytes | ManyModelsError]:
    """Return the bodies of the answers, or the errors."""
    results = model.invoke([Invocation(body, "application/json", **request) for body in bodies])
    return [result.body if isinstance(result, Answer) else result for result in results]


def raising(error: BaseException) -> Callable[[Any, Context], Any]:
    """Return what raises an error."""

    def act(data: Any, context: Context) -> Any:
        raise error

    return act


def yields(data: Any, context: Context) -> Generator[str, None, None]:
    """Stream what is asked for; what is no text breaks it off."""
    for part in data:
        context.set_response_content_type(0, f"text/{part}")
        yield part


# -- Loading --


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("bad\nmagic"), LoadFailed, "'shop' cannot be loaded by the plugin 'plugin': ValueError: bad"),
        (KeyError(), LoadFailed, "'shop' cannot be loaded by the plugin 'plugin': KeyError"),
        (SystemExit(2), LoadFailed, "'shop' cannot be loaded by the plugin 'plugin': SystemExit: 2"),
        (OSError("x" * 999), LoadFailed, f"'shop' cannot be loaded by the plugin 'plugin': OSError: {'x' * 300}"),
        (MemoryError(), OutOfMemory, "memory ran out while loading 'shop'"),
        (LoadFailed("version 3 is needed"), LoadFailed, "version 3 is needed"),
        (BadInput("no"), LoadFailed, "'shop' cannot be loaded by the plugin 'plugin': BadInput: no"),
    ],
)
def test_errors_while_loading(tmp_path: Path, raised: BaseException, kind: type[Exception], text: str) -> None:
    (tmp_path / "act").touch()
    with pytest.raises(kind) as error:
        make(Plugin(act=raising(raised)), tmp_path)
    assert (type(error.value), str(error.value)) == (kind, text)


def test_a_plugin_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NoPlugin, match="'tensor' is not installed"):
        Model(Artifact(tmp_path), Binding("tensor"), Plugins(), ModelSettings())


def test_what_a_plugin_is_told(tmp_path: Path) -> None:
    contexts: list[Context] = []

    def act(data: Any, context: Context) -> Any:
        contexts.append(context)
        return data

    (tmp_path / "manymodels.json").write_text('{"settings": {"threshold": 0.5}}')
    model = make(Plugin(act=act), tmp_path, threads=3, default_accept="text/csv")
    full = Invocation(b"[1]", "application/json", "*/*", {"x-tag": "7"}, "id-1")
    model.invoke([full, Invocation(b"[1]", "application/json", "a/b")])
    assert model.notes == ["loaded shop"]
    first, second = contexts
    assert (first.target_model, first.model_dir, first.options) == ("shop", str(tmp_path), {"threshold": 0.5})
    assert (first.settings.threads, first.framework) == (3, None)
    assert (first.request_id, first.headers, first.accept) == ("id-1", {"x-tag": "7"}, "text/csv")
    assert first.get_request_header(0, "X-Tag") == "7"
    assert (second.request_id, second.headers, second.accept) == ("", {}, "a/b")
    assert model.context not in contexts
    assert vars(first).keys() == vars(model.context).keys()  # it is made without __init__


# -- Errors of invocations --


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("width\nstack"), PredictionFailed, "'shop' failed: ValueError: width"),
        (SystemExit("bye"), PredictionFailed, "'shop' failed: SystemExit: bye"),
        (RecursionError("deep"), PredictionFailed, "'shop' failed: RecursionError: deep"),
        (MemoryError(), OutOfMemory, "memory ran out while 'shop' answered"),
        (BadInput("4 features are needed"), BadInput, "4 features are needed"),
    ],
)
def test_errors_while_predicting(tmp_path: Path, raised: BaseException, kind: type[Exception], text: str) -> None:
    (error,) = invoke(make(Plugin(act=raising(raised)), tmp_path), b"[1]")
    assert (type(error), str(error)) == (kind, text)


def test_errors_before_and_after_predicting(tmp_path: Path) -> None:
    model = make(Plugin(), tmp_path)
    (error,) = invoke(model, b"{")
    assert isinstance(error, BadInput)
    (unknown,) = model.invoke([Invocation(b"", "application/pickle")])
    assert isinstance(unknown, UnsupportedContentType)
    (unacceptable,) = invoke(model, b"[1]", accept="image/png")
    assert isinstance(unacceptable, UnsupportedAccept)


# -- Answers --


def test_a_reply_is_what_the_context_says(tmp_path: Path) -> None:
    def act(data: Any, context: Context) -> Any:
        context.set_response_status(202)
        context.set_response_header(0, "X-Tag", "7")
        context.set_response_content_type(0, "application/vnd.shop+json")
        return data

    (answer,) = make(Plugin(act=act), tmp_path).invoke([Invocation(b"[1]", "application/json")])
    assert isinstance(answer, Answer)
    assert (answer.body, answer.content_type, answer.status) == (b"[1]", "application/vnd.shop+json", 202)
    assert answer.headers == {"X-Tag": "7"}
    assert answer.timings["predict"] > 0


@pytest.mark.parametrize("status", [99, 199, 600, -1])
def test_a_status_that_is_none_fails(tmp_path: Path, status: int) -> None:
    model = make(Plugin(act=lambda data, context: context.set_response_status(status)), tmp_path)
    (error,) = invoke(model, b"[1]")
    assert str(error) == f"'shop' failed: ValueError: a reply's status is between 200 and 599, not {status}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_headers", {"X-Count": 7}),
        ("response_headers", {"X-Name": "caf\udce9"}),
        ("response_status", "200"),
        ("response_content_type", b"text/csv"),
        ("response_content_type", "caf\udce9"),
    ],
)
def test_a_reply_that_cannot_be_sent_fails_here(tmp_path: Path, name: str, value: Any) -> None:
    def act(data: Any, context: Context) -> Any:
        if data == [2]:
            setattr(context, name, value)
        return data

    first, error = invoke(make(Plugin(act=act), tmp_path), b"[1]", b"[2]")
    assert first == b"[1]"
    assert isinstance(error, PredictionFailed)


@pytest.mark.parametrize("output", ["text", ("text",), ("text", None), (None, "text/plain"), None])
def test_an_output_of_another_shape_fails(tmp_path: Path, output: Any) -> None:
    class Writer(Plugin):
        @hookimpl
        def output_fn(self) -> Any:
            return output

    (error,) = invoke(make(Writer(), tmp_path), b"[1]")
    assert isinstance(error, PredictionFailed)


@pytest.mark.parametrize("body", ["né", "né".encode(), bytearray("né".encode()), memoryview("né".encode())])
def test_bodies_may_be_text_or_bytes(tmp_path: Path, body: Any) -> None:
    class Writer(Plugin):
        @hookimpl
        def output_fn(self) -> Any:
            return body, "text/plain"

    assert invoke(make(Writer(), tmp_path), b"[1]") == ["né".encode()]


# -- Joined calls --


def test_invocations_are_joined_and_split_in_their_order(tmp_path: Path) -> None:
    plugin = Plugin(Lists())
    assert invoke(make(plugin, tmp_path), b"[1,2]", b"[3]", b"[]", b"[4]") == [b"[2,4]", b"[6]", b"[]", b"[8]"]
    assert plugin.calls == [[1, 2, 3, 4]]


def test_one_invocation_is_not_joined(tmp_path: Path) -> None:
    plugin = Plugin(Lists(lambda shares: pytest.fail("split was called")))
    assert invoke(make(plugin, tmp_path), b"[1]") == [b"[2]"]


def test_joining_can_be_switched_off(tmp_path: Path) -> None:
    plugin = Plugin(Lists())
    assert invoke(make(plugin, tmp_path, batching=False), b"[1]", b"[2]") == [b"[2]", b"[4]"]
    assert plugin.calls == [[1], [2]]


def test_what_does_not_fit_together_runs_alone(tmp_path: Path) -> None:
    plugin = Plugin(Lists())
    assert invoke(make(plugin, tmp_path), b"[1]", b'"x"') == [b"[2]", b'"x"']
    assert plugin.calls == [[1], "x"]


def test_a_body_that_cannot_be_decoded_fails_alone(tmp_path: Path) -> None:
    plugin = Plugin(Lists())
    first, error, last = invoke(make(plugin, tmp_path), b"[1]", b"{", b"[2]")
    assert (first, last) == (b"[2]", b"[4]")
    assert isinstance(error, BadInput)
    assert plugin.calls == [[1, 2]]


def test_a_joined_call_that_fails_is_repeated_for_each(tmp_path: Path) -> None:
    def act(data: Any, context: Context) -> Any:
        if 13 in data:
            raise BadInput("thirteen")
        return data

    plugin = Plugin(Lists(), act)
    first, error, last = invoke(make(plugin, tmp_path), b"[1]", b"[13]", b"[2]")
    assert (first, last) == (b"[1]", b"[2]")
    assert str(error) == "thirteen"
    assert plugin.calls == [[1, 13, 2], [1], [13], [2]]


@pytest.mark.parametrize("cut", [lambda shares: shares[:-1], lambda shares: [*shares, 1], lambda shares: 1 / 0])
def test_a_split_that_is_wrong_is_not_used(tmp_path: Path, cut: Callable[[list[Any]], list[Any]]) -> None:
    plugin = Plugin(Lists(cut))
    assert invoke(make(plugin, tmp_path), b"[1]", b"[2]") == [b"[2]", b"[4]"]
    assert plugin.calls == [[1, 2], [1], [2]]


def test_each_of_a_joined_call_has_its_own_context(tmp_path: Path) -> None:
    class Writer(Plugin):
        @hookimpl
        def output_fn(self, prediction: Any, context: Context) -> Any:
            context.set_response_header(0, "X-Id", context.request_id)
            return str(prediction), "text/plain"

    model = make(Writer(Lists()), tmp_path)
    answers = model.invoke([Invocation(b"[1]", "application/json", request_id=str(n)) for n in range(3)])
    assert [answer.headers for answer in answers if isinstance(answer, Answer)] == [{"X-Id": str(n)} for n in range(3)]


def test_observers_see_the_request_and_keep_state_with_the_model(tmp_path: Path) -> None:
    class Counter:
        @hookimpl(wrapper=True)
        def load(self, context: Context) -> Generator[None, Any, Any]:
            assert context.invocation is None
            context.state["counter"] = {"bytes": 0}
            return (yield)

        @hookimpl(wrapper=True)
        def output_fn(self, context: Context) -> Generator[None, Any, Any]:
            assert context.invocation is not None
            context.state["counter"]["bytes"] += len(context.invocation.body)
            return (yield)

    plugins = Plugins([("plugin", Plugin()), ("counter", Counter())])
    one, other = (Model(Artifact(tmp_path), Binding("plugin"), plugins, ModelSettings()) for _ in range(2))
    one.invoke([Invocation(b"[1]"), Invocation(b"[1, 2]")])
    other.invoke([Invocation(b"[12]")])
    assert (one.context.state, other.context.state) == ({"counter": {"bytes": 9}}, {"counter": {"bytes": 4}})


def test_no_invocations_are_no_answers(tmp_path: Path) -> None:
    assert make(Plugin(Lists()), tmp_path).invoke([]) == []


# -- Streams --


def test_what_a_plugin_yields_is_one_answer_where_nobody_takes_parts(tmp_path: Path) -> None:
    model = make(Plugin(Lists(), act=yields), tmp_path)  # never joined, though its data could be
    first, second, third = model.invoke(
        [Invocation(body, "application/json") for body in (b'["a", "b"]', b'["c", 1]', b"[]")]
    )
    assert isinstance(first, Answer)
    assert (first.body, first.content_type) == (b"ab", "text/a")
    assert isinstance(second, PredictionFailed)
    assert "it yields int" in str(second)
    assert isinstance(third, Answer)
    assert third.body == b""


def test_an_error_before_the_first_part_is_the_answer(tmp_path: Path) -> None:
    (result,) = make(Plugin(act=yields), tmp_path).stream([Invocation(b"[1]", "application/json")])
    assert isinstance(result, PredictionFailed)


def test_a_stream_makes_one_part_at_a_time(tmp_path: Path) -> None:
    made = iter(["a", "b", "c"])
    model = make(Plugin(act=lambda data, context: iter(made)), tmp_path)
    (result,) = model.stream([Invocation(b"[]", "application/json", "text/x-words")])
    assert isinstance(result, Streaming)
    assert (result.body, result.content_type) == (b"a", "text/x-words")
    assert next(result.rest) == b"b"
    assert list(made) == ["c"]
    result.rest.close()  # an iterator has nothing to close


def test_a_generator_that_fails_to_close_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def act(data: Any, context: Context) -> Generator[str, None, None]:
        try:
            yield "a"
        finally:
            raise OSError("the file is gone")

    (result,) = make(Plugin(act=act), tmp_path).stream([Invocation(b"[]", "application/json")])
    assert isinstance(result, Streaming)
    result.rest.close()
    assert "the file is gone" in caplog.text

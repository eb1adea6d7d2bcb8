"""What the front and a worker say to each other, and how it is framed.

A frame is a 4-byte little-endian length and that many bytes of msgpack: a list of messages.
Neither side unpickles anything: a worker runs code from artifacts and is not to be trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Generic, TypeVar, cast

import msgspec

from ..errors import BY_NAME, ManyModelsError, PredictionFailed
from ..golden import GoldenResult
from ..invocation import Answer, Invocation
from ..plugins import Binding
from ..schema import SchemaJson
from ..trial import Predictor

_LENGTH = struct.Struct("<I")
#: Longest frame, in bytes: a worker that sends anything else than frames is not to fill the front's memory.
LIMIT = 1 << 30
#: Bytes of a streamed answer that are sent ahead of its reader.
WINDOW = 256 << 10
T = TypeVar("T")


class Load(msgspec.Struct, tag="load", array_like=True):
    """Front to worker: load a model."""

    job: int
    #: The number the model goes by in `Run` and `Unload`.
    model: int
    name: str
    path: str
    binding: Binding
    #: Whether a faster predictor may be tried.
    trial: bool


class Unload(msgspec.Struct, tag="unload", array_like=True):
    """Front to worker: unload a model."""

    job: int
    model: int


class Run(msgspec.Struct, tag="run", array_like=True):
    """Front to worker: answer invocations of one model."""

    job: int
    model: int
    invocations: list[Invocation]


class Cancel(msgspec.Struct, tag="cancel", array_like=True):
    """Front to worker: leave out jobs that have not begun."""

    jobs: list[int]


class Pull(msgspec.Struct, tag="pull", array_like=True):
    """Front to worker: so many bytes of a streamed answer were read."""

    job: int
    #: Of the invocation in the job.
    index: int
    bytes: int


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """Front to worker: nobody reads on in a streamed answer."""

    job: int
    index: int


class Failure(msgspec.Struct, tag="failure", array_like=True):
    """An error on its way to the front."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: ManyModelsError) -> Failure:
        """Return what is sent of an error."""
        # Of a class that a plugin made, the nearest one that is known here.
        kind = next(kind for kind in type(error).__mro__ if BY_NAME.get(kind.__name__) is kind)
        if kind is ManyModelsError and type(error) is not kind:
            kind = PredictionFailed
        return cls(kind.__name__, sendable(str(error)))

    def error(self) -> ManyModelsError:
        """Return the error again."""
        return BY_NAME.get(self.kind, PredictionFailed)(self.message)


class _TaggedAnswer(Answer, tag="answer", array_like=True):
    """An answer that can stand beside a failure."""


class Loaded(msgspec.Struct, tag="loaded", array_like=True):
    """Worker to front: a `Load` succeeded."""

    job: int
    #: Memory it takes; at least the size of its files, which it may read later.
    bytes: int
    #: Whether that is what was seen to be allocated, and not the size of the files.
    measured: bool
    seconds: float
    notes: list[str]
    golden: GoldenResult | None = None
    #: Shown, and otherwise of no use to the front.
    schema: SchemaJson = b""


class Unloaded(msgspec.Struct, tag="unloaded", array_like=True):
    """Worker to front: an `Unload` is done."""

    job: int


class Dropped(msgspec.Struct, tag="dropped", array_like=True):
    """Worker to front: the jobs a `Cancel` came in time for."""

    jobs: list[int]


class Answered(msgspec.Struct, tag="answered", array_like=True):
    """Worker to front: the outcomes of a `Run`, in its order."""

    job: int
    outcomes: list[_TaggedAnswer | Failure]
    #: What the worker took for it.
    seconds: float = 0.0


class Begins(msgspec.Struct, tag="begins", array_like=True):
    """Worker to front: the first part of a streamed answer; its outcome in `Answered` says how it ended."""

    job: int
    index: int
    answer: Answer


class Part(msgspec.Struct, tag="part", array_like=True):
    """Worker to front: the next part of a streamed answer."""

    job: int
    index: int
    body: bytes


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """Worker to front: a whole job failed."""

    job: int
    failure: Failure


class Tries(msgspec.Struct, tag="tries", array_like=True):
    """Worker to front: a faster predictor of a model is made or tried, until another such message or `Serves`."""

    model: int


class Serves(msgspec.Struct, tag="serves", array_like=True):
    """Worker to front, at any time: which predictor serves a model from now on."""

    model: int
    name: str
    predictor: Predictor
    #: Memory the model takes now, in bytes.
    bytes: int


class Memory(msgspec.Struct, tag="memory", array_like=True):
    """Worker to front, at any time: the private memory it has grown by since it was forked, in bytes."""

    private: int


ToWorker = Load | Unload | Run | Cancel | Pull | Stop
#: Of the job that was sent first of those not answered.
OfJob = Loaded | Unloaded | Begins | Part | Answered | Failed
#: Of no job.
Notice = Dropped | Tries | Serves | Memory
ToFront = OfJob | Notice

_encoder = msgspec.msgpack.Encoder()
to_worker_decoder: msgspec.msgpack.Decoder[list[ToWorker]] = msgspec.msgpack.Decoder(list[ToWorker])
to_front_decoder: msgspec.msgpack.Decoder[list[ToFront]] = msgspec.msgpack.Decoder(list[ToFront])


def sendable(text: str) -> str:
    """Return a text that can be encoded: lone surrogates, as in names of files that are not UTF-8, are escaped."""
    return text.encode(errors="backslashreplace").decode()


def outcome(result: Answer | ManyModelsError) -> _TaggedAnswer | Failure:
    """Return what is sent of an answer or an error."""
    if isinstance(result, ManyModelsError):
        return Failure.of(result)
    return _TaggedAnswer(result.body, result.content_type, result.status, result.headers, result.timings)


def frame(messages: Sequence[msgspec.Struct]) -> bytes:
    """Encode messages into one frame."""
    buffer = bytearray(_LENGTH.size)
    _encoder.encode_into(messages, buffer, _LENGTH.size)
    _LENGTH.pack_into(buffer, 0, len(buffer) - _LENGTH.size)
    return cast("bytes", buffer)


class Frames(Generic[T]):
    """Cuts a byte stream into frames."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[T]]) -> None:
        self._buffer = bytearray()
        self._decode = decoder.decode

    def feed(self, data: bytes | memoryview) -> list[T]:
        """Return the messages that `data` completes.

        :raises msgspec.DecodeError: if the other side does not speak this protocol.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
        messages: list[T] = []
        start = 0
        with memoryview(buffer or data) as view:
            size = len(view)
            while size - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                if length > LIMIT:
                    raise msgspec.DecodeError(f"a frame of {length} bytes, more than {LIMIT}")
                end = start + _LENGTH.size + length
                if size < end:
                    break
                messages += self._decode(view[start + _LENGTH.size : end])
                start = end
        if buffer:
            del buffer[:start]
        else:
            buffer += data[start:]
        return messages

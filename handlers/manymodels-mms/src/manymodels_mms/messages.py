"""What the parts say to each other: the front, the zygote, and model processes behind multi-model-server.

multi-model-server carries invocations and outcomes as opaque bodies, so that nothing of them depends on
what it makes of headers, content types, statuses and reason phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from manymodels import ModelSettings
from manymodels.errors import LoadFailed
from manymodels.golden import GoldenResult
from manymodels.invocation import Invocation
from manymodels.plugins import Binding
from manymodels.server.messages import Answered, Failure
from manymodels.server.zygote import Ready
from manymodels.trial import Predictor

#: Longest control message, in bytes.
MESSAGE = 1 << 16
#: Longest report, in bytes; a model process writes it, and is not to be trusted.
_REPORT = 1 << 20


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a model process is to load.

    The only file of the folder that multi-model-server is given as the model. It never sees the
    artifact: a manifest of its own kind in there could name another handler, or another interpreter.
    """

    FILE = "model.json"

    name: str
    path: str
    binding: Binding
    settings: ModelSettings
    blocked: tuple[str, ...] = ()
    #: Bytes the process may allocate beyond what it starts with.
    memory: int
    #: Path of the socket that takes `Tries` and `Serves`.
    news: str
    #: Path of the FIFO that takes what the model prints and logs.
    output: str
    #: Whether a faster predictor may be tried.
    trial: bool

    def write(self, folder: Path) -> None:
        """Write it into the model's folder."""
        (folder / self.FILE).write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read it from the model's folder."""
        return msgspec.json.decode((folder / cls.FILE).read_bytes(), type=cls)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a model process has to say of a load; multi-model-server itself only says whether it failed."""

    pid: int
    seconds: float = 0.0
    notes: list[str] = []
    golden: GoldenResult | None = None
    schema: bytes = b""
    failure: Failure | None = None

    def write(self, folder: Path) -> None:
        """Write it into the model's folder, at once and whole."""
        partial = folder / f".report-{self.pid}"
        partial.write_bytes(msgspec.json.encode(self))
        partial.replace(folder / f"report-{self.pid}")

    @classmethod
    def read_all(cls, folder: Path) -> list[Report]:
        """Return the reports of a model's processes.

        :raises LoadFailed: if one is none.
        """
        reports = []
        for file in sorted(folder.glob("report-*")):
            with file.open("rb") as stream:
                content = stream.read(_REPORT)
            try:
                reports.append(msgspec.json.decode(content, type=cls))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise LoadFailed(f"the worker process wrote a report that cannot be read: {error}") from error
        return reports


class ZygoteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the zygote is started with."""

    #: Path of the socket it takes launchers at.
    socket: str
    modules: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    #: Modules found to start threads or to be broken, with the reason.
    left_out: dict[str, str] = {}


class Kill(msgspec.Struct, tag="kill", array_like=True):
    """Front to zygote: end the process of a model."""

    model: str
    #: Whether multi-model-server has let go of it: `Exited` comes in any case, even if there was no process.
    last: bool = False


class Exited(msgspec.Struct, tag="exited", array_like=True):
    """Zygote to front: the process of a model ended."""

    model: str
    #: Exit code, or the negative number of the signal that ended it; None if it was never begun.
    code: int | None


class Tries(msgspec.Struct, tag="tries", array_like=True):
    """Model process to front: a faster predictor is made and tried, until `Serves` says how it was."""

    model: str


class Serves(msgspec.Struct, tag="serves", array_like=True):
    """Model process to front, at any time: which predictor serves from now on."""

    model: str
    predictor: Predictor


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
kill_decoder = msgspec.msgpack.Decoder(Kill)
from_zygote_decoder: msgspec.msgpack.Decoder[Ready | Exited] = msgspec.msgpack.Decoder(Ready | Exited)
from_model_decoder: msgspec.msgpack.Decoder[Tries | Serves] = msgspec.msgpack.Decoder(Tries | Serves)
_invocations_decoder = msgspec.msgpack.Decoder(list[Invocation])
_answered_decoder = msgspec.msgpack.Decoder(Answered)


def encode_invocations(invocations: Sequence[Invocation]) -> bytes:
    """Return the body of a request to a model."""
    return encode(list(invocations))


def decode_invocations(body: bytes | bytearray) -> list[Invocation]:
    """Return the invocations in the body of a request."""
    return _invocations_decoder.decode(body)


def decode_answered(body: bytes) -> Answered:
    """Return the outcomes in the body of a reply.

    :raises msgspec.DecodeError: if a model process sent something else.
    """
    return _answered_decoder.decode(body)

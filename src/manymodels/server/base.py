"""The seam between the endpoint, which decides what is resident, and whoever holds the models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..golden import GoldenResult
from ..invocation import Answer, Invocation
from ..metrics import Metrics, ServerState
from ..plugins import Binding
from ..schema import SchemaJson
from ..trial import Predictor

if TYPE_CHECKING:  # workers import this module, and need not know where they come from
    from ..environments import Requirements
    from .awaited import Asked

#: The entry-point group in which distributions name their model server.
BACKENDS = "manymodels.backends"


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a loaded model; the body of ``GET /models/{name}``."""

    name: str
    path: str
    plugin: str
    #: The framework plugin below one that runs the artifact's own code.
    framework: str | None = None
    #: Memory the model takes, in bytes: what its worker allocated for it, at least the artifact's size.
    bytes: int = 0
    #: Whether that was measured; otherwise it is the artifact's size, which is more.
    measured: bool = False
    load_seconds: float = 0.0
    #: What the plugin had to say while loading, such as a version mismatch.
    notes: Sequence[str] = ()
    #: How it did on the golden requests of its artifact; None: it was not asked any.
    golden: GoldenResult | None = None
    #: The environment it runs in, as ``manymodels environments list`` names it; None: the server's own.
    environment: str | None = None
    #: What it takes and gives; empty where that is not known.
    schema: SchemaJson = b""
    #: Process ids of the workers that hold it.
    workers: Sequence[int] = ()
    #: Which predictor serves it, and how it compared; None until that is found out.
    predictor: Predictor | None = None
    #: Why invocations are refused for a while, and for how long yet; None: they are not.
    refused: str | None = None
    #: The version of its artifact; empty where there is no store that has versions.
    version: str = ""
    #: The version that is in the store and cannot be loaded, and why; empty where there is none.
    newer_version: str = ""
    newer_error: str = ""


class ModelServer(Protocol):
    """Holds loaded models and answers invocations of them.

    Found through the entry-point group ``manymodels.backends``: a callable that takes
    the `Settings` and returns an object of this kind.
    """

    #: What happens here, and in the role above, is counted in it.
    metrics: Metrics

    async def start(self, frameworks: Sequence[str] | None) -> None:
        """Start serving.

        :param frameworks: plugins whose imports are worth paying for once, in advance; None: all.
        """

    async def stop(self) -> None:
        """Let running invocations end, then end every process."""

    async def load(
        self,
        name: str,
        path: Path,
        binding: Binding,
        version: str = "",
        size: int | None = None,
        *,
        isolated: bool = False,
        requirements: Requirements | None = None,
        replace: bool = False,
        asked: Sequence[Asked] = (),
    ) -> ModelDescription:
        """Load a model.

        :param name: the name it is invoked by.
        :param path: its unpacked artifact.
        :param version: differs for another content of the artifact, where the path does not.
        :param isolated: whether its manifest asks for a worker of its own; goes with the size.
        :param requirements: what it says that it needs; goes with the size.
        :param size: bytes of its files; None: they are asked for all three. With it, whether there is room is decided
            before anything else happens, so that no other load takes the room that was made for this one.
        :param replace: whether it is to take the place of the model of that name, if one is loaded. That one answers
            until then, and leaves once it has answered what it was asked.
        :param asked: invocations that wait for it, some of which may be sent along; looked at once there is room.
        :raises ModelAlreadyLoaded: if a model of that name is loaded, and not to be replaced.
        :raises LoadFailed: if it cannot be loaded.
        :raises ModelNotReady: while its environment is being built.
        :raises OutOfMemory: if there is no room; nothing is evicted for it.
        """

    async def unload(self, name: str) -> bool:
        """Unload a model.

        :returns: whether its memory is free now; False where it will be once its worker, which is busy for
            long with another model, gets to it.
        :raises ModelNotFound: if it is not loaded.
        """

    async def invoke(self, name: str, invocation: Invocation, timeout: float) -> Answer:
        """Answer one invocation.

        :param timeout: seconds until `InvocationTimeout`.
        :raises ModelNotFound: if the model is not loaded.
        :raises ManyModelsError: whatever else went wrong.
        """

    def models(self) -> list[ModelDescription]:
        """Return all loaded models, sorted by name."""

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model.

        :raises ModelNotFound: if it is not loaded.
        """

    def state(self) -> ServerState:
        """Return what is held now, for the metrics."""

    def healthy(self) -> bool:
        """Say whether work can be taken, whatever single models do."""

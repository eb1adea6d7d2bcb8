"""What the HTTP application asks of whoever decides which models are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..invocation import Answer, Invocation
from ..metrics.state import DiskCacheState
from ..server import ModelDescription
from .journal import Eviction
from .names import NameDescription
from .routes import Outputs


class Role(Protocol):
    """One of the ways to run: in front of a store, told by SageMaker what to load, or with one model."""

    #: Whether a request has to name its model.
    multi_model: bool

    async def start(self) -> None:
        """Start the model server below."""

    async def stop(self) -> None:
        """Stop it."""

    def ready(self) -> bool:
        """Say whether requests can be answered."""

    def route(self, endpoint: str, target_model: str | None, variant: str | None) -> tuple[str | None, str]:
        """Return the name by which to invoke a model of an endpoint, and the variant that serves it.

        :param variant: the one that the client wants.
        :raises EndpointNotFound: if endpoints are mapped to stores, and none has that name or such a variant.
        """

    def outputs(self, endpoint: str) -> Outputs | None:
        """Return where an endpoint that is invoked asynchronously has its answers written; None: it is none."""

    async def invoke(self, target_model: str | None, invocation: Invocation) -> Answer:
        """Answer an invocation of a model that need not be loaded yet.

        :raises ManyModelsError: whatever went wrong.
        """

    async def invoke_loaded(self, name: str, invocation: Invocation) -> Answer:
        """Answer an invocation of a loaded model.

        :raises ModelNotFound: if it is not loaded.
        """

    async def load(self, name: str, url: str) -> None:
        """Load the model at `url` as `name`.

        :raises ModelAlreadyLoaded: if it is loaded.
        :raises BadTargetModel: if the role has a store, and `url` is not the artifact's name there.
        :raises LoadFailed: if it cannot be loaded.
        """

    async def unload(self, name: str) -> None:
        """Unload a model.

        :raises ModelNotFound: if it is not loaded.
        """

    async def refresh(self, name: str) -> ModelDescription:
        """Ask the store for a loaded model at once, and serve the version that it has.

        :raises ModelNotFound: if it is not loaded, or not in the store any more.
        :raises ManyModelsError: why that version cannot be served; the loaded one is served on.
        """

    def models(self) -> list[ModelDescription]:
        """Return the loaded models, sorted by name."""

    def describe(self, name: str) -> ModelDescription:
        """Return one loaded model.

        :raises ModelNotFound: if it is not loaded.
        """

    async def bring(self, name: str) -> ModelDescription:
        """Return a model, loaded first if it has to be and that is for this role to decide.

        :raises ModelNotFound: if there is none.
        """

    def artifacts(self, after: str = "") -> Iterator[str]:
        """Yield the TargetModels that can be invoked, those after a name that was yielded; blocks."""

    def evictions(self, before: int | None, limit: int) -> list[Eviction]:
        """Return the newest evictions, of those with a number below `before` if it is given."""

    def names(self, artifact: str | None = None) -> tuple[list[NameDescription], str]:
        """Return the names above artifacts, or above one; and why their file, as it is now, is not in force."""

    def disk_cache(self) -> DiskCacheState | None:
        """Return what the disk cache holds; None where artifacts come unpacked."""

    async def metrics(self, accept: str) -> Answer:
        """Return the metrics for Prometheus.

        :param accept: the Accept header of who asks.
        """

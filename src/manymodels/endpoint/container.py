"""The container role: SageMaker says what to load, or there is one model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from ..artifact import Artifact
from ..errors import BadArtifact, BadTargetModel, ManyModelsError, ModelAlreadyLoaded, ModelNotReady
from ..invocation import Answer, Invocation
from ..plugins import Binding, Plugins
from ..sagemaker import MODEL_DIR
from ..server import ModelServer
from ..settings import Settings
from ..store import read_keys, verify
from .measured import SINGLE, Measured, counted
from .patience import patience, patiently

logger = logging.getLogger(__name__)


class Container(Measured):
    """A multi-model container: whoever speaks the container API decides what is loaded."""

    multi_model = True

    def __init__(self, server: ModelServer, plugins: Plugins, settings: Settings) -> None:
        super().__init__(server, settings)
        self._plugins = plugins
        self._keys = None if settings.trusted_keys is None else read_keys(settings.trusted_keys)

    async def start(self) -> None:
        """Start the model server, ready for any framework."""
        await self._start(None)

    async def stop(self) -> None:
        """Stop the model server."""
        await self._stop()

    @counted
    async def invoke(self, target_model: str | None, invocation: Invocation) -> Answer:
        """Answer an invocation of a loaded model, named by the TargetModel header."""
        if target_model is None:
            raise BadTargetModel("the TargetModel header is missing; name one of the loaded models")
        return await self._invoke(target_model, invocation)

    @counted
    async def invoke_loaded(self, name: str, invocation: Invocation) -> Answer:
        """Answer an invocation of a loaded model."""
        return await self._invoke(name, invocation)

    async def _invoke(self, name: str, invocation: Invocation) -> Answer:
        timeout = self._settings.invocation_timeout if invocation.timeout is None else invocation.timeout
        answer = await self._server.invoke(name, invocation, timeout)
        answer.version = ""  # it is a path here, which is no client's business
        return answer

    async def load(self, name: str, url: str) -> None:
        """Load the unpacked artifact at the path `url`."""
        path = Path(url)
        start = time.perf_counter()
        try:
            binding = await asyncio.get_running_loop().run_in_executor(None, self._bind, name, path)
            await patiently(lambda: self._server.load(name, path, binding), patience(self._settings))
        except ModelAlreadyLoaded:
            raise
        except ManyModelsError as error:
            self._metrics.load_failed(error)
            raise
        self._metrics.loaded(time.perf_counter() - start)

    def _bind(self, name: str, path: Path) -> Binding:
        if not path.is_absolute() or not path.is_dir():
            raise BadArtifact(f"url of {name!r} is {str(path)!r}, which is not the absolute path of a folder")
        if self._settings.policy is not None:
            self._settings.policy.check_source(name, str(path))
        if self._keys is not None:
            verify(path, name, self._keys)
        return self._plugins.bind(Artifact(path, name), self._settings.model_settings())

    async def unload(self, name: str) -> None:
        """Unload a model."""
        start = time.perf_counter()
        await self._server.unload(name)
        self._metrics.evicted("request", time.perf_counter() - start)

    def artifacts(self, after: str = "") -> Iterator[str]:
        """Yield the names of the loaded models: a container knows no others."""
        return (model.name for model in self.models() if model.name > after)


class SingleModel(Container):
    """A container with one model, at ``/opt/ml/model``, loaded at start."""

    multi_model = False
    #: The name it has in the container API.
    NAME = SINGLE

    def __init__(self, server: ModelServer, plugins: Plugins, settings: Settings) -> None:
        super().__init__(server, plugins, settings)
        self._error: ManyModelsError | None = ModelNotReady("the model is being loaded")
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the model server, with what the model needs imported in advance, and begin to load the model."""
        await self._start(await asyncio.get_running_loop().run_in_executor(None, self._frameworks))
        self._loading = asyncio.create_task(self._load())

    def _frameworks(self) -> list[str] | None:
        """Return the plugins that the model needs: none if it cannot be loaded; None, for all, if that is not known."""
        if self._keys is not None:
            return None  # no plugin is shown what is not verified, and to verify it twice would take longer
        try:
            plugins = self._bind(self.NAME, self._settings.base_dir / MODEL_DIR).plugins
        except ManyModelsError:
            return []  # to load it says why
        return plugins if self._plugins.warm_up_imports(plugins) else None  # a script may import any framework

    async def _load(self) -> None:
        path = self._settings.base_dir / MODEL_DIR
        try:
            if not path.is_dir():
                raise BadArtifact(f"there is no model in {str(path)!r}; to serve a model store: manymodels serve STORE")
            await self.load(self.NAME, str(path))
        except ManyModelsError as error:
            logger.error("the model cannot be loaded: %s", error)
            self._error = error
        else:
            self._error = None

    async def stop(self) -> None:
        """Stop the model server."""
        if self._loading is not None:
            self._loading.cancel()
        await super().stop()

    def ready(self) -> bool:
        """Say whether the model is loaded."""
        return self._error is None and super().ready()

    @counted
    async def invoke(self, target_model: str | None, invocation: Invocation) -> Answer:
        """Answer an invocation of the model."""
        if target_model is not None:
            raise BadTargetModel(
                "this server holds a single model and does not support the TargetModel header; leave it out, "
                "or serve a model store"
            )
        if self._error is not None:
            raise self._error.again()
        return await self._invoke(self.NAME, invocation)

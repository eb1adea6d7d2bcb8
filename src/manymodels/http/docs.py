"""What a server says of its models: pages for people, OpenAPI for programs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import parse_qs

from .. import __version__
from ..artifact import Artifact
from ..endpoint import Role
from ..errors import BadArtifact
from ..golden import Golden, read
from ..schema import decode
from ..server import ModelDescription
from . import pages
from .openapi import document
from .paging import paged
from .replies import Reply
from .request import Request

logger = logging.getLogger(__name__)

#: Golden requests that are shown.
EXAMPLES = 5


class Docs:
    """The handlers of ``/``, ``/docs`` and ``/openapi``."""

    def __init__(self, role: Role) -> None:
        self._role = role

    async def home(self, request: Request) -> Reply:
        """``GET /``: what this server is, and where it says more."""
        return pages.home(multi_model=self._role.multi_model)

    async def index(self, request: Request) -> Reply:
        """``GET /docs``: every model that can be invoked, a page at a time; or, with ``?model=``, the way to one's."""
        if named := parse_qs(request.query.decode("latin-1")).get("model"):
            return pages.opened(named[-1].strip())
        loop = asyncio.get_running_loop()
        return pages.index(*await loop.run_in_executor(None, lambda: paged(self._role.artifacts, request.query)))

    async def page(self, request: Request) -> Reply:
        """``GET /docs/{TargetModel}``: what a model takes and gives; it is loaded if it has to be."""
        model, goldens = await self._find(request)
        name = request.parameters["model"]
        return pages.model(name, model, decode(model.schema), goldens, multi_model=self._role.multi_model)

    async def openapi(self, request: Request) -> Reply:
        """``GET /openapi/{TargetModel}``: the same as an OpenAPI document."""
        model, goldens = await self._find(request)
        name = request.parameters["model"]
        multi_model = self._role.multi_model
        return Reply.json(
            200, document(name, decode(model.schema), goldens, multi_model=multi_model, version=__version__)
        )

    async def _find(self, request: Request) -> tuple[ModelDescription, list[Golden]]:
        model = await self._role.bring(request.parameters["model"])
        return model, await asyncio.get_running_loop().run_in_executor(None, _examples, model)


def _examples(model: ModelDescription) -> list[Golden]:
    try:
        return list(read(Artifact(Path(model.path), model.name)).values())[:EXAMPLES]
    except BadArtifact as error:  # its golden requests are not asked, or it was replaced meanwhile
        logger.warning("no examples are shown: %s", error, extra={"model": model.name})
        return []

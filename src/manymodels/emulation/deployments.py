"""Endpoints that take invocations: their stores are opened, looked into, and mapped to their names."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

from ..endpoint import Endpoint, Routes, Variant
from ..errors import ManyModelsError
from ..store import Mounts, Store
from .failure import Failure
from .locations import Location, locate, outputs_of
from .records import Deployed, Deployment

logger = logging.getLogger(__name__)


class DeploymentFailed(Exception):
    """Why an endpoint cannot take invocations, for its FailureReason."""


class Deployments:
    """The stores behind all endpoints."""

    def __init__(
        self,
        role: Endpoint,
        mounts: Mounts,
        routes: Routes,
        open_store: Callable[[str | Path], Store],
        root: str | Path | None,
    ) -> None:
        """Begin with none.

        :param role: serves `mounts` by `routes`; both are filled and emptied here.
        :param root: a store whose folders are the buckets; None: S3 itself.
        """
        self._role = role
        self._mounts = mounts
        self._routes = routes
        self._open_store = open_store
        self._root = root
        self._live: dict[str, dict[str, tuple[Location, Variant]]] = {}
        self._numbers = itertools.count(2)
        self._taken: set[str] = set()

    async def deploy(self, endpoint: str, deployment: Deployment) -> None:
        """Have an endpoint served by these variants, and by no others from the moment that all of them can.

        :raises DeploymentFailed: if one cannot; the endpoint is as it was then.
        """
        before = self._live.get(endpoint, {})
        after: dict[str, tuple[Location, Variant]] = {}
        try:
            for one in deployment.variants:
                location = locate(one.container, self._root)
                old = before.get(one.name)
                if old is not None and old[0] == location:
                    variant = Variant(name=one.name, weight=one.weight, mount=old[1].mount, artifact=location.artifact)
                    after[one.name] = location, variant
                else:
                    after[one.name] = location, await self._open(endpoint, one, location)
        except (DeploymentFailed, Failure):
            await self._close(after, kept=before)
            raise
        self._routes.add(endpoint, [variant for _, variant in after.values()], outputs_of(deployment.asynchronous))
        self._live[endpoint] = after
        await self._close(before, kept=after)

    async def withdraw(self, endpoint: str) -> None:
        """Take an endpoint's invocations no more, and free what its models take."""
        if (before := self._live.pop(endpoint, None)) is not None:
            self._routes.remove(endpoint)
            await self._close(before, kept={})

    async def _open(self, endpoint: str, one: Deployed, location: Location) -> Variant:
        """Mount a variant's store and look into it; load its model if there is only one."""
        loop = asyncio.get_running_loop()
        mount = f"{endpoint}/{one.name}"
        if mount in self._taken:
            mount += f"~{next(self._numbers)}"
        try:
            store = await loop.run_in_executor(None, self._open_store, location.store)
        except ManyModelsError as error:
            raise DeploymentFailed(f"The models of production variant {one.name} cannot be reached: {error}") from error
        self._mounts.mount(mount, store)
        self._taken.add(mount)
        variant = Variant(name=one.name, weight=one.weight, mount=mount, artifact=location.artifact)
        try:
            if location.artifact is None:
                await loop.run_in_executor(None, lambda: next(store.list(), None))
            else:
                await self._role.bring(f"{mount}/{location.artifact}")
        except ManyModelsError as error:
            await self._unmount(mount)
            raise DeploymentFailed(_reason(one.name, location, error)) from error
        return variant

    async def _close(
        self, variants: dict[str, tuple[Location, Variant]], kept: dict[str, tuple[Location, Variant]]
    ) -> None:
        mounts = {variant.mount for _, variant in kept.values()}
        for _, variant in variants.values():
            if variant.mount not in mounts:
                await self._unmount(variant.mount)

    async def _unmount(self, mount: str) -> None:
        await self._role.clear(f"{mount}/")
        self._mounts.unmount(mount)
        self._taken.discard(mount)


def _reason(variant: str, location: Location, error: ManyModelsError) -> str:
    if location.artifact is None:
        return f"The models of production variant {variant} cannot be reached: {error}"
    return f"The primary container for production variant {variant} did not pass the ping health check. {error}"

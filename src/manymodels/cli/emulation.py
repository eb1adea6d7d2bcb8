"""A server whose endpoints SageMaker's control plane makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import sagemaker
from ..emulation import ControlPlane, Shapes
from ..endpoint import Endpoint, Routes
from ..errors import SettingsError
from ..plugins import Plugins
from ..server import ModelServer
from ..settings import Settings
from ..store import DiskCache, Mounts, Store


def emulate(
    root: str | Path | None,
    cache: DiskCache,
    open_store: Callable[[str | Path], Store],
    server: ModelServer,
    plugins: Plugins,
    settings: Settings,
) -> tuple[Endpoint, ControlPlane]:
    """Return the role, and what makes its endpoints.

    :param root: a store whose folders are the buckets; None: S3 itself.
    :param cache: that of all stores.
    :raises SettingsError: if a limit is beyond AWS's, or botocore is not installed.
    """
    if settings.endpoints is not None:
        raise SettingsError("with --emulate-sagemaker endpoints are made by boto3; leave --endpoints out")
    if settings.names is not None:
        raise SettingsError("with --emulate-sagemaker TargetModels are artifacts, as in AWS; leave --names out")
    if settings.max_body > sagemaker.BODY_LIMIT:
        raise SettingsError(f"with --emulate-sagemaker max_body is at most {sagemaker.BODY_LIMIT}, as in AWS")
    if settings.invocation_timeout > sagemaker.INVOCATION_TIMEOUT:
        raise SettingsError(
            f"with --emulate-sagemaker invocation_timeout is at most {sagemaker.INVOCATION_TIMEOUT:g}, as in AWS"
        )
    if isinstance(root, Path) and not root.is_dir():
        raise SettingsError(f"the buckets' folder {str(root)!r} is not a folder; create it or name another")
    mounts, routes = Mounts(cache), Routes()
    role = Endpoint(mounts, server, plugins, settings, routes)
    return role, ControlPlane(Shapes(), role, mounts, routes, open_store, root, settings)

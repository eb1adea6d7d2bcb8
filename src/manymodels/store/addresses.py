"""Which kind of store an address is of."""

from __future__ import annotations

import importlib

from ..errors import SettingsError
from .objects import Objects

#: By scheme: the module here with a ``connect``, the package that it needs, and the extra that brings that.
_KINDS = {
    "s3": ("s3", "botocore", "s3"),
    "az": ("azure", "adlfs", "az"),
    "gs": ("gcs", "gcsfs", "gs"),
    "https": ("web", "httpx", ""),
    "http": ("web", "httpx", ""),
}


def connect(url: str, timeout: float) -> Objects:
    """Return the objects below an address; nothing is asked of them yet.

    :param url: such as ``s3://bucket/prefix``.
    :param timeout: seconds that fetching one object may take.
    :raises SettingsError: if the scheme is not known, or its package is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _KINDS:
        known = ", ".join(f"{kind}://" for kind in _KINDS)
        raise SettingsError(f"the model store {url!r} is of no kind that is known; name a folder, or one of {known}")
    if not rest.strip("/"):
        raise SettingsError(
            f"the model store {url!r} names no bucket or host; write {scheme}://NAME or {scheme}://NAME/PREFIX"
        )
    module, package, extra = _KINDS[scheme]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise SettingsError(
            f"the model store {url!r} needs the package {package} ({error}); pip install 'manymodels[{extra}]'"
        ) from error
    objects: Objects = importlib.import_module(f".{module}", __package__).connect(url, timeout)
    return objects

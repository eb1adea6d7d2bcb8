"""Objects in Azure Blob Storage."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import adlfs
import aiohttp
from azure.core import MatchConditions, exceptions

from ..errors import LoadFailed, SettingsError
from . import calls
from .objects import Object, split

# It tells of each request, in a dozen lines.
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)

_BROKEN = (
    exceptions.ServiceRequestError,
    exceptions.ServiceResponseError,
    exceptions.IncompleteReadError,
    aiohttp.ClientError,
)


class AzureObjects:
    """The blobs below ``az://container/prefix``.

    adlfs makes the client, so account and credentials are found as it finds them. The client itself is
    asked: it keeps to a version by the ETag, and lists a page at a time.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Take a container and prefix.

        :param timeout: seconds that a whole blob may take.
        :raises SettingsError: if no account is named.
        """
        self.url, self._container, self._prefix = split(url)
        try:
            self._files = adlfs.AzureBlobFileSystem(
                connection_timeout=calls.CONNECT, read_timeout=calls.READ, skip_instance_cache=True
            )
        except ValueError as error:
            raise SettingsError(
                f"the model store {url!r} cannot be opened ({error}); set AZURE_STORAGE_ACCOUNT_NAME, "
                "or AZURE_STORAGE_CONNECTION_STRING"
            ) from error
        self._calls = calls.Calls(self._files.loop, timeout, _BROKEN)
        self.close = self._calls.close

    def head(self, name: str) -> Object | None:
        """Return the present version of a blob; see `Objects.head`."""

        async def ask() -> Any:
            async with self._blob(name) as blob:
                return await blob.get_blob_properties()

        try:
            found = self._calls.run(ask())
        except exceptions.AzureError as error:
            if getattr(error, "status_code", None) == 404 and "Container" not in str(getattr(error, "error_code", "")):
                return None
            self._raise(error, name)
        if found.metadata.get("hdi_isfolder") == "true":  # a folder, where the account has a hierarchy of them
            return None
        return Object(name, _tag(found), found.size)

    def fetch(self, name: str, place: Callable[[Object], Path]) -> None:
        """Return None; see `Objects.fetch`."""

    def entries(self, folder: str, after: str = "") -> Iterator[Object]:
        """Yield what is directly in a folder; see `Objects.entries`."""
        for entry in self._list(folder, "walk_blobs"):
            if entry.name[len(folder) :] > after:
                yield entry

    def files(self, folder: str) -> Iterator[Object]:
        """Yield all blobs below a folder; see `Objects.files`."""
        return self._list(folder, "list_blobs")

    def _list(self, folder: str, method: str) -> Iterator[Object]:
        prefix = self._prefix + folder
        token: str | None = None

        async def ask() -> tuple[list[Any], str | None]:
            async with self._files.service_client.get_container_client(self._container) as container:
                pages = getattr(container, method)(name_starts_with=prefix).by_page(token)
                async for page in pages:
                    return [entry async for entry in page], pages.continuation_token
                return [], None

        while True:
            try:
                page, token = self._calls.run(ask())
            except exceptions.AzureError as error:
                self._raise(error, folder or self.url)
            found = []
            for entry in page:
                name = entry.name[len(self._prefix) :]
                if entry.name.endswith("/") and not hasattr(entry, "etag"):
                    found.append(Object(name))
                elif entry.name != prefix and (entry.metadata or {}).get("hdi_isfolder") != "true":
                    found.append(Object(name, _tag(entry), entry.size))
            yield from sorted(found, key=lambda entry: entry.name)
            if not token:
                return

    def download(self, wanted: Object, path: Path) -> None:
        """Fetch a blob, a large one in parts; see `Objects.download`."""
        md5: bytes | None = None

        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            nonlocal md5
            async with self._blob(wanted.name) as blob:
                stream = await blob.download_blob(
                    offset=start,
                    length=end - start,
                    etag=f'"{wanted.version}"',
                    match_condition=MatchConditions.IfNotModified,
                )
                md5 = stream.properties.content_settings.content_md5
                async for chunk in stream.chunks():
                    yield chunk

        try:
            self._calls.fetch(wanted, path, read)
        except exceptions.AzureError as error:
            self._raise(error, wanted.name)
        if md5:
            calls.check_md5(path, wanted.name, bytes(md5).hex())

    def _blob(self, name: str) -> Any:
        return self._files.service_client.get_blob_client(self._container, self._prefix + name)

    def _raise(self, error: exceptions.AzureError, name: str) -> NoReturn:
        """Raise an error of the store's as one of ours."""
        status = getattr(error, "status_code", None)
        if status is None:
            raise LoadFailed(f"{self.url} cannot be read: {str(error).splitlines()[0]}") from error
        code = str(getattr(error, "error_code", None) or "").rpartition(".")[2]
        if "Container" in code and status == 404:
            raise LoadFailed(f"there is no container {self._container!r}; correct the address {self.url}") from error
        permission = "the role Storage Blob Data Reader"
        raise calls.refused(status, code, name, permission, getattr(error, "reason", None)) from error


connect = AzureObjects


def _tag(properties: Any) -> str:
    return str(properties.etag).strip('"')

"""Objects in Google Cloud Storage."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import gcsfs
import requests
from gcsfs.retry import HttpError
from google.auth.exceptions import GoogleAuthError

from ..errors import LoadFailed
from . import calls
from .objects import Object, split

_BROKEN = (aiohttp.ClientError, requests.RequestException)
#: What is asked of each object.
_FIELDS = "name,generation,size,md5Hash"


class GCSObjects:
    """The objects below ``gs://bucket/prefix``.

    gcsfs finds the credentials and sends the requests of the JSON API, with tries of its own. A version is
    an object's generation, which is asked for by its number.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Take a bucket and prefix.

        :param timeout: seconds that a whole object may take.
        """
        self.url, self._bucket, self._prefix = split(url)
        self._files = gcsfs.GCSFileSystem(access="read_only", requests_timeout=timeout, skip_instance_cache=True)
        self._calls = calls.Calls(self._files.loop, timeout, _BROKEN)
        self.close = self._calls.close

    def head(self, name: str) -> Object | None:
        """Return the present version of an object; see `Objects.head`."""
        try:
            found = self._ask("b/{}/o/{}", self._bucket, self._prefix + name, fields=_FIELDS)
        except FileNotFoundError:
            return None
        except (OSError, HttpError, GoogleAuthError) as error:
            self._raise(error, name, "storage.objects.get")
        return self._object(found)

    def fetch(self, name: str, place: Callable[[Object], Path]) -> None:
        """Return None; see `Objects.fetch`."""

    def entries(self, folder: str, after: str = "") -> Iterator[Object]:
        """Yield what is directly in a folder; see `Objects.entries`."""
        arguments = {"startOffset": self._prefix + folder + after} if after else {}
        for entry in self._list(folder, delimiter="/", **arguments):
            if entry.name[len(folder) :] > after:  # the offset itself is not left out
                yield entry

    def files(self, folder: str) -> Iterator[Object]:
        """Yield all objects below a folder; see `Objects.files`."""
        return self._list(folder)

    def _list(self, folder: str, **arguments: str) -> Iterator[Object]:
        prefix = self._prefix + folder
        arguments |= {"prefix": prefix, "fields": f"items({_FIELDS}),prefixes,nextPageToken"}
        while True:
            try:
                page = self._ask("b/{}/o", self._bucket, **arguments)
            except (OSError, HttpError, GoogleAuthError) as error:
                self._raise(error, folder or self.url, "storage.objects.list")
            found = [self._object(item) for item in page.get("items", ()) if item["name"] != prefix]
            found += [Object(name[len(self._prefix) :]) for name in page.get("prefixes", ())]
            yield from sorted(found, key=lambda entry: entry.name)
            if not page.get("nextPageToken"):
                return
            arguments["pageToken"] = page["nextPageToken"]

    def download(self, wanted: Object, path: Path) -> None:
        """Fetch an object, a large one in parts; see `Objects.download`."""
        generation, _, md5 = wanted.version.partition(" ")
        source = self._files.url(f"{self._bucket}/{self._prefix}{wanted.name}", generation=generation)

        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            _, content = await self._files._call("GET", source, headers={"Range": f"bytes={start}-{end - 1}"})  # noqa: SLF001
            yield content

        try:
            self._calls.fetch(wanted, path, read)
        except (OSError, HttpError, GoogleAuthError) as error:
            self._raise(error, wanted.name, "storage.objects.get")
        if md5:
            calls.check_md5(path, wanted.name, base64.b64decode(md5).hex())

    def _ask(self, path: str, *parts: str, **arguments: str) -> Any:
        return self._calls.run(self._files._call("GET", path, *parts, json_out=True, **arguments))  # noqa: SLF001

    def _object(self, item: dict[str, Any]) -> Object:
        # The MD5 goes with the generation: an answer with a part of the content does not tell it.
        version = f"{item['generation']} {item.get('md5Hash', '')}".rstrip()
        return Object(item["name"][len(self._prefix) :], version, int(item["size"]))

    def _raise(self, error: OSError | HttpError | GoogleAuthError, name: str, permission: str) -> NoReturn:
        """Raise an error of gcsfs as one of ours."""
        if isinstance(error, ConnectionError):
            raise error
        if isinstance(error, GoogleAuthError):
            raise LoadFailed(
                f"{self.url} cannot be read: {error}; give the server credentials as Google's libraries look for them: "
                "GOOGLE_APPLICATION_CREDENTIALS, or the service account of its machine"
            ) from error
        if isinstance(error, FileNotFoundError):
            if permission == "storage.objects.list":
                raise LoadFailed(f"there is no bucket {self._bucket!r}; correct the address {self.url}") from error
            status = 404
        elif isinstance(error, HttpError):
            status = int(error.code or 400)
        else:
            # What it says of a 403 is the only thing that tells it from others.
            status = 403 if str(error).startswith("Forbidden") else 400
        raise calls.refused(status, "", name, permission, str(error).splitlines()[0] if str(error) else None) from error


connect = GCSObjects

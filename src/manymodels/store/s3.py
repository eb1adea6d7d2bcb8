"""Objects in S3, and in what speaks its protocol."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import os
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import aiohttp
import s3fs
from botocore import exceptions

from ..errors import LoadFailed, StoreUnavailable
from .objects import Object

T = TypeVar("T")

#: Seconds for a connection, and for the next bytes of an answer.
CONNECT, READ = 5, 15
#: Seconds for an answer without a body to speak of, botocore's own retries included.
ANSWER = 15.0
#: Bytes that one request fetches; larger objects are fetched by several at a time.
PART = 8 << 20
#: Parts of all objects that are fetched at a time; botocore keeps ten connections unless told otherwise.
AT_A_TIME = 32
#: Times a part is asked for without a byte of it, and seconds before the second time; they double.
TRIES = 4
BACK_OFF = 0.25
_CHUNK = 256 << 10
_MD5 = re.compile("[0-9a-f]{32}")

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_REFUSED = {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout"}
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
#: How a connection ends that ends too early, or never begins.
_BROKEN = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
)


class S3Objects:
    """The objects below ``s3://bucket/prefix``.

    s3fs makes the client, so credentials, region and endpoint are found as botocore finds them. The client
    itself is asked, not s3fs's files: these know neither ``If-Match`` with a size given, nor pages, and
    turn all errors of a kind into one.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Take a bucket and prefix.

        :param timeout: seconds that a whole object may take.
        """
        self.url = url.rstrip("/")
        bucket, _, prefix = self.url.partition("://")[2].partition("/")
        self._bucket = bucket
        self._prefix = prefix and f"{prefix}/"
        self._timeout = timeout
        config = {"connect_timeout": CONNECT, "read_timeout": READ, "max_pool_connections": AT_A_TIME + 32}
        self._files = s3fs.S3FileSystem(config_kwargs=config, skip_instance_cache=True)
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._at_a_time = asyncio.Semaphore(AT_A_TIME)

    def head(self, name: str) -> Object | None:
        """Return the present version of an object; see `Objects.head`."""

        async def ask(client: Any) -> Any:
            return await client.head_object(Bucket=self._bucket, Key=self._prefix + name)

        try:
            reply = self._run(ask, ANSWER)
        except exceptions.ClientError as error:
            if _status(error) == 404:
                return None
            self._explain(error, name)
        return Object(name, _version(reply), reply["ContentLength"])

    def _explain(self, error: exceptions.ClientError, name: str) -> NoReturn:
        """Raise what a HEAD was refused for, which has no body that says so: a GET of a byte has."""

        async def ask(client: Any) -> Any:
            reply = await client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range="bytes=0-0")
            reply["Body"].close()

        with contextlib.suppress(exceptions.ClientError):
            if _status(error) < 500:
                try:
                    self._run(ask, ANSWER)
                except exceptions.ClientError as refused:
                    error = refused
        self._raise(error, name, "s3:GetObject")

    def entries(self, folder: str, after: str = "") -> Iterator[Object]:
        """Yield what is directly in a folder; see `Objects.entries`."""
        return self._list(folder, after, Delimiter="/")

    def files(self, folder: str) -> Iterator[Object]:
        """Yield all objects below a folder; see `Objects.files`."""
        return self._list(folder, "")

    def _list(self, folder: str, after: str, **arguments: str) -> Iterator[Object]:
        prefix = self._prefix + folder
        arguments |= {"Bucket": self._bucket, "Prefix": prefix}
        if after:
            arguments["StartAfter"] = prefix + after

        async def ask(client: Any) -> Any:
            return await client.list_objects_v2(**arguments)

        while True:
            try:
                page = self._run(ask, ANSWER)
            except exceptions.ClientError as error:
                self._raise(error, folder or self.url, "s3:ListBucket")
            found = [
                Object(content["Key"][len(self._prefix) :], _version(content), content["Size"])
                for content in page.get("Contents", ())
                if content["Key"] != prefix  # an empty object that marks the folder
            ]
            found += [Object(common["Prefix"][len(self._prefix) :]) for common in page.get("CommonPrefixes", ())]
            yield from sorted(found, key=lambda entry: entry.name)
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def download(self, wanted: Object, path: Path) -> None:
        """Fetch an object, a large one in parts; see `Objects.download`."""
        with path.open("wb") as file:
            if wanted.size == 0:
                return
            file.truncate(wanted.size)

            async def fetch(client: Any) -> bool:
                starts = range(0, wanted.size, PART)
                tasks = [asyncio.ensure_future(self._part(client, wanted, file.fileno(), start)) for start in starts]
                try:
                    return (await asyncio.gather(*tasks))[0]
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)  # none writes once the file is closed

            try:
                is_md5 = self._run(fetch, self._timeout)
            except exceptions.ClientError as error:
                self._raise(error, wanted.name, "s3:GetObject")
        if is_md5 and wanted.version != _md5(path):
            raise StoreUnavailable(f"{wanted.name!r} was damaged on its way: it does not have the MD5 of its ETag")

    async def _part(self, client: Any, wanted: Object, file: int, start: int) -> bool:
        """Write a part; return whether the ETag is the object's MD5."""
        end = min(start + PART, wanted.size)
        async with self._at_a_time:
            tries = 0
            while True:
                before = start
                try:
                    reply = await client.get_object(
                        Bucket=self._bucket,
                        Key=self._prefix + wanted.name,
                        Range=f"bytes={start}-{end - 1}",
                        **_exactly(wanted.version),
                    )
                    async with reply["Body"] as body:
                        async for chunk in body.iter_chunks(_CHUNK):
                            if len(chunk) > end - start:
                                raise LoadFailed(f"{wanted.name!r} cannot be fetched: the store answers no ranges")
                            os.pwrite(file, chunk, start)
                            start += len(chunk)
                    if start == end:
                        return _is_md5(wanted.version, reply)
                    broken: Exception = ConnectionError("it was cut off")
                except _BROKEN as error:
                    broken = error
                tries = 1 if start > before else tries + 1
                if tries == TRIES:
                    raise broken
                await asyncio.sleep(BACK_OFF * 2 ** (tries - 1) * (1 + random.random()))  # noqa: S311

    def _run(self, call: Callable[[Any], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run a coroutine in s3fs's event loop.

        :raises ConnectionError: if the store is not reached, or does not answer in time.
        :raises ClientError: if it answers with an error.
        """

        async def run() -> T:
            return await call(await self._files.set_session())

        try:
            return self._wait(asyncio.run_coroutine_threadsafe(asyncio.wait_for(run(), timeout), self._files.loop))
        except _CREDENTIALS as error:
            raise LoadFailed(
                f"{self.url} cannot be read: {error}; give the server credentials as botocore looks for them: "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the role of its container"
            ) from error
        except concurrent.futures.CancelledError as error:
            raise ConnectionError("the server is stopping") from error
        except asyncio.TimeoutError as error:
            raise ConnectionError(f"no full answer within {timeout:g} s") from error
        except _BROKEN as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        except exceptions.ClientError:
            raise
        except exceptions.BotoCoreError as error:
            raise LoadFailed(f"{self.url} cannot be read: {error}") from error

    def _wait(self, future: concurrent.futures.Future[T]) -> T:
        self._running.add(future)
        try:
            return future.result()
        finally:
            self._running.discard(future)

    def close(self) -> None:
        """End what is under way; see `Objects.close`."""
        for future in list(self._running):
            future.cancel()

    def _raise(self, error: exceptions.ClientError, name: str, permission: str) -> NoReturn:
        """Raise an error of the store's as one of ours."""
        status = _status(error)
        code = error.response["Error"].get("Code", "")
        said = f"{status} {code}" if code != str(status) else code
        if status >= 500 or status == 429 or code in _BUSY:
            raise StoreUnavailable(f"{name!r} cannot be fetched: the model store answers {said}; try again") from error
        if status == 412:
            raise LoadFailed(f"{name!r} was replaced while it was read; ask again") from error
        if code == "NoSuchBucket" or (status == 404 and permission == "s3:ListBucket"):
            raise LoadFailed(f"there is no bucket {self._bucket!r}; correct the address {self.url}") from error
        if status == 404:
            raise LoadFailed(f"{name!r} has gone while it was read; ask again") from error
        if code in _EXPIRED:
            remedy = "the server's credentials have expired; renew them, or use a role, whose are renewed"
        elif code in _REFUSED:
            remedy = "the server's credentials are none that the model store knows; correct them"
        elif status in (401, 403):
            remedy = f"access is denied; allow {permission} on it to the server's credentials"
        else:
            remedy = error.response["Error"].get("Message") or "the request is refused"
        raise LoadFailed(f"{name!r} cannot be read: {remedy} (the model store answers {said})") from error


connect = S3Objects


def _status(error: exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _version(fields: dict[str, Any]) -> str:
    """Return the ETag, without quotes; when it was modified, where there is none."""
    tag: str = fields.get("ETag", "").strip('"')
    modified: datetime = fields["LastModified"]
    return tag or modified.isoformat()


def _exactly(version: str) -> dict[str, Any]:
    """Return the condition under which that version is answered, or else 412."""
    try:
        return {"IfUnmodifiedSince": datetime.fromisoformat(version)}
    except ValueError:
        return {"IfMatch": f'"{version}"'}


def _is_md5(version: str, reply: dict[str, Any]) -> bool:
    """Say whether an ETag is the content's MD5: neither of an upload in parts, nor encrypted with a key of KMS or a
    client's.
    """
    encrypted = reply.get("ServerSideEncryption") not in (None, "AES256") or "SSECustomerAlgorithm" in reply
    return _MD5.fullmatch(version) is not None and not encrypted


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

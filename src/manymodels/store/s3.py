"""Objects in S3, and in what speaks its protocol."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import urllib3
from botocore import exceptions
from botocore.config import Config
from botocore.httpchecksum import StreamingChecksumBody
from botocore.session import Session

from ..errors import LoadFailed, StoreUnavailable
from . import calls
from .blocking import Body, Requests
from .objects import Object, split

T = TypeVar("T")

_MD5 = re.compile("[0-9a-f]{32}")

#: Codes of answers to credentials that were right once, and to those that S3 does not know.
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
UNKNOWN = {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
#: Codes of answers that may be others soon.
BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout"}
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
_BROKEN = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    urllib3.exceptions.HTTPError,
)


class Client:
    """botocore's client, which takes long to make: that is done when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None

    def __call__(self) -> Any:
        """Return it."""
        with self._lock:
            if self._made is None:
                config = Config(
                    connect_timeout=calls.CONNECT,
                    read_timeout=calls.READ,
                    max_pool_connections=calls.AT_A_TIME + 32,  # beside the parts, a look for each thread of the store
                )
                self._made = Session().create_client("s3", config=config)
            return self._made


class S3Objects:
    """The objects below ``s3://bucket/prefix``.

    botocore finds credentials, region and endpoint, and asks again what fails.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Take a bucket and prefix.

        :param timeout: seconds that a whole object may take.
        """
        self.url, self._bucket, self._prefix = split(url)
        self._requests = Requests(timeout, _BROKEN)
        self.close = self._requests.close
        self._client = Client()

    def head(self, name: str) -> Object | None:
        """Return the present version of an object; see `Objects.head`."""
        try:
            reply = self._run(lambda client: client.head_object(Bucket=self._bucket, Key=self._prefix + name))
        except exceptions.ClientError as error:
            if status_of(error) == 404:
                return None
            self._explain(error, name)
        return Object(name, _version(reply), reply["ContentLength"])

    def _explain(self, error: exceptions.ClientError, name: str) -> NoReturn:
        """Raise what a HEAD was refused for, which has no body that says so: a GET of a byte has."""

        def ask(client: Any) -> None:
            reply = client.get_object(Bucket=self._bucket, Key=self._prefix + name, Range="bytes=0-0")
            reply["Body"].close()

        with contextlib.suppress(exceptions.ClientError):
            if status_of(error) < 500:
                try:
                    self._run(ask)
                except exceptions.ClientError as refused:
                    error = refused
        self._raise(error, name, "s3:GetObject")

    def fetch(self, name: str, place: Callable[[Object], Path]) -> Object | None:
        """Fetch an object of any version; see `Objects.fetch`."""

        arguments = {"Bucket": self._bucket, "Key": self._prefix + name, "Range": f"bytes=0-{calls.PART - 1}"}
        try:
            reply = self._run(lambda client: client.get_object(**arguments))
        except exceptions.ClientError as error:
            if status_of(error) in (404, 416):  # none, or an empty one, of which no range can be had
                return None
            self._raise(error, name, "s3:GetObject")
        try:
            found = Object(name, _version(reply), _size(reply))
            path = place(found)
        except BaseException:
            reply["Body"].close()
            raise
        self._download(found, path, reply)
        return found

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

        while True:
            try:
                page = self._run(lambda client: client.list_objects_v2(**arguments))
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
        self._download(wanted, path)

    def _download(self, wanted: Object, path: Path, begun: Any = None) -> None:
        """Fetch an object.

        :param begun: an answer with its beginning.
        """
        replies: list[dict[str, Any]] = []

        def read(start: int, end: int) -> Body:
            nonlocal begun
            reply = None
            if start == 0:  # not again, if it breaks off
                reply, begun = begun, None
            if reply is None:
                reply = self._client().get_object(
                    Bucket=self._bucket,
                    Key=self._prefix + wanted.name,
                    Range=f"bytes={start}-{end - 1}",
                    **_exactly(wanted.version),
                )
            replies.append(reply)
            body: Body = reply["Body"]
            return body

        with self._credentials():
            try:
                self._requests.fetch(wanted, path, read)
            except exceptions.ClientError as error:
                self._raise(error, wanted.name, "s3:GetObject")
            except exceptions.FlexibleChecksumError as error:
                raise calls.damaged(wanted.name, "checksum") from error
        # What came in one answer botocore has compared with its checksum, if that had one.
        checked = len(replies) == 1 and isinstance(replies[0]["Body"], StreamingChecksumBody)
        if not checked and replies and _is_md5(wanted.version, replies[0]):
            calls.check_md5(path, wanted.name, wanted.version)

    def _run(self, call: Callable[[Any], T]) -> T:
        """Run what asks botocore's client.

        :raises ConnectionError: if the store is not reached, or does not answer in time.
        :raises ClientError: if it answers with an error.
        """
        with self._credentials():
            return self._requests.run(lambda: call(self._client()))

    @contextlib.contextmanager
    def _credentials(self) -> Iterator[None]:
        """Turn what botocore refuses by itself into an error of ours."""
        try:
            yield
        except _CREDENTIALS as error:
            raise LoadFailed(
                f"{self.url} cannot be read: {error}; give the server credentials as botocore looks for them: "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the role of its container"
            ) from error
        except exceptions.BotoCoreError as error:
            raise LoadFailed(f"{self.url} cannot be read: {error}") from error

    def _raise(self, error: exceptions.ClientError, name: str, permission: str) -> NoReturn:
        """Raise an error of the store's as one of ours."""
        status = status_of(error)
        code = error.response["Error"].get("Code", "")
        if code in BUSY:
            raise StoreUnavailable(f"{name!r} cannot be fetched: the model store answers {code}; try again") from error
        if code == "NoSuchBucket" or (status == 404 and permission == "s3:ListBucket"):
            raise LoadFailed(f"there is no bucket {self._bucket!r}; correct the address {self.url}") from error
        said = error.response["Error"].get("Message")
        if code in EXPIRED:
            status, said = 400, "the server's credentials have expired; renew them, or use a role, whose are renewed"
        elif code in UNKNOWN:
            status, said = 400, "the server's credentials are none that the model store knows; correct them"
        raise calls.refused(status, code, name, permission, said) from error


connect = S3Objects


def status_of(error: exceptions.ClientError) -> int:
    """Return the HTTP status of an answer that is an error; 0 if that is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _version(fields: dict[str, Any]) -> str:
    """Return the ETag, without quotes; when it was modified, where there is none."""
    tag: str = fields.get("ETag", "").strip('"')
    modified: datetime = fields["LastModified"]
    return tag or modified.isoformat()


def _size(fields: dict[str, Any]) -> int:
    """Return the bytes of the whole object, of which an answer may hold a part."""
    whole = fields.get("ContentRange", "").rpartition("/")[2]
    return int(whole) if whole.isdecimal() else int(fields["ContentLength"])


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

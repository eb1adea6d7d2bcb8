"""Single objects of any bucket of S3: read whole, and written where there is none yet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar, cast

import urllib3
from botocore import exceptions

from ..errors import LoadFailed, StoreUnavailable
from ..invocation import Upload
from ..spool import LARGE, SUPPORTED, Spool
from .blocking import begin
from .s3 import BUSY, EXPIRED, UNKNOWN, Client, status_of

T = TypeVar("T")

#: Bytes of a large object that are read at a time.
PIECE = 1 << 20

ADDRESS = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)

#: What is a fault of ours or of S3's, and may be otherwise later.
_PASSING = BUSY | EXPIRED | UNKNOWN | {"ConditionalRequestConflict", "RequestTimeTooSkewed"}
_BROKEN = (exceptions.BotoCoreError, urllib3.exceptions.HTTPError, asyncio.TimeoutError, OSError)


class Stated:
    """An object as S3 has it."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.size: int = reply["ContentLength"]
        self.tag: str = reply["ETag"]
        self.content_type: str = reply.get("ContentType", "")
        #: What its writer noted with it, by names in lower case.
        # Their case is lost on the way: HTTP has none, and some that speak S3's protocol answer with another.
        self.notes: dict[str, str] = {name.lower(): note for name, note in reply.get("Metadata", {}).items()}


class Exchange:
    """S3, for requests and answers; credentials, region and endpoint are found as for a model store.

    All methods raise `StoreUnavailable` where trying again may help, and otherwise `LoadFailed`.
    """

    def __init__(self, timeout: float) -> None:
        """Ask nothing yet.

        :param timeout: seconds that reading or writing an object may take.
        """
        self._client = Client()
        self._timeout = timeout
        #: Whether the store answers conditional writes; some that speak S3's protocol do not.
        self._conditional = True

    async def state(self, address: str) -> Stated | None:
        """Return an object's size and notes; None if there is none."""

        def ask(client: Any, bucket: str, key: str) -> Any:
            return client.head_object(Bucket=bucket, Key=key)

        def explain(client: Any, bucket: str, key: str) -> None:
            client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()

        try:
            reply = await self._ask(address, ask, "s3:GetObject", missing={"404"})
        except LoadFailed:  # a HEAD is refused without a body that says why; a GET has one
            await self._ask(address, explain, "s3:GetObject", missing={"InvalidRange"})
            raise
        return None if reply is None else Stated(reply)

    async def read(self, address: str, stated: Stated) -> bytes | Upload:
        """Return an object's content; what is large is there until it is released.

        :raises LoadFailed: if it is another than was stated.
        """

        def ask(client: Any, bucket: str, key: str) -> Any:
            reply = client.get_object(Bucket=bucket, Key=key, IfMatch=stated.tag)
            with closing(reply["Body"]) as body:
                if stated.size < LARGE or not SUPPORTED:
                    return body.read()
                spool = Spool()
                while piece := body.read(PIECE):
                    spool.write(piece)
                return spool.end()

        return cast("bytes | Upload", await self._ask(address, ask, "s3:GetObject"))

    async def write(
        self, address: str, body: bytes, content_type: str, notes: dict[str, str], *, replace: bool
    ) -> bool:
        """Write an object; say whether it is written.

        :param replace: whether to write it where there is one already.
        """
        arguments: dict[str, Any] = {"Body": body, "ContentType": content_type, "Metadata": notes}

        def ask(client: Any, bucket: str, key: str) -> Any:
            return client.put_object(Bucket=bucket, Key=key, **arguments)

        if not replace and self._conditional:
            try:
                arguments["IfNoneMatch"] = "*"
                return await self._ask(address, ask, "s3:PutObject", missing={"412", "PreconditionFailed"}) is not None
            except _NoConditions:
                self._conditional = False
                del arguments["IfNoneMatch"]
        if not replace and await self.state(address) is not None:
            return False
        await self._ask(address, ask, "s3:PutObject")
        return True

    async def _ask(
        self,
        address: str,
        ask: Callable[[Any, str, str], T],
        permission: str,
        missing: frozenset[str] | set[str] = frozenset(),
    ) -> T | None:
        """Ask botocore's client, in a thread.

        :param missing: codes of answers for which None is returned.
        """
        match = ADDRESS.fullmatch(address)
        assert match is not None
        bucket, key = match.groups()
        call = asyncio.wrap_future(begin(lambda: ask(self._client(), bucket, key)))
        try:
            return await asyncio.wait_for(call, self._timeout)
        except exceptions.ClientError as error:
            status = status_of(error)
            code = error.response["Error"].get("Code", "")
            if code in missing:
                return None
            if status == 501 or code == "NotImplemented":
                raise _NoConditions(f"{address!r}: S3 answers {code}") from error
            raise _worded(address, status, code, permission) from error
        except exceptions.ParamValidationError as error:
            raise LoadFailed(f"{address!r} is no address that S3 knows: {error}") from error
        except _BROKEN as error:
            raise StoreUnavailable(f"S3 cannot be reached for {address!r}: {error or type(error).__name__}") from error


def _worded(address: str, status: int, code: str, permission: str) -> LoadFailed:
    """Return the error for an answer that is an error; a HEAD's has no code but its status."""
    if code in _PASSING or status >= 500 or status in (408, 429):
        return StoreUnavailable(f"S3 answers {code} for {address!r}; try again")
    if status == 412:
        return LoadFailed(f"{address!r} was replaced while it was read")
    if status in (401, 403):
        # S3 denies what is not there to who may not list the bucket: invocations that are begun again wait for that.
        wanted = f"{permission} on it" + (", and s3:ListBucket on its bucket," if permission == "s3:GetObject" else "")
        return LoadFailed(f"access to {address!r} is denied ({code}); allow {wanted} to the server's credentials")
    return LoadFailed(f"S3 answers {code} for {address!r}")


class _NoConditions(StoreUnavailable):
    """The store knows no conditional writes."""

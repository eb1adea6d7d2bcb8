"""Whether a request is signed, by AWS's Signature Version 4, with a key that the operator has given out."""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote_from_bytes

import msgspec

from .. import sagemaker
from ..errors import SettingsError
from ..watched import Watched
from .replies import Reply

#: The service that signatures are for: botocore signs so for ``sagemaker`` and ``sagemaker-runtime``.
SERVICE = "sagemaker"
#: Seconds a client's clock may be wrong.
SKEW = 300
#: What needs no signature: who asks is a load balancer or Prometheus, and is told of no model's data.
OPEN = (b"/ping", b"/metrics")

_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} +Credential=(?P<key>[^/,\s]+)/(?P<date>\d{{8}})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)"
    r"/aws4_request, *SignedHeaders=(?P<signed>[^,\s]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_DATE = "x-amz-date"
_TOKEN = "x-amz-security-token"  # noqa: S105 - the name of a header
_PAYLOAD = "x-amz-content-sha256"
#: Headers that a signature has to cover, beside all that begin with x-amz: who could change them changes the request.
_COVERED = ("host", "content-type", "content-encoding")
#: Set on the way, by load balancers; not signed by botocore.
_ON_THE_WAY = "x-amzn-trace-id"

Headers = Sequence[tuple[bytes, bytes]]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What belongs to an access key."""

    secret: str
    #: The token of temporary credentials, which have to send it.
    session_token: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not taken: AWS's name for it, and a sentence."""

    kind: str
    message: str


class AccessKeys:
    """The keys that requests may be signed with."""

    def __init__(self, secrets: dict[str, Secret], clock: Callable[[], float] = time.time) -> None:
        """Take the secrets by access key id."""
        self._secrets = secrets
        self._clock = clock
        self._file: Watched[dict[str, Secret]] | None = None

    @classmethod
    def read(cls, path: Path) -> AccessKeys:
        """Take the secrets of a file; once started, those that it has by then.

        :raises SettingsError: if it is not JSON of access key ids and their secrets.
        """
        keys = cls({})
        keys._file = Watched(path, "access keys", functools.partial(_secrets, path), keys._adopt)
        keys._adopt(_secrets(path))
        return keys

    def _adopt(self, secrets: dict[str, Secret]) -> None:
        self._secrets = secrets

    def start(self) -> None:
        """Begin to look whether the file changes."""
        if self._file is not None:
            self._file.start()

    def stop(self) -> None:
        """End it."""
        if self._file is not None:
            self._file.stop()

    def refused(
        self, method: bytes, path: bytes, query: bytes, headers: Headers, digest: str | None, request_id: str
    ) -> Reply | None:
        """Return the answer to a request that is not signed as it has to be; None if it is.

        :param path: as it came, with its percent signs.
        :param headers: names in lower case.
        :param digest: SHA-256 of the body, in hexadecimal; None if that is larger than the server takes.
        """
        if path in OPEN and method in (b"GET", b"HEAD"):
            return None
        refusal = self.check(method, path, query, headers, digest)
        if refusal is None:
            return None
        content = {"__type": refusal.kind, "Message": refusal.message}
        reply = Reply.json(403, content).add(sagemaker.ERROR_TYPE, refusal.kind)
        return reply.add(sagemaker.REQUEST_ID, request_id)

    def check(self, method: bytes, path: bytes, query: bytes, headers: Headers, digest: str | None) -> Refusal | None:
        """Return why a request is refused; None if it is not."""
        values: dict[str, list[bytes]] = {}
        for name, value in headers:
            values.setdefault(name.decode("latin-1"), []).append(value)

        def header(name: str) -> str | None:
            """Return a header that comes at most once; several are none that would be right."""
            return ",".join(value.decode("latin-1") for value in values[name]) if name in values else None

        authorization = header("authorization")
        if authorization is None:
            return Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
        match = _AUTHORIZATION.fullmatch(authorization.strip())
        if match is None:
            return Refusal(
                "IncompleteSignatureException",
                f"Authorization is not '{_ALGORITHM} Credential=KEY/DATE/REGION/SERVICE/aws4_request, "
                "SignedHeaders=NAMES, Signature=HEX'",
            )
        if (refusal := self._check_scope(match, header(_DATE))) is not None:
            return refusal
        secret = self._secrets.get(match["key"])
        token = header(_TOKEN)
        if secret is None or not hmac.compare_digest((secret.session_token or "").encode(), (token or "").encode()):
            return Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
        signed = match["signed"].split(";")
        missing = [name for name in values if _has_to_be_signed(name) and name not in signed]
        if missing or "host" not in signed or not all(name in values for name in signed):
            names = ", ".join(missing) or "host, or one that is not there"
            return _invalid(f"The headers {names} must be covered by the signature, and those that are must be there.")
        payload = header(_PAYLOAD)
        if payload is None or re.fullmatch("[0-9a-f]{64}", payload):
            if digest is None:
                return _invalid("The body is larger than the server takes, so its hash cannot be compared.")
            if payload is not None and not hmac.compare_digest(payload, digest):
                return _invalid("The body is not the one whose hash x-amz-content-sha256 has.")
            payload = digest
        elif payload != "UNSIGNED-PAYLOAD":
            return _invalid(f"{_PAYLOAD} is {payload!r}; sign the body whole, signatures of chunks are not taken.")
        canonical = b"\n".join(
            [
                method,
                quote_from_bytes(_without_dots(path), safe="/~").encode(),
                _sorted(query),
                *(name.encode("latin-1") + b":" + _joined(values[name]) for name in signed),
                b"",
                match["signed"].encode("latin-1"),
                payload.encode(),
            ]
        )
        if not hmac.compare_digest(
            _signature(secret.secret, match, header(_DATE) or "", canonical), match["signature"]
        ):
            return _invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method."
            )
        return None

    def _check_scope(self, match: re.Match[str], date: str | None) -> Refusal | None:
        """Return why what is signed for another service, or at another time, is refused."""
        if match["service"] != SERVICE:
            return _invalid(f"Credential should be scoped to correct service: '{SERVICE}'.")
        try:
            when = datetime.strptime(date or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        except ValueError:
            return Refusal("IncompleteSignatureException", f"{_DATE} is {date!r}; write YYYYMMDDTHHMMSSZ")
        if not (date or "").startswith(match["date"]):
            return _invalid(f"Date in Credential scope does not match YYYYMMDD of {_DATE}: {match['date']} != {date}.")
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        if when < now - timedelta(seconds=SKEW):
            return _invalid(
                f"Signature expired: {date} is now earlier than {_stamp(now - timedelta(seconds=SKEW))} "
                f"({_stamp(now)} - {SKEW // 60} min.)"
            )
        if when > now + timedelta(seconds=SKEW):
            return _invalid(
                f"Signature not yet current: {date} is still later than {_stamp(now + timedelta(seconds=SKEW))} "
                f"({_stamp(now)} + {SKEW // 60} min.)"
            )
        return None


def _secrets(path: Path) -> dict[str, Secret]:
    """Return the secrets of a file, by access key id."""
    try:
        given = msgspec.json.decode(path.read_bytes(), type=dict[str, str | Secret])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f'access_keys is {str(path)!r}, which cannot be read: {error}; write {{"ACCESS KEY ID": "SECRET", ...}}'
        ) from error
    secrets = {key: Secret(value) if isinstance(value, str) else value for key, value in given.items()}
    if not secrets or not all(key and value.secret for key, value in secrets.items()):
        raise SettingsError(f"access_keys is {str(path)!r}, which has no keys, or an empty one")
    return secrets


def _invalid(message: str) -> Refusal:
    return Refusal("InvalidSignatureException", message)


def _has_to_be_signed(name: str) -> bool:
    return name in _COVERED or (name.startswith("x-amz") and name != _ON_THE_WAY)


def _stamp(when: datetime) -> str:
    return when.strftime("%Y%m%dT%H%M%SZ")


def _joined(values: list[bytes]) -> bytes:
    """Return a header as it is signed: spaces are one, several of a name are a list."""
    return b",".join(b" ".join(value.split()) for value in values)


def _sorted(query: bytes) -> bytes:
    pairs = sorted(pair.partition(b"=") for pair in query.split(b"&") if pair)
    return b"&".join(b"%b=%b" % (name, value) for name, _, value in pairs)


def _without_dots(path: bytes) -> bytes:
    """Return a path as it is signed: empty segments and ``.`` are left out, ``..`` takes the one before it along."""
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    last = b"/" if path.endswith(b"/") and segments else b""
    return b"/" + b"/".join(segments) + last


def _signature(secret: str, match: re.Match[str], date: str, canonical: bytes) -> str:
    scope = (match["date"], match["region"], match["service"], "aws4_request")
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"{_ALGORITHM}\n{date}\n{'/'.join(scope)}\n{hashlib.sha256(canonical).hexdigest()}"
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()

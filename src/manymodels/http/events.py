"""AWS's event stream, in which InvokeEndpointWithResponseStream is answered."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import orjson

from ..errors import InvocationTimeout, ManyModelsError
from ..invocation import PART, Answer
from ..media import JSON
from ..server.streams import Streamed
from .replies import Reply, with_headers
from .streaming import Body, streamed

EVENT_STREAM = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
#: The type of a header that is text.
_STRING = 7


def events_of(result: Answer) -> Reply:
    """Return an answer as an event stream; what is not streamed by the model comes in parts all the same."""
    if isinstance(result, Streamed):
        return streamed(result, EVENT_STREAM, Body(result.body, result.stream, _payloads, _exception))
    body = result.body
    parts = [body[start : start + PART] for start in range(0, len(body), PART)]
    return with_headers(Reply.of(result.status, _payloads(parts), EVENT_STREAM), result)


def _payloads(parts: Iterable[bytes]) -> bytes:
    return b"".join([event(_PAYLOAD, part) for part in parts])


def _exception(error: ManyModelsError) -> bytes:
    """Return the last event of a stream that breaks off."""
    content = {"Message": str(error)}
    if error.aws[1] != "ModelError":
        return event(_INTERNAL, orjson.dumps(content))
    content["ErrorCode"] = "ModelInvocationTimeExceeded" if isinstance(error, InvocationTimeout) else "StreamBroken"
    return event(_FAILURE, orjson.dumps(content))


def event(headers: bytes, payload: bytes) -> bytes:
    """Return an event: lengths and their CRC-32, headers, payload, and the CRC-32 of it all; big-endian.

    :param headers: as `_headers` encodes them.
    """
    prelude = _PRELUDE.pack(_PRELUDE.size + 2 * _CRC.size + len(headers) + len(payload), len(headers))
    message = b"".join((prelude, _CRC.pack(zlib.crc32(prelude)), headers, payload))
    return message + _CRC.pack(zlib.crc32(message))


def _headers(**values: str) -> bytes:
    """Encode headers, whose names have hyphens for underscores."""
    encoded = bytearray()
    for name, value in values.items():
        key = f":{name.replace('_', '-')}".encode()
        encoded += bytes([len(key)]) + key + bytes([_STRING]) + struct.pack(">H", len(value)) + value.encode()
    return bytes(encoded)


_PAYLOAD = _headers(event_type="PayloadPart", content_type="application/octet-stream", message_type="event")
_FAILURE = _headers(exception_type="ModelStreamError", content_type=JSON, message_type="exception")
_INTERNAL = _headers(exception_type="InternalStreamFailure", content_type=JSON, message_type="exception")

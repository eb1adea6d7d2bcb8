"""Media types: the Content-Type of a body, and what an Accept header leaves to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from .errors import UnsupportedAccept

#: Types of bodies that the platform knows; some have several names.
JSON = "application/json"
JSON_LINES = ("application/jsonlines", "application/jsonl", "application/x-ndjson")
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"
LIBSVM = ("text/libsvm", "text/x-libsvm")

# Runs between separators; a separator inside a quoted string does not end one.
_LIST = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PARAMETERS = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_ESCAPE = re.compile(r"\\(.)")


@lru_cache(maxsize=256)
def media_type(content_type: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the type and the parameters of a Content-Type, names in lower case, values unquoted.

    An absent one is ``application/json``: boto3 sends none unless told to.
    """
    kind, *rest = _PARAMETERS.findall(content_type or "") or [JSON]
    parameters: dict[str, str] = {}
    for item in rest:
        name, equals, value = item.partition("=")
        if equals:
            parameters.setdefault(name.strip().lower(), _unquote(value.strip()))
    return kind.strip().lower() or JSON, MappingProxyType(parameters)


def any_accept(accept: str | None) -> bool:
    """Say whether the Accept header leaves the choice to the operator: absent, empty or ``*/*``."""
    return accept is None or accept.strip() in ("", "*/*")


def choose(accept: str, offered: Sequence[str]) -> str:
    """Return the offered type that the Accept header likes best, as RFC 9110 section 12.5.1 says.

    Types of equal quality are taken in the client's order, then in the offered one. Parameters
    other than q are not compared.

    :param offered: types in lower case, without parameters, the preferred one first.
    :raises UnsupportedAccept: if none of them is accepted, or a quality is not a number from 0 to 1.
    """
    if accept in offered:
        return accept
    ranges = _ranges(accept)
    best: tuple[float, int] | None = None
    chosen = ""
    for kind in offered:
        for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
            if pattern in ranges:
                quality, position = ranges[pattern]
                if quality > 0 and (best is None or (quality, -position) > best):
                    best, chosen = (quality, -position), kind
                break
    if best is None:
        raise UnsupportedAccept(f"Accept {accept!r} names no type that can be produced: {', '.join(offered)}")
    return chosen


@lru_cache(maxsize=256)
def _ranges(accept: str) -> Mapping[str, tuple[float, int]]:
    """Return each media range of an Accept header with its quality and position."""
    found: dict[str, tuple[float, int]] = {}
    for position, item in enumerate(_LIST.findall(accept)):
        if not item.strip():
            continue
        kind, parameters = media_type(item)
        quality = _quality(parameters.get("q", "1"), accept)
        # Java's HttpURLConnection sends a bare * beside */*.
        kind = "*/*" if kind == "*" else kind
        if kind not in found or quality > found[kind][0]:
            found[kind] = (quality, position)
    return MappingProxyType(found or {"*/*": (1.0, 0)})


def _quality(text: str, accept: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        quality = -1.0
    if not 0 <= quality <= 1:
        raise UnsupportedAccept(f"the quality q={text} in Accept {accept!r} is not a number from 0 to 1")
    return quality


def _unquote(value: str) -> str:
    return _ESCAPE.sub(r"\1", value[1:-1]) if value.startswith('"') else value

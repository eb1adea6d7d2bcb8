"""The platform's own hook implementations: what a plugin leaves out is answered by these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import codecs
from .hookspecs import hookimpl


@hookimpl(trylast=True)
def input_fn(body: bytes, content_type: str | None) -> Any:
    """Decode the body by its content type."""
    return codecs.decode(body, content_type)


@hookimpl(trylast=True)
def output_fn(prediction: Any, accept: str) -> tuple[bytes | Iterator[Any], str]:
    """Encode the prediction by the Accept header; one that yields is streamed as it is."""
    if isinstance(prediction, Iterator):
        return prediction, accept
    return codecs.encode(prediction, accept)

"""The least an ASGI application does for a request: read its body, answer a constant."""

from __future__ import annotations

from typing import Any

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"3")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request with ``[1]``."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"[1]"})

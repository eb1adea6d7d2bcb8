"""multi-model-server's HTTP API, spoken over its Unix socket.

Source: its ``docs/management_api.md`` and ``docs/inference_api.md``, 1.1.11.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import aiohttp

#: Any host will do: the address is the socket's.
_BASE = "http://mms"
_OCTETS = {"Content-Type": "application/octet-stream"}


class Refused(Exception):
    """multi-model-server did not do what it was asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A client of one multi-model-server."""

    def __init__(self, socket: Path) -> None:
        connector = aiohttp.UnixConnector(str(socket), limit=0)
        # Deadlines are those of whoever asks.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ping(self) -> bool:
        """Say whether it answers."""
        try:
            await self._send("GET", "/ping")
        except (Refused, aiohttp.ClientError, OSError):
            return False
        return True

    async def register(self, name: str) -> None:
        """Load a model from the folder of its name in the model store.

        :raises Refused: if it cannot be loaded.
        """
        asked = {"model_name": name, "url": name, "initial_workers": 1, "synchronous": True}
        content_type = {"Content-Type": "application/json"}
        await self._send("POST", "/models", json.dumps(asked).encode(), content_type)

    async def unregister(self, name: str) -> None:
        """Unload a model.

        :raises Refused: if it is not loaded.
        """
        await self._send("DELETE", f"/models/{name}")

    async def invoke(self, name: str, body: bytes) -> bytes:
        """Return what the handler service makes of a body.

        :raises Refused: if the model's process died.
        """
        return await self._send("POST", f"/models/{name}/invoke", body, _OCTETS)

    async def _send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        # As a stream, which aiohttp sends in pieces: whole, a large body would hold up everything else.
        data = None if body is None else io.BytesIO(body)
        async with self._session.request(method, _BASE + path, data=data, headers=headers) as reply:
            content = await reply.read()
        if reply.status != 200:
            raise Refused(reply.status, _message(content))
        return content


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:300].decode(errors="replace")

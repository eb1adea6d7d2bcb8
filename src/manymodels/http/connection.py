"""A client's connection."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes a request's first line and headers may have together, give or take what one read returns.
HEAD = 64 << 10


class Connection(HttpToolsProtocol):
    """Ends requests whose headers have no end: the parser itself would keep any length in memory."""

    _head = 0
    _in_head = False

    def on_message_begin(self) -> None:
        """Note that headers begin."""
        super().on_message_begin()
        self._head = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that headers end."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD:
                self._in_head = False
                self.send_400_response(f"The headers have more than {HEAD} bytes.")

"""A client's connection."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes a request's first line and headers, or its trailers, may have, give or take what one read returns.
HEAD = 64 << 10


class Connection(HttpToolsProtocol):
    """Ends requests whose headers or trailers have no end: the parser itself would keep any length in memory."""

    #: Bytes since the request last got on: its headers or a piece of its body were complete.
    _kept = 0
    _in_head = False

    def on_message_begin(self) -> None:
        """Note that headers begin."""
        super().on_message_begin()
        self._kept = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that headers end."""
        self._kept = 0
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._kept = 0
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._kept += len(data)
        super().data_received(data)
        if self._kept > HEAD + len(data):
            if self._in_head:
                self.send_400_response(f"The headers have more than {HEAD} bytes.")
            else:  # the request may be half answered
                self.transport.close()
            self._kept = 0

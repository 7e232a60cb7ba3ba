"""What one connection too many gets: an answer that it can read, and an end soon after.

A socket that is closed while bytes are unread takes the answer away from the client, as in exchange.py. So for a moment
its request is read, which nobody wants.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

_MOMENT = 1.0  # seconds
_MOST = 64  # at a time; what comes beyond them is closed at once
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\ncontent-type: application/json\r\n"
    b"content-length: 106\r\n\r\n"
    b'{"error":{"message":"Too many connections.","type":"server_error","param":null,"code":"too_many_connections"}}'
)


class RefusedConnection(asyncio.Protocol):
    """One connection that is refused. among: all of them, to be ended with the server."""

    def __init__(self, transport: asyncio.Transport, among: set[RefusedConnection]) -> None:
        self._transport, self._among = transport, among
        self._end: asyncio.TimerHandle | None = None
        transport.set_protocol(self)
        transport.write(_ANSWER)
        if len(among) >= _MOST:
            transport.close()
            return
        among.add(self)
        self._end = asyncio.get_running_loop().call_later(_MOMENT, transport.abort)
        with suppress(OSError):  # it has left already
            transport.write_eof()

    def end(self) -> None:
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        if self._end is not None:
            self._end.cancel()

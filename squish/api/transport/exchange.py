"""The requests of one connection, read strictly, and an end of the connection that lets its last answer be read.

A socket that is closed while bytes are unread answers with a reset, and a reset takes the answer away from the client.
So we finish sending, and then read on for a while what nobody wants.
"""

from __future__ import annotations

import asyncio

from sanic.exceptions import BadRequest, ExpectationFailed, PayloadTooLarge, RequestCancelled
from sanic.http import Http

from squish.api.errors import Refused
from squish.api.transport.heads import check_head

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0


class Exchange(Http):
    """Sanic's reading and writing of HTTP/1.1."""

    async def http1(self) -> None:
        """Handle requests until the connection is not to be used any more."""
        await super().http1()  # type: ignore[no-untyped-call]
        if self.request_body or self.recv_buffer:
            await self._linger()

    async def http1_request_header(self) -> None:
        """Read a header. Raises Refused, or an exception of Sanic, with the reason."""
        try:
            await super().http1_request_header()  # type: ignore[no-untyped-call]
            check_head(self.request.head)
        except PayloadTooLarge:
            raise PayloadTooLarge(f"The request header is larger than {self.HEADER_MAX_SIZE // 1024} kB.") from None
        except (BadRequest, ExpectationFailed):
            check_head(bytes(self.recv_buffer).partition(b"\r\n\r\n")[0])
            raise
        except Refused:
            self.request_body = None  # where it ends cannot be known
            raise

    async def _linger(self) -> None:
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0:
                    left -= len(self.recv_buffer)
                    self.recv_buffer.clear()
                    await self._receive_more()
        except (TimeoutError, RequestCancelled):
            pass

"""The requests of one connection, read strictly, and an end of the connection that lets its last answer be read.

A socket that is closed while bytes are unread answers with a reset, and a reset takes the answer away from the client.
So we finish sending, and then read on for a while what nobody wants.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sanic.compat import Header
from sanic.exceptions import BadRequest, BadURL, PayloadTooLarge, RequestCancelled
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE

from squish.api.errors import Refused
from squish.api.transport.heads import check_chunk, check_head, glimpse
from squish.api.transport.request import AnyRequest

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0

_LONGEST_CHUNK_LINE = 256


class Exchange(Http):
    """Sanic's reading and writing of HTTP/1.1."""

    async def http1(self) -> None:
        """Handle requests until the connection is not to be used any more."""
        await super().http1()  # type: ignore[no-untyped-call]
        if self.request_body or self.recv_buffer:
            await self._linger()

    async def http1_request_header(self) -> None:
        """Read a header; Sanic gets it in plain spelling. Raises Refused, or an exception of Sanic, with the reason."""
        end = await self._end_of_head()
        self.recv_buffer[:end] = check_head(bytes(self.recv_buffer[:end]))
        await super().http1_request_header()  # type: ignore[no-untyped-call]

    async def read(self) -> bytes | None:
        """More of the body, None at its end. Raises BadRequest and PayloadTooLarge of Sanic."""
        coding: object = self.request_body  # Sanic's declaration of it has bytes only
        if coding == "chunked" and self.request_bytes_left == 0:
            await self._check_chunk()
        return await super().read()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send a header, and what there is of the body. HTTP/1.0 has no chunks: the connection ends with it."""
        if self.request.version != "1.0" or end_stream or self.head_only or self.response.body:
            await super().http1_response_header(data, end_stream)
            return
        self.keep_alive = False
        self.response.headers["connection"] = "close"
        await self._send(format_http1_response(self.response.status, self.response.processed_headers) + data)
        self.stage, self.response_func = Stage.RESPONSE, self._send_plainly

    async def _send_plainly(self, data: bytes, end_stream: bool) -> None:
        if data:
            await self._send(data)
        if end_stream:
            self.stage = Stage.IDLE
            self.response_func = None  # type: ignore[assignment]  # as Sanic does it

    async def error_response(self, exception: Exception) -> None:
        """Answer with an error, where somebody is left to read it."""
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            self.keep_alive, self.request_body = False, None  # or the rest of it would be waited for
            return
        await super().error_response(exception)

    def create_empty_request(self) -> None:
        """Stand in for a request that is refused with what could be read of it: its key, its path for the log."""
        found = glimpse(bytes(self.recv_buffer), self.HEADER_MAX_SIZE)
        try:
            request = self._request(found.method, found.target, found.fields)
        except BadURL:
            request = self._request(found.method, b"*", found.fields)
        request.stands_in, request.head_ended = True, found.whole
        self.request, request.stream = request, self
        self.request_body = None  # where it ends cannot be known

    def _request(self, method: str, target: bytes, fields: list[tuple[str, str]]) -> AnyRequest:
        protocol: Any = self.protocol
        return AnyRequest(
            url_bytes=target,
            headers=Header(fields),
            version="1.1",
            method=method,
            transport=protocol.transport,
            app=protocol.app,
        )

    async def _end_of_head(self) -> int:
        """Where the empty line begins that ends the header. Line breaks before the header are dropped."""
        start = 0
        while True:
            while self.recv_buffer.startswith(b"\r\n"):
                del self.recv_buffer[:2]
            end: int = self.recv_buffer.find(b"\r\n\r\n", start)
            if max(end, len(self.recv_buffer) - 3 if end < 0 else 0) >= self.HEADER_MAX_SIZE:
                raise PayloadTooLarge(f"The request header is larger than {self.HEADER_MAX_SIZE // 1024} kB.")
            if end >= 0:
                return end
            start = max(0, len(self.recv_buffer) - 3)
            await self._receive_more()

    async def _check_chunk(self) -> None:
        """Look at the line with the size of the next chunk, which begins with the end of the line before it."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        while (end := self.recv_buffer.find(b"\r\n", 2)) < 0 and len(self.recv_buffer) <= _LONGEST_CHUNK_LINE:
            await self._receive_more()
        try:
            check_chunk(bytes(self.recv_buffer[: end if end >= 0 else _LONGEST_CHUNK_LINE]))
        except Refused as error:
            self.keep_alive, self.request_body = False, None
            raise BadRequest(error.message) from None

    async def _linger(self) -> None:
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            return
        left = LINGER_BYTES
        try:
            transport.write_eof()  # a client that has left already makes it fail
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0:
                    left -= len(self.recv_buffer)
                    self.recv_buffer.clear()
                    await self._receive_more()
        except (TimeoutError, RequestCancelled, OSError):
            pass

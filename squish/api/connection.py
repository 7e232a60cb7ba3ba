"""One HTTP connection: reading a body within limits, the access log, and telling a client that is gone from one that
has only finished sending.

A client that closes and one that half-closes (`shutdown(SHUT_WR)`) both look like the end of input. What tells them
apart is that a closed socket answers further bytes with a reset. So after the end of input a few bytes are sent that
mean nothing: `100 Continue` before the header of an answer, a comment inside an event stream.
It knows nothing of models, JSON or keys.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import Any

from sanic import Request
from sanic.exceptions import RequestCancelled, RequestTimeout
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.server import HttpProtocol

from squish.text import clean

access_logger = logging.getLogger("squish.access")

MAX_BODY = 32 * 1024 * 1024
BODY_TIMEOUT = 60.0  # seconds without a byte of a body that is not complete
CLIENT_CLOSED = 499  # nginx's number for a client that did not wait; it only ever stands in the log

_COMMENT_CHUNK = b"3\r\n:\n\n\r\n"


class AnyRequest(Request[Any, Any]):
    """A request that can also stand for one that was no HTTP: Sanic answers that with an empty request under the same
    bad URL, which fails once more and closes the connection without a word."""

    def __init__(self, *, url_bytes: bytes, method: str, **rest: Any) -> None:
        super().__init__(url_bytes=b"*" if method == "NONE" else url_bytes, method=method, **rest)


async def read_body(request: Request) -> bytes:
    """The whole body of a streaming route. Raises PayloadTooLarge, BadRequest and RequestTimeout of Sanic."""
    stream = request.stream
    assert isinstance(stream, Http)
    stream.request_max_size = MAX_BODY
    parts: list[bytes] = []
    while stream.request_body:
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                parts.append(await stream.read() or b"")
        except TimeoutError:
            raise RequestTimeout("The request body did not arrive.") from None
    if request.transport is not None:
        # Sanic pauses reading when its buffer is full; while paused, nobody would notice that the client leaves.
        request.transport.resume_reading()  # type: ignore[attr-defined]
    return b"".join(parts)


class Connection(HttpProtocol):
    """Sanic's HTTP/1.1 connection with half-close and our access log. To be given to Sanic's server as protocol."""

    __slots__ = ("_input_ended", "_watcher")

    probe_after = 1.0  # seconds: most answers to clients that half-close are out by then, and need no probe
    probe_interval = 0.1

    def _setup(self) -> None:
        super()._setup()  # type: ignore[no-untyped-call]
        self._input_ended = False
        self._watcher: asyncio.Task[None] | None = None
        self.request_handler = self._handle

    def connection_made(self, transport: Any) -> None:
        if sock := transport.get_extra_info("socket"):
            sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)  # a machine that vanished is noticed some day
        super().connection_made(transport)  # type: ignore[no-untyped-call]

    def eof_received(self) -> bool:
        """Keep the connection while a request is unanswered, and watch whether somebody still waits for it."""
        if self._http is None or (self._http.stage is Stage.IDLE and not self.recv_buffer):
            return False
        self._input_ended = True
        self._data_received.set()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return True

    def cut(self) -> asyncio.Task[None] | None:
        """End at once. The task of the connection, which is over when its handler has let go."""
        task = self._task
        self.abort()  # type: ignore[no-untyped-call]
        return task

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watcher:
            self._watcher.cancel()
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    async def receive_more(self) -> None:
        if self._input_ended:
            raise RequestCancelled
        await super().receive_more()  # type: ignore[no-untyped-call]

    async def _watch(self) -> None:
        await asyncio.sleep(self.probe_after)
        probed = False
        while self.transport is not None and not self.transport.is_closing():
            if not probed and (probe := self._probe()):
                self.transport.write(probe)
                probed = True
            if probed and self._peer_is_gone():
                self.transport.abort()
                return
            await asyncio.sleep(self.probe_interval)

    def _probe(self) -> bytes:
        """Bytes that mean nothing at this point of the answer; none when there are no such bytes."""
        http = self._http
        if http is None or http.request is None or http.request_body:
            return b""
        if http.stage is Stage.HANDLER and http.request.version == "1.1":
            return HTTP_CONTINUE
        return _COMMENT_CHUNK if http.stage is Stage.RESPONSE else b""

    def _peer_is_gone(self) -> bool:
        """Whether the socket was reset: the system then no longer knows a peer. poll() differs between systems here."""
        sock = self.transport.get_extra_info("socket") if self.transport else None
        try:
            return sock is None or sock.getpeername() is None
        except OSError:
            return True

    async def _handle(self, request: Request) -> None:
        with _logged(request):
            await self.app.handle_request(request)


@contextmanager
def _logged(request: Request) -> Iterator[None]:
    """One line for each request when it is over, however it ends: no prompts, no query, no headers."""
    started = time.perf_counter()
    status = CLIENT_CLOSED
    try:
        yield
        stream = request.stream  # it is false when the answer is complete
        status = stream.response.status if stream is not None and stream.response is not None else 500
    finally:
        milliseconds = (time.perf_counter() - started) * 1000
        line = clean(f"{request.method[:16]} {request.path[:200]}").replace("\n", " ").replace("\t", " ")
        access_logger.info("%s %d %.0f ms %s", line, status, milliseconds, getattr(request.ctx, "id", "-"))

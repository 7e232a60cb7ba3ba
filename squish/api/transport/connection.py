"""One HTTP connection: patience with slow clients, reading a body within limits, and telling a client that is gone
from one that has only finished sending.

A client that closes and one that half-closes (`shutdown(SHUT_WR)`) both look like the end of input. What tells them
apart is that a closed socket answers further bytes with a reset. So after the end of input a few bytes are sent that
mean nothing: `100 Continue` before the header of an answer, a comment or a space inside a stream.
It knows nothing of models, JSON or keys.
"""

from __future__ import annotations

import asyncio
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import Any

from sanic import Request
from sanic.exceptions import PayloadTooLarge, RequestCancelled, RequestTimeout
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.server import HttpProtocol

from squish.api.serving.options import Patience
from squish.api.serving.record import recorded
from squish.api.transport.exchange import Exchange
from squish.api.transport.refusal import RefusedConnection

MAX_BODY = 32 * 1024 * 1024
MAX_HEADER = 16_384

_TOO_LARGE = f"The request body is larger than {MAX_BODY // 2**20} MB."


async def read_body(request: Request) -> bytes:
    """The whole body of a streaming route. Raises PayloadTooLarge, BadRequest and RequestTimeout of Sanic."""
    stream = request.stream
    assert isinstance(stream, Http)
    if (stream.request_bytes or 0) > MAX_BODY:
        stream.expecting_continue = stream.keep_alive = False  # it is not to be sent at all
        raise PayloadTooLarge(_TOO_LARGE)
    stream.request_max_size = MAX_BODY
    patience: Patience = request.app.ctx.options.patience
    loop = asyncio.get_running_loop()
    body = bytearray()  # a list of small pieces would leave the heap full of holes that glibc keeps
    deadline = loop.time() + patience.body
    while stream.request_body:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + patience.body)):
                part = await stream.read() or b""
        except PayloadTooLarge:
            raise PayloadTooLarge(_TOO_LARGE) from None
        except TimeoutError:
            stream.keep_alive, stream.request_body = False, None  # or Sanic waits for the rest of it
            raise RequestTimeout("The request body did not arrive.") from None
        body += part
        deadline += len(part) / patience.body_rate
    if request.transport is not None:
        # Sanic pauses reading when its buffer is full; while paused, nobody would notice that the client leaves.
        request.transport.resume_reading()  # type: ignore[attr-defined]
    return bytes(body)


class Connection(HttpProtocol):
    """Sanic's HTTP/1.1 connection with half-close, deadlines and our access log: the protocol of Sanic's server."""

    __slots__ = ("_header_timer", "_input_ended", "_patience", "_watcher")

    HTTP_CLASS = Exchange
    probe_after = 0.1  # seconds: answers that need no model are out by then, and need no probe
    probe_interval = 0.05

    def _setup(self) -> None:
        super()._setup()  # type: ignore[no-untyped-call]
        self._input_ended = False
        self._watcher: asyncio.Task[None] | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._patience: Patience = self.app.ctx.options.patience
        self.request_handler = self._handle

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self._patience.connections:
            RefusedConnection(transport, self.app.ctx.refusals)
            return
        if sock := transport.get_extra_info("socket"):
            sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)  # a machine that vanished is noticed some day
        super().connection_made(transport)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Give a header that has begun a limit to end, however slowly it goes on."""
        if self._header_timer is None and (self._http is None or self._http.stage in (Stage.IDLE, Stage.REQUEST)):
            loop = asyncio.get_running_loop()
            self._header_timer = loop.call_later(self._patience.header, self._header_is_late)
        super().data_received(data)

    async def send(self, data: bytes) -> None:
        """Write, as long as the client reads: one that does not would keep its place in the batch forever."""
        if not self._can_write.is_set():  # a timeout costs as much as the rest, and most pieces need none
            try:
                async with asyncio.timeout(self._patience.send):
                    await self._can_write.wait()
            except TimeoutError:
                self.abort()
                raise RequestCancelled from None
        await super().send(data)  # type: ignore[no-untyped-call]

    def eof_received(self) -> bool:
        """Keep the connection while a request is unanswered, and watch whether somebody still waits for it."""
        if self._http is None or (self._http.stage is Stage.IDLE and not self.recv_buffer):
            return False
        self._input_ended = True
        self._data_received.set()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return True

    def abort(self) -> None:
        """End at once. Unlike Sanic's, it leaves the transport, which makes writers notice that it is closing."""
        if self.transport:
            self.transport.abort()

    def cut(self) -> asyncio.Task[None] | None:
        """End at once. The task of the connection, which is over when its handler has let go."""
        task = self._task
        self.abort()
        return task

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watcher:
            self._watcher.cancel()
        self._stop_header_timer()
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    async def receive_more(self) -> None:
        if self._input_ended or self.transport is None or self.transport.is_closing():
            raise RequestCancelled  # no more will come
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
        if http.stage is not Stage.RESPONSE:
            return b""
        events = "event-stream" in str(http.response.headers.get("content-type"))
        nothing = b":\n\n" if events else b" "  # a comment; a space before the next JSON
        return nothing if http.request.version == "1.0" else b"%x\r\n%b\r\n" % (len(nothing), nothing)

    def _peer_is_gone(self) -> bool:
        """Whether the socket was reset: the system then no longer knows a peer. poll() differs between systems here."""
        sock = self.transport.get_extra_info("socket") if self.transport else None
        try:
            return sock is None or sock.getpeername() is None
        except OSError:
            return True

    async def _handle(self, request: Request) -> None:
        self._stop_header_timer()
        with recorded(request):
            await self.app.handle_request(request)

    def _header_is_late(self) -> None:
        self._header_timer = None
        if self._http is None or self._task is None:
            return
        if self._http.stage is Stage.REQUEST:
            self._http.exception = RequestTimeout("The request header did not arrive.")
            self._task.cancel()
        elif self._http.stage is Stage.IDLE and self._http.request_body:
            self.abort()  # it was refused, and still its body drips in

    def _stop_header_timer(self) -> None:
        if self._header_timer:
            self._header_timer.cancel()
            self._header_timer = None

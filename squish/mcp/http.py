"""A server at an address, over streamable HTTP: each message is a POST, whose answer is JSON or a stream of events.

Keys in headers go to that server's own host and nowhere else. It knows no messages. To be imported where a connection
is made: the HTTP library takes its time to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress

from httpx2 import URL, AsyncClient, HTTPError, InvalidURL, Response, Timeout

from squish.config.mcp_server import McpServer
from squish.download.client import open_client
from squish.download.request import is_same_host
from squish.errors import McpError
from squish.mcp import wire
from squish.mcp.sse import EventReader, EventTooLarge
from squish.mcp.transport import Ended, Receive, ServerLog
from squish.mcp.values import filled
from squish.mcp.wire import LARGEST

_CONNECT = 30.0  # seconds
_GOODBYE = 2.0  # seconds that the end of a session may take
_REDIRECTS = 3
_RESUMES = 3  # times that a stream is taken up again before it brings something
_LONGEST_PAUSE = 10.0  # seconds before that, whatever the server wants
_TOO_LARGE = f"it sent a message of more than {LARGEST >> 20} MiB"


class HttpTransport:
    """A session with a server over HTTP."""

    def __init__(self, server: McpServer, log: ServerLog) -> None:
        self._server, self._log = server, log
        self._url = ""
        self._headers: dict[str, str] = {}
        self._client: AsyncClient | None = None
        self._session = ""
        self._version = ""
        self._listening: asyncio.Task[None] | None = None
        self._receive: Receive = lambda message: None
        self._ended: Ended = lambda error: None

    async def start(self, receive: Receive, ended: Ended) -> None:
        server = self._server
        self._url = filled(server.url, "url")
        self._headers = {name: filled(value, f"headers.{name}") for name, value in server.headers.items()}
        if any(not (value.isascii() and value.isprintable()) for value in self._headers.values()):
            raise McpError("one of its headers has characters that no HTTP header can carry")
        self._receive, self._ended = receive, ended
        self._client = open_client(Timeout(None, connect=_CONNECT))

    def use_version(self, version: str, *, stateless: bool) -> None:
        self._version = version
        if self._session and not stateless:
            self._listening = asyncio.create_task(self._listen())

    async def send(self, message: bytes, headers: Mapping[str, str], *, asks: bool) -> None:
        with _http_errors():
            async with self._opened("POST", headers, message) as response:
                await self._take_answer(response, asks)

    async def _take_answer(self, response: Response, asks: bool) -> None:
        if response.status_code >= 400:
            await self._take_refusal(response, asks)
            return
        self._session = self._session or _session_of(response)
        if not asks:
            return
        match response.headers.get("content-type", "").partition(";")[0].strip().lower():
            case "application/json":
                self._receive(await _body(response))
            case "text/event-stream":
                await self._take_events(response)
            case kind:
                raise McpError(f"it answered {response.status_code} with {kind or 'nothing'} instead of JSON")

    async def _take_refusal(self, response: Response, asks: bool) -> None:
        """An answer with an error may be in the body of a refusal. Raises McpError where it is not."""
        status = response.status_code
        if status == 404 and self._session:
            error = McpError("its session has ended")
            self._ended(error)
            raise error
        body = await _body(response)
        with suppress(wire.Garbled):
            (found, *_) = wire.decode(body)
            if asks and found.id is not None and found.error is not None:
                self._receive(body)
                return
            if found.error is not None:
                raise McpError(f"it answered {status}: {found.error.message[:200]}")
        if status in (401, 403):
            raise McpError(f"it refuses access ({status})", hint="Set its key in headers; see docs/mcp.md.")
        raise McpError(f"it answered {status}")

    async def _take_events(self, response: Response) -> None:
        """Hand on what a stream brings, and take it up again where it breaks off; who has the answer cancels this."""
        last, pause = await self._events(response)
        for _ in range(_RESUMES):
            if not last:
                break
            await asyncio.sleep(pause)
            async with self._opened("GET", {"Last-Event-ID": last}) as again:
                if again.status_code >= 400:
                    break
                newer, pause = await self._events(again)
                last = newer or last
        raise McpError("it ended its answer before it was complete")

    async def _events(self, response: Response) -> tuple[str, float]:
        """The id of the last event, and the seconds to wait before the stream is taken up again."""
        reader, last, pause = EventReader(), "", 1.0
        try:
            async for piece in response.aiter_bytes():
                for event in reader.feed(piece):
                    last = event.id or last
                    pause = min(event.retry / 1000, _LONGEST_PAUSE) if event.retry is not None else pause
                    if event.data:
                        self._receive(event.data)
        except EventTooLarge:
            raise McpError(_TOO_LARGE) from None
        except HTTPError:
            if not last:
                raise
        return last, pause

    async def _listen(self) -> None:
        """Hear what the server says by itself, where it offers that."""
        failures = 0
        while failures < _RESUMES:
            pause = 1.0
            try:
                async with self._opened("GET", {}) as response:
                    if response.status_code >= 400:
                        return
                    failures, pause = 0, (await self._events(response))[1]
            except (HTTPError, McpError):
                pass
            failures += 1
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _opened(
        self, method: str, headers: Mapping[str, str], message: bytes | None = None
    ) -> AsyncIterator[Response]:
        """The response, behind redirects that stay on the host and keep the method. Raises McpError for others."""
        assert self._client is not None
        sent = {
            **self._headers,
            "Accept": "text/event-stream" if message is None else "application/json, text/event-stream",
            **({"Content-Type": "application/json"} if message is not None else {}),
            **({"Mcp-Session-Id": self._session} if self._session else {}),
            **({"MCP-Protocol-Version": self._version} if self._version else {}),
            **headers,
        }
        target = URL(self._url)
        for _ in range(_REDIRECTS):
            request = self._client.build_request(method, target, content=message, headers=sent)
            response = await self._client.send(request, stream=True)
            try:
                if not response.is_redirect:
                    yield response
                    return
                before, target = target, response.url.join(response.headers.get("location", ""))
                if response.status_code not in (307, 308) or not is_same_host(before, target):
                    raise McpError(f"it redirects to {target.copy_with(query=None)}", hint="Write that address as url.")
            finally:
                await response.aclose()
        raise McpError("it redirects in a loop")

    async def close(self, *, at_once: bool = False) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        try:
            if self._listening:
                self._listening.cancel()
                await asyncio.wait({self._listening})
            if self._session and not at_once:
                headers = {**self._headers, "Mcp-Session-Id": self._session, "MCP-Protocol-Version": self._version}
                with suppress(HTTPError, TimeoutError):
                    async with asyncio.timeout(_GOODBYE):
                        await client.delete(self._url, headers=headers)
        finally:
            await client.aclose()


@contextmanager
def _http_errors() -> Iterator[None]:
    """What the HTTP library raises becomes a McpError."""
    try:
        yield
    except InvalidURL as error:
        raise McpError(f"its address cannot be used: {error}") from None
    except HTTPError as error:
        raise McpError(f"it cannot be reached: {str(error) or type(error).__name__}") from None


def _session_of(response: Response) -> str:
    found = str(response.headers.get("mcp-session-id", ""))
    return found if found.isascii() and found.isprintable() and len(found) <= 1024 else ""


async def _body(response: Response) -> bytes:
    """Raises McpError for one that is too large."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > LARGEST:
            raise McpError(_TOO_LARGE)
    return bytes(body)

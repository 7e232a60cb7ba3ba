"""One MCP server seen from asyncio: the agreement on a version, requests and their answers, and an end.

Whatever the server does, a request ends: with its answer, or with a McpError in one sentence. It knows no processes, no
HTTP and no tools but by name. Protocol: https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from squish import __version__
from squish.errors import McpError
from squish.mcp import wire
from squish.mcp.transport import ServerLog, Transport
from squish.mcp.wire import Incoming
from squish.text import clean

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Of the protocol, as `initialize` agrees upon them; the last one is offered."""
STATELESS = "2026-07-28"
"""The version without a handshake: every request says who asks, and what for."""

LONGEST = 10
"""A call that reports progress may take this many times its timeout."""
UNASKED = 10_000
"""Messages that a server may send between two answers."""
PAGES = 100
"""Of a list of tools, at most."""

_OURS = {"name": "squish", "version": __version__}
_META = "io.modelcontextprotocol/"

Progress = Callable[[str], None]


@dataclass(slots=True)
class _Asked:
    answer: asyncio.Future[dict[str, Any]]
    deadline: asyncio.Timeout
    latest: float
    progress: Progress | None


class Client:
    """A connection to a server. `connect` comes first, `close` last; timeout in seconds."""

    def __init__(self, transport: Transport, log: ServerLog, timeout: float) -> None:
        self._transport, self._log, self._timeout = transport, log, timeout
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0
        self._unasked = 0
        self._replies = set[asyncio.Task[None]]()
        self._refusal: McpError | None = None  # the latest answer that was an error
        self._closing: asyncio.Task[None] | None = None
        self._stateless = False
        self.failure: McpError | None = None
        self.announces_tools = False  # whether the server says when its tools are others
        self.tools_changed = False
        self.version = ""

    async def connect(self) -> None:
        """Reach the server and agree upon a version. Raises McpError, ConfigError; then it is to be closed."""
        await self._transport.start(self._receive, self._end)
        try:
            await self._initialize()
        except McpError as error:
            if error is not self._refusal:
                raise
            await self._discover(error)

    async def _initialize(self) -> None:
        about = {"protocolVersion": VERSIONS[-1], "capabilities": {}, "clientInfo": _OURS}
        found = await self._request("initialize", about)
        version = found.get("protocolVersion")
        if version not in VERSIONS:
            raise McpError(f"it speaks version {str(version)[:40]} of the protocol, which Squish does not")
        self.version, capabilities = version, found.get("capabilities")
        tools = capabilities.get("tools") if isinstance(capabilities, dict) else None
        self.announces_tools = isinstance(tools, dict) and tools.get("listChanged") is True
        self._transport.use_version(version, stateless=False)
        await self._notify("notifications/initialized")

    async def _discover(self, refusal: McpError) -> None:
        """Go on without a handshake, with a server that knows none. Raises McpError: its first refusal."""
        self._stateless, self.version = True, STATELESS
        self._transport.use_version(STATELESS, stateless=True)
        try:
            found = await self._request("server/discover", {})
        except McpError as error:
            raise (refusal if error is self._refusal else error) from None
        if STATELESS not in (versions := found.get("supportedVersions") or ()):
            raise McpError(f"it speaks versions {str(versions)[:80]} of the protocol, which Squish does not")

    async def tools(self) -> list[Any]:
        """What the server says of its tools, as it is. Raises McpError."""
        self.tools_changed = False
        found: list[Any] = []
        cursor: str | None = None
        seen = set[str]()
        for _ in range(PAGES):
            page = await self._request("tools/list", {"cursor": cursor} if cursor else {})
            if not isinstance(listed := page.get("tools"), list):
                raise McpError("its list of tools is not a list")
            found += listed
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break
            seen.add(cursor)
        return found

    async def call(self, name: str, arguments: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """The result of a tool, as it is. progress: gets what the server reports. Cancelling tells the server.

        Raises McpError.
        """
        return await self._request("tools/call", {"name": name, "arguments": arguments}, progress, name)

    async def ping(self) -> None:
        """Raises McpError where the server does not answer."""
        if not self._stateless:
            await self._request("ping", {})

    async def close(self) -> None:
        """End the connection, and what runs for it."""
        self._end(McpError("the connection was closed"), says_so=False)
        for task in list(self._replies):
            task.cancel()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    # ---- requests

    async def _request(
        self, method: str, params: dict[str, Any], progress: Progress | None = None, name: str = ""
    ) -> dict[str, Any]:
        if self.failure is not None:
            raise McpError(self.failure.message, hint=self.failure.hint)
        self._last_id += 1
        id, loop = self._last_id, asyncio.get_running_loop()
        message = wire.request(id, method, self._with_meta(params, id, progress))
        headers = {"Mcp-Method": method, **({"Mcp-Name": name} if name.isascii() and name else {})}
        sending: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                latest = loop.time() + LONGEST * self._timeout
                asked = self._asked[id] = _Asked(loop.create_future(), deadline, latest, progress)
                sending = asyncio.create_task(
                    self._transport.send(message, headers if self._stateless else {}, asks=True)
                )
                either: set[asyncio.Future[Any]] = {sending, asked.answer}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not asked.answer.done():
                    sending.result()
                return await asked.answer
        except TimeoutError:
            await self._call_off(id, method, "timeout")
            raise McpError(f"it did not answer within {self._timeout:g} s") from None
        except asyncio.CancelledError:
            await self._call_off(id, method, "cancelled")
            raise
        finally:
            left = self._asked.pop(id, None)
            if left is not None and left.answer.done() and not left.answer.cancelled():
                left.answer.exception()  # seen, also where nobody waited for it any more
            if sending is not None:
                await _ended(sending)

    def _with_meta(self, params: dict[str, Any], id: int, progress: Progress | None) -> dict[str, Any]:
        meta: dict[str, Any] = {"progressToken": id} if progress else {}
        if self._stateless:
            meta |= {f"{_META}protocolVersion": STATELESS, f"{_META}clientInfo": _OURS}
            meta[f"{_META}clientCapabilities"] = {}
        return {**params, "_meta": meta} if meta else params

    async def _call_off(self, id: int, method: str, reason: str) -> None:
        """Tell the server that nobody waits for an answer any more, and see whether it still answers at all."""
        if method in ("initialize", "ping") or self.failure is not None:
            return
        telling = asyncio.create_task(self._notify("notifications/cancelled", {"requestId": id, "reason": reason}))
        self._keep(telling)
        self._keep(asyncio.create_task(self._end_unless_alive()))

    async def _end_unless_alive(self) -> None:
        """A server that answers nothing is ended: the next call finds one that was started anew."""
        try:
            await self.ping()
        except McpError as error:
            if error is not self._refusal:  # a refusal is an answer
                self._end(error)

    async def _notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        message = wire.notification(method, params)
        async with asyncio.timeout(self._timeout):
            await self._transport.send(message, {"Mcp-Method": method} if self._stateless else {}, asks=False)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it is over; what goes wrong with it does not matter."""
        self._replies.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._replies.discard(task)
            if not task.cancelled():
                task.exception()

        task.add_done_callback(over)

    # ---- what arrives

    def _receive(self, data: bytes) -> None:
        try:
            messages = wire.decode(data)
        except wire.Garbled:
            shown = clean(data[:80].decode(errors="replace")).strip()
            self._log.write(f"not a message: {shown}")
            self._count_unasked()
            return
        for message in messages:
            if message.is_answer:
                self._take_answer(message)
            elif message.id is not None:
                self._answer(message.id, message.method)
            else:
                self._take_notification(message.method, message.params or {})

    def _take_answer(self, message: Incoming) -> None:
        asked = self._asked.get(message.id) if isinstance(message.id, int) else None
        if asked is None or asked.answer.done():
            self._count_unasked()
        elif message.error is not None:
            said = " ".join(clean(message.error.message).split())[:300] or message.error.code
            self._refusal = McpError(f"it answered with an error: {said}")
            asked.answer.set_exception(self._refusal)
        else:
            self._unasked = 0
            asked.answer.set_result(message.result or {})

    def _answer(self, id: int | str, method: str | None) -> None:
        """A server may ask whether we are there; it was told that nothing else can be asked."""
        self._count_unasked()
        if self.failure is not None or len(self._replies) > PAGES:
            return
        ping = method == "ping"
        reply = wire.answer(id, {}) if ping else wire.refusal(id, wire.METHOD_NOT_FOUND, "Squish does not offer this.")
        self._keep(asyncio.create_task(self._transport.send(reply, {}, asks=False)))

    def _take_notification(self, method: str | None, params: dict[str, Any]) -> None:
        self._count_unasked()
        match method:
            case "notifications/tools/list_changed":
                self.tools_changed = True
            case "notifications/progress":
                self._take_progress(params)
            case "notifications/message":
                data = params.get("data")
                text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
                self._log.write(f"{params.get('level', 'info')}: {text[:1000]}")

    def _take_progress(self, params: dict[str, Any]) -> None:
        """A call that makes progress gets more time."""
        asked = self._asked.get(params.get("progressToken", 0))
        if asked is None or asked.answer.done() or asked.progress is None:
            return
        with suppress(RuntimeError):  # its time is over
            now = asyncio.get_running_loop().time()
            asked.deadline.reschedule(min(now + self._timeout, asked.latest))
        done, total, said = params.get("progress"), params.get("total"), params.get("message")
        figures = f"{done:g}/{total:g}" if isinstance(done, int | float) and isinstance(total, int | float) else ""
        asked.progress(" ".join(filter(None, (figures, clean(said)[:200] if isinstance(said, str) else ""))))

    def _count_unasked(self) -> None:
        self._unasked += 1
        if self._unasked > UNASKED:
            self._end(McpError(f"it sent more than {UNASKED:,} unsolicited messages"), at_once=True)

    def _end(self, error: McpError, *, at_once: bool = False, says_so: bool = True) -> None:
        """No answer can come any more."""
        if self.failure is not None:
            return
        self.failure = error
        if says_so:
            self._log.write(f"ended: {error.message}")
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(error)
        self._closing = asyncio.create_task(self._transport.close(at_once=at_once))


async def _ended(task: asyncio.Task[None]) -> None:
    """End a task; what it would have raised was said already, or does not matter."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()

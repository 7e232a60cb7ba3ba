"""The servers of this process: reached when their tools are wanted, shared by all chats, ended with the process.

Whatever a server does ends here as one sentence: a McpError where its tools are asked for, a failed result where one of
them is called.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.errors import ConfigError, InvalidInput, McpError, Offline, SquishError
from squish.mcp import sources
from squish.mcp.client import Client, Progress
from squish.mcp.sources import Known
from squish.mcp.tools import NO_OBJECT, ServerTool, ToolResult, described, result, values_of
from squish.mcp.transport import ServerLog, Transport
from squish.system.loopback import is_loopback

RETRY_AFTER = 30.0
"""Seconds that a server which failed is left alone, unless somebody asks for it on purpose."""
_STALE = 300.0  # seconds after which a server that cannot say that its tools have changed is asked again


@dataclass(slots=True)
class _Connection:
    client: Client
    server: McpServer
    listed: list[ServerTool] = field(default_factory=list)
    listed_at: float = 0.0


class Toolbox:
    """Tools of MCP servers. directory: where files of a project are looked for."""

    def __init__(self, settings: Settings, directory: Path | None = None) -> None:
        self._settings, self._directory = settings, directory
        self._connections: dict[str, _Connection] = {}
        self._failed: dict[str, tuple[float, SquishError]] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def log_path(self) -> Path:
        return self._settings.home / "logs" / "mcp.log"

    def known(self) -> list[Known]:
        """All servers there are. Nothing is started."""
        return sources.known(self._settings, self._directory)

    def find(self, name: str) -> Known:
        """Raises InvalidInput."""
        return sources.find(self.known(), name)

    async def tools(self, name: str, *, again: bool = False) -> list[ServerTool]:
        """The tools of a server, which is reached for it. again: also if that failed a moment ago.

        Raises InvalidInput, ConfigError, McpError, Offline; each names the server.
        """
        async with self._locks[name]:
            at, error = self._failed.get(name, (0.0, None))
            if error is not None and not again and time.monotonic() - at < RETRY_AFTER:
                raise error
            try:
                connection = await self._connected(self.find(name))
                if not connection.listed_at or connection.client.tools_changed or self._is_stale(connection):
                    listed = await connection.client.tools()
                    connection.listed = described(name, listed, connection.server.tools)
                    connection.listed_at = time.monotonic()
            except SquishError as error:
                failure = _named(name, error)
                self._failed[name] = time.monotonic(), failure
                await self._drop(name)
                raise failure from None
            self._failed.pop(name, None)
            return connection.listed

    async def call(self, tool: ServerTool, arguments: str, progress: Progress | None = None) -> ToolResult:
        """What a tool gives for arguments, a JSON object as text. Cancelling tells the server."""
        if (values := values_of(arguments)) is None:
            return ToolResult(NO_OBJECT, failed=True)
        try:
            async with self._locks[tool.server]:
                connection = await self._connected(self.find(tool.server))
            return result(await connection.client.call(tool.name, values, progress))
        except SquishError as error:
            return ToolResult(_named(tool.server, error).message, failed=True)

    async def close(self) -> None:
        """End all servers, at the same time."""
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*(each.client.close() for each in connections), return_exceptions=True)

    def is_connected(self, name: str) -> bool:
        connection = self._connections.get(name)
        return connection is not None and connection.client.failure is None

    @staticmethod
    def _is_stale(connection: _Connection) -> bool:
        return not connection.client.announces_tools and time.monotonic() - connection.listed_at > _STALE

    async def _connected(self, known: Known) -> _Connection:
        """The connection to a server; one that has ended, or is to another server by now, is made anew."""
        before = self._connections.get(known.name)
        if before is not None and before.client.failure is None and before.server == known.server:
            return before
        await self._drop(known.name)
        log = ServerLog(self.log_path, known.name)
        client = Client(self._transport(known, log), log, known.server.timeout)
        try:
            await client.connect()
        except BaseException:
            await client.close()
            raise
        made = self._connections[known.name] = _Connection(client, known.server)
        return made

    def _transport(self, known: Known, log: ServerLog) -> Transport:
        server = known.server
        if server.command:
            from squish.mcp.stdio import StdioTransport

            return StdioTransport(server, log)
        if self._settings.offline and not is_loopback(urlsplit(server.url).hostname or ""):
            raise Offline("it is on another computer, and SQUISH_OFFLINE is set", hint="Unset SQUISH_OFFLINE.")
        from squish.mcp.http import HttpTransport

        return HttpTransport(server, log)

    async def _drop(self, name: str) -> None:
        if (connection := self._connections.pop(name, None)) is not None:
            with suppress(SquishError):
                await connection.client.close()


async def gather(
    toolbox: Toolbox, names: Sequence[str], waits_for: Callable[[tuple[str, ...]], None]
) -> tuple[list[ServerTool], list[SquishError]]:
    """The tools of several servers, reached at the same time, and what went wrong with the others.

    waits_for: gets the servers that have not answered yet, each time that they are fewer.
    """
    left = [name for name in names if not toolbox.is_connected(name)]

    async def reached(name: str) -> list[ServerTool]:
        try:
            return await toolbox.tools(name)
        finally:
            if name in left:
                left.remove(name)
                if left:
                    waits_for(tuple(left))

    if left:
        waits_for(tuple(left))
    outcomes = await asyncio.gather(*map(reached, names), return_exceptions=True)
    found: list[ServerTool] = []
    problems: list[SquishError] = []
    for outcome in outcomes:
        if isinstance(outcome, SquishError):
            problems.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            found += outcome
    return found, problems


def _named(name: str, error: SquishError) -> SquishError:
    """The error as a sentence that begins with the server's name."""
    if isinstance(error, InvalidInput) and not isinstance(error, ConfigError):
        return error
    message = f"{name}: {error.message.rstrip('.')}."
    return type(error)(message, hint=error.hint) if type(error) in (ConfigError, Offline) else McpError(
        message, hint=error.hint
    )  # fmt: skip

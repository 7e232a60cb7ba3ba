"""A server elsewhere as a backend: its models, and the chats and settings of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.mcp.lazy_toolbox import LazyToolbox
from squish.remote.connection import ServerConnection
from squish.remote.fields import ON_SERVER
from squish.remote.identify import identify
from squish.remote.models import RemoteModels
from squish.remote.server import ModelServer
from squish.remote.sessions import RemoteSessions
from squish.sessions.backend import Offers

if TYPE_CHECKING:
    from squish.mcp.toolbox import Toolbox


class Connected:
    """What a front door works on when the models run elsewhere. url: where; program: what answers there."""

    def __init__(self, settings: Settings, connection: ServerConnection, server: ModelServer) -> None:
        self.settings, self.url, self.name, self.program = settings, connection.base, connection.name, server.program
        self.store = RemoteModels(server, connection.name)
        self.sessions = RemoteSessions(connection, server, self.store)
        self.chats = Chats(settings.home / "chats.db")
        self._connection, self._server = connection, server
        self._tools = LazyToolbox(settings)

    @property
    def offers(self) -> Offers:
        no_context = "" if self._server.fields.context else ON_SERVER
        return replace(self._server.offers, where=self.name, no_context=no_context)

    @property
    def toolbox(self) -> Toolbox:
        """The MCP servers, which run here."""
        return self._tools.get()

    async def calls_tools(self, model: str) -> bool:
        return await self._server.calls_tools(model)

    async def remove(self, model: str) -> int:
        """Delete a model there; the bytes freed, as far as they are known. Raises RemoteError."""
        size = self.store.manifest(model).size
        await self._server.remove(model)
        await self.store.read()
        return size

    async def close(self) -> None:
        await self._tools.close()
        await self.sessions.close()
        self.chats.close()
        await self._connection.close()


async def connect(settings: Settings, url: str, key: str = "") -> Connected:
    """Connect to the server at an address (address.parse) and read its list of models. The caller closes it.

    Raises RemoteError saying what is wrong with the server.
    """
    connection = ServerConnection(url, key)
    try:
        backend = Connected(settings, connection, await identify(connection))
    except BaseException:
        await connection.close()
        raise
    try:
        await backend.store.read()
    except BaseException:
        await backend.close()
        raise
    return backend


@asynccontextmanager
async def connected(settings: Settings, url: str, key: str = "") -> AsyncIterator[Connected]:
    """The same for a screen, which shows the server's state from now on."""
    backend = await connect(settings, url, key)
    try:
        await backend.sessions.look()
        watching = asyncio.create_task(backend.sessions.watch(), name="watch the server")
        try:
            yield backend
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    finally:
        await backend.close()

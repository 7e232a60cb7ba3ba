"""The life of the server inside an asyncio loop that is running already: bind, serve, drain.

It knows sockets and connections. What is served on them is app.py's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squish.api.app import build_app
from squish.api.serving.ending import Ending
from squish.api.serving.opening import Opening
from squish.api.serving.options import Options
from squish.api.transport import application
from squish.api.transport.application import App
from squish.api.transport.connection import Connection
from squish.errors import ConfigError, InvalidInput
from squish.runtime import Runtime
from squish.system import ports
from squish.system.heap import return_large_blocks

if TYPE_CHECKING:
    from sanic.server import AsyncioServer

DRAIN = 30.0
_LAST_WORD = 1.0  # seconds for a client to read why its answer ends


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens. port is the real one, also when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How a server is asked to end. gently: requests in flight have `drain` seconds; at_once: they are cut off.

    delay: seconds before that, in which it goes on while /ready says no, so that routers send their requests elsewhere.
    """

    gently: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)
    drain: float = DRAIN
    delay: float = 0.0

    def ask(self) -> bool:
        """End gently; asked a second time, end at once. Returns whether this was the first time."""
        first = not self.gently.is_set()
        (self.gently if first else self.at_once).set()
        return first


async def serve(
    runtime: Runtime,
    options: Options,
    *,
    stop: Shutdown,
    on_ready: Callable[[Address], None] = lambda address: None,
    opening: Opening | None = None,
) -> None:
    """Serve until stop is asked, in the running loop. on_ready is called when the server can be reached.

    opening: when requests for answers are let in; without one, at once.

    Raises InvalidInput for a host or port that nothing can listen on, ConfigError for one that is taken.
    """
    host, port = options.host, options.port
    if not host.strip():
        hint = "127.0.0.1 is this machine only, 0.0.0.0 is every network it is on."
        raise InvalidInput("The host to listen on is empty.", hint=hint, param="host")
    if not 0 <= port <= 65535:
        raise InvalidInput(f"{port} is not a valid port.", hint="Ports go from 0 to 65535.", param="port")
    return_large_blocks()
    opening = opening or Opening()
    connections: set[Connection] = set()
    app = build_app(runtime, options, opening)
    server = await _bind(app, host, port, connections)
    app.ctx.services.batches.start()
    try:
        on_ready(Address(host, await application.start(server)))
        await stop.gently.wait()
        app.ctx.services.ending.begun = True
        await _set_within(stop.at_once, stop.delay)
    finally:
        await application.close(server)
        opening.close("This server ends.")
        await app.ctx.services.batches.close()
        await _end(connections, stop, app.ctx.services.ending)
        application.end_refusals(app)
        await app.ctx.services.clients.close()
        if collector := app.ctx.services.collector:
            await collector.close()


async def _bind(app: App, host: str, port: int, connections: set[Connection]) -> AsyncioServer:
    try:
        if await asyncio.to_thread(ports.is_taken, host, port):
            raise OSError(errno.EADDRINUSE, "in use")
        return await application.bind(app, host, port, connections)
    except socket.gaierror:
        raise InvalidInput(f"The host {host!r} cannot be resolved.", param="host") from None
    except UnicodeError:
        raise InvalidInput(f"{host[:80]!r} is not a host name.", param="host") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"Stop what listens there, or choose another port: squish serve --port {min(port + 1, 65535)}"
            raise ConfigError(f"Port {port} on {host} is already in use.", hint=hint, param="port") from None
        if error.errno == errno.EACCES:
            hint = "Choose a port above 1023."
            raise ConfigError(f"Listening on port {port} is not permitted.", hint=hint, param="port") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(f"This machine does not have the address {host}.", param="host") from None
        raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror or error}.", param="host") from None


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def _end(connections: set[Connection], stop: Shutdown, ending: Ending) -> None:
    """Let requests in flight end for a while, break them off with an error, and cut off clients that do not read it.

    Returns when the handlers have let go.
    """
    await _emptied(connections, stop.drain, stop.at_once)
    ending.end()
    await _emptied(connections, _LAST_WORD)
    tasks = [connection.cut() for connection in list(connections)]
    await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def _emptied(connections: set[Connection], seconds: float, unless: asyncio.Event | None = None) -> None:
    """Wait until no connection has a request, at most so many seconds, and not once an event is set."""
    try:
        async with asyncio.timeout(seconds):
            while connections and not (unless and unless.is_set()):
                for connection in list(connections):
                    connection.close_if_idle()
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass

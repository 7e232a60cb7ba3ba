"""Sanic's application and server, set up for one event loop that is running already.

Sanic's own way of starting takes over the process: its signals, its loop, worker processes. None of that happens here.
It knows no routes.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from types import SimpleNamespace
from typing import Any, cast

from sanic import Sanic
from sanic.config import Config
from sanic.handlers import ErrorHandler
from sanic.server import AsyncioServer
from sanic.server import serve as make_server

from squish.api.transport.connection import MAX_BODY, MAX_HEADER, Connection
from squish.api.transport.request import AnyRequest
from squish.system import ports

App = Sanic[Config, SimpleNamespace]


def new_app(errors: ErrorHandler) -> App:
    """An application without routes. There can be any number of them in one process."""
    app: App = Sanic(
        f"squish-{secrets.token_hex(6)}",
        config=_config(),
        error_handler=errors,
        request_class=AnyRequest,
        configure_logging=False,
    )
    Sanic.unregister_app(app)  # the registry is for Sanic's own command line, and would keep every app forever
    app.ctx.refusals = set()  # of connections: those that can still be read
    return app


async def bind(app: App, host: str, port: int, connections: set[Connection]) -> AsyncioServer:
    """A server that holds its port and serves nothing yet, on every address that the host means. Raises OSError and
    UnicodeError.

    connections: a set that is to hold those that are open.
    """
    server: AsyncioServer = make_server(
        cast(str, ports.addresses(host)),  # asyncio, which gets it, takes several as well
        port or ports.free_port(host),
        app,
        loop=asyncio.get_running_loop(),
        protocol=Connection,
        connections=connections,
        run_async=True,
        register_sys_signals=False,
        asyncio_server_kwargs={"start_serving": False},
    )
    await server
    return server


async def start(server: Any) -> int:
    """Serve. The port, also when 0 was asked for."""
    await server.startup()
    await server.before_start()
    await server.after_start()
    await server.start_serving()
    port: int = server.server.sockets[0].getsockname()[1]
    return port


async def close(server: Any) -> None:
    """Take no more connections; those that are open go on."""
    await ports.stop_listening(server.server)


def end_refusals(app: App) -> None:
    """Who was refused, and has not left yet, has had the time to read why."""
    for each in tuple(app.ctx.refusals):
        each.end()


def _config() -> Config:
    """Sanic's settings, not touched by SANIC_… variables."""
    config = Config(env_prefix=None)
    config.AUTO_EXTEND = False
    config.MOTD = False
    config.ACCESS_LOG = False
    config.TOUCHUP = False  # it rewrites Sanic's classes, which works once in a process
    config.RESPONSE_TIMEOUT = math.inf  # type: ignore[assignment]  # an answer takes as long as it takes
    config.REQUEST_MAX_SIZE = MAX_BODY
    config.REQUEST_MAX_HEADER_SIZE = MAX_HEADER
    return config

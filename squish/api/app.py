"""The Sanic application of the API, and its life inside an asyncio loop that is running already.

It knows routes, timeouts and sockets. What the answers are is the other modules' business.
"""

from __future__ import annotations

import asyncio
import errno
import math
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from sanic import Request, Sanic
from sanic.config import Config
from sanic.response import BaseHTTPResponse
from sanic.server import AsyncioServer
from sanic.server import serve as make_server

from squish.api import auth
from squish.api.chat import create_chat_completion
from squish.api.completions import create_completion
from squish.api.connection import MAX_BODY, AnyRequest, Connection
from squish.api.errors import JsonErrors
from squish.api.health import get_health
from squish.api.models import get_model, list_models
from squish.api.sse import Timing
from squish.errors import ConfigError, InvalidInput
from squish.runtime import Runtime

App = Sanic[Config, SimpleNamespace]

STOP_GRACE = 3.0  # seconds that requests in flight have to end when the server is stopped


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens. port is the real one, also when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def build_app(runtime: Runtime, host: str = "127.0.0.1", timing: Timing | None = None) -> App:
    """The application. host: what it will be bound to. It can be built any number of times in one process."""
    app: App = Sanic(
        f"squish-{secrets.token_hex(6)}",
        config=_config(),
        error_handler=JsonErrors(),
        request_class=AnyRequest,
        configure_logging=False,
    )
    Sanic.unregister_app(app)  # the registry is for Sanic's own command line, and would keep every app for ever
    app.ctx.runtime = runtime
    app.ctx.timing = timing or Timing()
    app.ctx.host = host
    app.register_middleware(_identify, "request")
    app.register_middleware(_check_access, "request")
    app.register_middleware(_add_request_id, "response")
    read = ("GET", "HEAD")
    app.add_route(get_health, "/health", methods=read)
    app.add_route(list_models, "/v1/models", methods=read)
    app.add_route(get_model, "/v1/models/<name:path>", methods=read)
    app.add_route(create_chat_completion, "/v1/chat/completions", methods=("POST",), stream=True)
    app.add_route(create_completion, "/v1/completions", methods=("POST",), stream=True)
    return app


async def serve(
    runtime: Runtime,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[Address], None] = lambda address: None,
    timing: Timing | None = None,
) -> None:
    """Serve until stop is set, in the running loop. on_ready is called when requests are answered.

    Raises InvalidInput for a host or port that nothing can listen on, ConfigError for one that is taken.
    """
    if not host.strip() or not 0 <= port <= 65535:
        raise InvalidInput(f"{host}:{port} is no address to listen on.", hint="Ports go from 0 to 65535.", param="port")
    connections: set[Connection] = set()
    server = make_server(
        host,
        port,
        build_app(runtime, host, timing),
        loop=asyncio.get_running_loop(),
        protocol=Connection,
        connections=connections,
        run_async=True,
        register_sys_signals=False,
        asyncio_server_kwargs={"start_serving": False},
    )
    await _bind(server, host, port)
    try:
        await server.startup()
        await server.before_start()
        await server.after_start()
        await server.start_serving()
        on_ready(Address(host, server.server.sockets[0].getsockname()[1]))
        await stop.wait()
    finally:
        server.server.close()
        await _end(connections)


async def _bind(server: AsyncioServer, host: str, port: int) -> None:
    try:
        await server
    except socket.gaierror:
        raise InvalidInput(f"The host {host!r} cannot be resolved.", param="host") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"Stop what listens there, or choose another port: squish serve --port {min(port + 1, 65535)}"
            raise ConfigError(f"Port {port} on {host} is in use already.", hint=hint, param="port") from None
        if error.errno == errno.EACCES:
            hint = "Choose a port above 1023."
            raise ConfigError(f"Listening on port {port} is not permitted.", hint=hint, param="port") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(f"This machine does not have the address {host}.", param="host") from None
        raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror or error}.", param="host") from None


async def _end(connections: set[Connection]) -> None:
    """Let requests in flight end for a while, then cut them off and wait until their handlers have let go."""
    try:
        async with asyncio.timeout(STOP_GRACE):
            while connections:
                for connection in list(connections):
                    connection.close_if_idle()
                await asyncio.sleep(0.02)
    except TimeoutError:
        tasks = [connection.cut() for connection in list(connections)]
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


def _config() -> Config:
    """Sanic's settings, not touched by SANIC_… variables."""
    config = Config(env_prefix=None)
    config.AUTO_EXTEND = False
    config.MOTD = False
    config.ACCESS_LOG = False
    config.TOUCHUP = False  # it rewrites Sanic's classes, which works once in a process
    config.RESPONSE_TIMEOUT = math.inf  # type: ignore[assignment]  # an answer takes as long as it takes
    config.REQUEST_MAX_SIZE = MAX_BODY
    config.REQUEST_MAX_HEADER_SIZE = 16_384
    return config


async def _identify(request: Request) -> None:
    request.ctx.id = f"req_{secrets.token_hex(8)}"


async def _check_access(request: Request) -> None:
    key = request.app.ctx.runtime.settings.api_key
    if key is None:
        auth.check_host(request.headers.getone("host", None), request.app.ctx.host)
    auth.check_key(key, request.headers.getone("authorization", None), request.path)


async def _add_request_id(request: Request, response: BaseHTTPResponse) -> None:
    response.headers["x-request-id"] = getattr(request.ctx, "id", "-")

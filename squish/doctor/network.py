"""Whether the Hub answers and knows the token, which is never shown, and who listens on the configured port."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from squish.config.settings import Settings
from squish.doctor.finding import Finding
from squish.download import resolver
from squish.errors import SquishError, without_credentials
from squish.system import ports, servers


def hub(settings: Settings) -> Iterator[Finding]:
    """Whether the Hub answers, and what it thinks of the token. Nothing is sent when Squish is offline."""
    if settings.offline:
        yield Finding("Hub", "ok", "not asked: Squish is set to offline")
        return
    endpoint = without_credentials(settings.hub_endpoint)
    from squish.hub.client import Hub
    from squish.hub.token import token

    try:
        status = resolver.run(Hub(settings).whoami())
    except SquishError as error:
        yield Finding("Hub", "warning", error.message, error.hint)
        return
    if status not in (200, 401, 403):
        fix = "Try again later, or check HF_ENDPOINT"
        yield Finding("Hub", "warning", f"{endpoint} answered {status}", fix)
        return
    yield Finding("Hub", "ok", f"{endpoint} answers")
    if token(settings) is None:
        yield Finding("token", "ok", "none is set; only models with a license to accept need one")
    elif status == 200:
        yield Finding("token", "ok", "the Hub knows it")
    else:
        yield Finding("token", "broken", "the Hub does not know this token", "hf auth login, or set HF_TOKEN")


def port(settings: Settings) -> Iterator[Finding]:
    """Whether the configured port is free, ours, or somebody else's."""
    for server in servers.servers(settings.home):
        yield Finding("server", "ok", f"a Squish server runs at {server.url}, process {server.pid}")
    if settings.port == 0:
        return
    owner = _listener(settings.port)
    ours = {server.pid for server in servers.servers(settings.home)}
    if owner is None:
        yield Finding("port", "ok", f"{settings.port} is free")
    elif owner in ours:
        yield Finding("port", "ok", f"{settings.port} is used by a Squish server, process {owner}")
    else:
        fix = f"squish serve --port {min(settings.port + 1, 65535)}"
        yield Finding("port", "warning", f"{settings.port} is used by {_describe(owner)}", fix)


def _listener(port: int) -> int | None:
    """The process that listens on a TCP port; 0 where that cannot be known; None when nobody does."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return connection.pid or 0
        return None
    except psutil.AccessDenied:  # macOS tells only the administrator
        return 0 if ports.is_taken("127.0.0.1", port) else None


def _describe(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()}, process {pid}" if pid else "another process"
    except psutil.Error:
        return f"process {pid}"

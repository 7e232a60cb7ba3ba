"""Servers of models that run on this machine: those of this home, and what listens where other programs usually do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from squish.errors import RemoteError, SquishError
from squish.system import servers

PORTS = (11435, 11434, 8080, 1234)
"""Squish, Ollama, llama-server and mlx_lm.server, LM Studio."""
_PATIENCE = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class NearbyServer:
    """program: what answers there, for people. key: that of servers of this home; no other program gets it."""

    url: str
    program: str
    key: str = field(default="", repr=False)


async def nearby(home: Path, key: str, ports: tuple[int, ...] = PORTS) -> list[NearbyServer]:
    """Those that answer now; one that wants a key that is not known here is left out. key: of this home's servers."""
    own = {each.url for each in await asyncio.to_thread(servers.servers, home) if each.url}
    urls = dict.fromkeys([*sorted(own), *(f"http://127.0.0.1:{port}" for port in ports)])
    found = await asyncio.gather(*(_found(url, key if url in own else "") for url in urls))
    return [each for each in found if each is not None]


async def _found(url: str, key: str) -> NearbyServer | None:
    with suppress(SquishError):
        return await look(url, key) if await _listens(url) else None
    return None


async def _listens(url: str) -> bool:
    """Whether anything is there: where nothing is, the HTTP client is not even imported."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def look(url: str, key: str = "") -> NearbyServer:
    """What answers at an address. Raises RemoteError."""
    from squish.remote.connection import ServerConnection
    from squish.remote.identify import identify

    connection = ServerConnection(url, key)
    try:
        async with asyncio.timeout(_PATIENCE):
            return NearbyServer(url, (await identify(connection)).program, key)
    except TimeoutError:
        raise RemoteError(f"{connection.name} did not answer within {_PATIENCE:.0f} s.") from None
    finally:
        await connection.close()

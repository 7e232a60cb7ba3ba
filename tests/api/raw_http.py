"""Plain HTTP over a socket, for what clients hide, and a server whose engine is the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from squish.api.serving.opening import Opening
from squish.api.serving.options import Options
from squish.api.serving.server import Address
from squish.config.settings import Settings
from tests.api.scripted import ScriptedSessions, scripted_runtime, serving
from tests.later import openai

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@dataclass
class Server:
    address: Address
    sessions: ScriptedSessions


@asynccontextmanager
async def scripted(
    settings: Settings, options: Options | None = None, opening: Opening | None = None
) -> AsyncIterator[Server]:
    runtime, sessions = scripted_runtime(settings)
    async with serving(runtime, options, opening=opening) as address:
        yield Server(address, sessions)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/json"
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return found


def request_bytes(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"host": "localhost", "connection": "close", "content-length": str(len(data))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


@asynccontextmanager
async def connected(server: Server, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    try:
        writer.write(data)
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    async with connected(server, request_bytes(method, path, body, **headers)) as (reader, _):
        return parse(await reader.read())


def parse(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return Answer(int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body)


def client(server: Server, key: str = "any") -> openai.AsyncOpenAI:
    """OpenAI's own client, to be closed."""
    return openai.AsyncOpenAI(base_url=f"{server.address.url}/v1", api_key=key, max_retries=0)

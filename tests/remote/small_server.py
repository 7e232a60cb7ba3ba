"""A small HTTP server for the tests: what it answers, and how badly, stands in a table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from squish.system.ports import stop_listening

Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(body: Any, status: str = "200 OK", kind: str = "application/json", *headers: str) -> bytes:
    """A whole response; a body that is not bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
NOT_FOUND = reply({"error": {"message": "no such path"}}, "404 Not Found")
MODELS = reply({"data": [{"id": "m", "owned_by": "somebody"}]})


def chunk(**delta: Any) -> bytes:
    return event({"choices": [{"delta": delta}]})


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@dataclass
class SmallServer:
    """answers: by method and path. seen: the requests that came, their heads as they were and their bodies."""

    answers: dict[str, Answer]
    url: str = ""
    seen: list[tuple[str, Any]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)  # a client has closed its connection

    running: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            self.running.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x16":  # a client that begins with TLS
            writer.write(reply({}, "400 Bad Request"))
            return
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        sizes = [int(each[15:]) for each in head.split("\r\n") if each.lower().startswith("content-length:")]
        body = await reader.readexactly(sizes[0]) if sizes else b""
        self.seen.append((head, json.loads(body) if body else None))
        method, path, _ = head.split(" ", 2)
        answer = self.answers.get(f"{method} {path}", NOT_FOUND)
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            try:
                await answer(reader, writer)
                await reader.read()
            finally:  # also by a reset: who closes a connection with something unread in it sends one
                self.left.set()


@asynccontextmanager
async def small_server(answers: dict[str, Answer]) -> AsyncIterator[SmallServer]:
    server = SmallServer({"GET /v1/models": MODELS, **answers})
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        await stop_listening(listening)
        for each in tuple(server.running):
            each.cancel()
        await asyncio.gather(*server.running, return_exceptions=True)

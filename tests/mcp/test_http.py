"""Streamable HTTP on loopback: answers as JSON and as events, sessions, refusals, and streams that break off."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.errors import McpError
from squish.mcp.http import HttpTransport
from squish.mcp.sse import Event, EventReader, EventTooLarge
from squish.mcp.toolbox import Toolbox
from squish.mcp.transport import ServerLog

ECHO = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}


class Server(ThreadingHTTPServer):
    """faults: named in the tests that want them. seen: (method, path, headers) of every request."""

    daemon_threads = True

    def __init__(self, faults: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.seen = faults, list[tuple[str, str, dict[str, str]]]()
        self.sessions = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mcp"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _note(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))

    def do_DELETE(self) -> None:
        self._note()
        self._send(204)

    def do_GET(self) -> None:
        self._note()
        if self.headers.get("Last-Event-ID") == "7":
            self._stream(f"id: 8\ndata: {json.dumps(self._answer({'id': 3, 'method': 'tools/call'}))}\n\n")
        else:
            self._send(405)

    def do_POST(self) -> None:
        self._note()
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        faults, method = self.server.faults, message["method"]
        if "moved" in faults and not self.path.endswith("/"):
            self._send(307, location=f"{self.path}/")
        elif "elsewhere" in faults:
            self._send(307, location="http://127.0.0.2:9/mcp")
        elif "key" in faults and self.headers.get("Authorization") != "Bearer s3cret":
            self._send(401)
        elif "no-mcp" in faults:
            self._send(200, b"<html>hello</html>", "text/html")
        elif "stateless" in faults and self.headers.get("Mcp-Method") != method:
            error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32022, "message": "Unsupported"}}
            self._send(400, json.dumps(error).encode())
        elif method == "tools/call" and "forgets" in faults and self.server.sessions == 1:
            self._send(404)
        elif "id" not in message:
            self._send(202)
        elif method == "tools/call" and "breaks" in faults:
            self._stream("id: 7\nretry: 1\ndata:\n\n")
        elif "events" in faults:
            self._stream(f": hello\n\nevent: message\ndata: {json.dumps(self._answer(message))}\n\n")
        else:
            self._send(200, json.dumps(self._answer(message)).encode(), session=method == "initialize")

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        params = message.get("params", {})
        match message["method"]:
            case "initialize":
                result: dict[str, Any] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            case "server/discover":
                result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
            case "tools/list":
                result = {"tools": [ECHO]}
            case _:
                text = params.get("arguments", {}).get("text", "taken up again")
                result = {"content": [{"type": "text", "text": text}]}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def _send(
        self, status: int, body: bytes = b"", kind: str = "application/json", *, location: str = "",
        session: bool = False,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        if session:
            self.server.sessions += 1
            self.send_header("Mcp-Session-Id", f"session-{self.server.sessions}")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(events.encode())
        self.close_connection = True


@contextmanager
def serving(*faults: str) -> Iterator[Server]:
    with Server(set(faults)) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def toolbox(server: Server, home: Path, **more: Any) -> AsyncIterator[Toolbox]:
    there = McpServer(url=server.url, **more)
    box = Toolbox(Settings(home=home, cache_dir=home, mcp=(("web", there),)), home)
    try:
        yield box
    finally:
        await box.close()


async def echo(box: Toolbox, text: str = "hi") -> str:
    (tool,) = await box.tools("web")
    return (await box.call(tool, json.dumps({"text": text}))).text


@pytest.mark.parametrize("faults", [(), ("events",), ("moved",)])
async def test_tools_are_listed_and_called(faults: tuple[str, ...], tmp_path: Path) -> None:
    with serving(*faults) as server:
        async with toolbox(server, tmp_path) as box:
            assert await echo(box, "grüß dich") == "grüß dich"


async def test_a_session_is_named_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    with serving() as server:
        async with toolbox(server, tmp_path) as box:
            await echo(box)
    first, *later = server.seen
    assert "mcp-session-id" not in first[2]
    assert {headers.get("mcp-session-id") for _, _, headers in later} == {"session-1"}
    assert {headers.get("mcp-protocol-version") for _, _, headers in later} == {"2025-06-18"}
    assert "DELETE" in [method for method, _, _ in later]


async def test_a_session_that_the_server_has_forgotten_is_begun_anew(tmp_path: Path) -> None:
    with serving("forgets") as server:
        async with toolbox(server, tmp_path) as box:
            assert await echo(box) == "web: its session has ended."
            assert await echo(box) == "hi"


async def test_a_stream_that_breaks_off_is_taken_up_again(tmp_path: Path) -> None:
    with serving("breaks") as server:
        async with toolbox(server, tmp_path) as box:
            assert await echo(box) == "taken up again"


async def test_a_server_without_a_handshake_gets_what_it_needs_in_headers(tmp_path: Path) -> None:
    with serving("stateless") as server:
        async with toolbox(server, tmp_path) as box:
            assert await echo(box) == "hi"
    _, _, headers = server.seen[-1]
    assert headers["mcp-name"] == "echo"
    assert headers["mcp-protocol-version"] == "2026-07-28"


async def test_a_key_comes_from_a_file_and_is_in_no_log(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    with serving("key") as server:
        async with toolbox(server, tmp_path, headers={"Authorization": f"Bearer ${{file:{key}}}"}) as box:
            assert await echo(box) == "hi"
            assert "s3cret" not in repr(box._settings)
        async with toolbox(server, tmp_path, headers={"Authorization": "Bearer wr0ng"}) as box:
            with pytest.raises(McpError) as failure:
                await box.tools("web")
            box.log_path.parent.mkdir(exist_ok=True)
            logs = "".join(each.read_text() for each in box.log_path.parent.iterdir())
    assert failure.value.message == "web: it refuses access (401)."
    assert "s3cret" not in logs
    assert "wr0ng" not in logs


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no-mcp", r"web: it answered 200 with text/html instead of JSON\."),
        ("elsewhere", r"web: it redirects to http://127\.0\.0\.2:9/mcp\."),
    ],
)
async def test_what_a_server_does_badly_is_one_sentence(fault: str, said: str, tmp_path: Path) -> None:
    with serving(fault) as server:
        async with toolbox(server, tmp_path) as box:
            with pytest.raises(McpError, match=said):
                await box.tools("web")


async def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with serving() as server:
        pass
    async with toolbox(server, tmp_path) as box:
        with pytest.raises(McpError, match=r"web: it cannot be reached: .+\."):
            await box.tools("web")


def read(*pieces: bytes) -> list[Event]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def test_events_are_the_same_however_they_are_cut() -> None:
    stream = b": hi\r\n\r\nid: 1\r\ndata: a\r\ndata: b\r\n\r\nevent: x\ndata:c\nretry: 30\n\n: only\n\ndata\r\r"
    whole = read(stream + b"\n")
    assert whole == [Event(b"a\nb", "1"), Event(b"c", "1", 30), Event(b"", "1")]
    for at in range(len(stream)):
        assert read(stream[:at], stream[at:], b"\n") == whole
    assert read(*(bytes([each]) for each in stream), b"\n") == whole


def test_an_event_without_end_is_given_up() -> None:
    reader = EventReader()
    with pytest.raises(EventTooLarge):
        for _ in range(200):
            list(reader.feed(b"x" * (1 << 16)))


async def test_who_gives_up_the_goodbye_leaves_no_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        transport = HttpTransport(
            McpServer(url=f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"), ServerLog(tmp_path / "mcp.log", "test")
        )
        await transport.start(lambda message: None, lambda error: None)
        transport._session = "one"
        client = transport._client
        closing = asyncio.create_task(transport.close())
        peer, _ = await asyncio.get_running_loop().sock_accept(silent)
        with peer:
            assert await asyncio.get_running_loop().sock_recv(peer, 6) == b"DELETE"
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert client is not None and client.is_closed, "also what else it has connected"

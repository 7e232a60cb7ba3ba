"""Headers that are too large, malformed, smuggled, slow or left in the middle."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from squish.api.serving.options import Options, Patience
from squish.config.settings import Settings
from tests.api.raw_http import Answer, Server, ask, connected, parse, request_bytes
from tests.hostile.conftest import Attacked, attacked, unharmed
from tests.hostile.spoken import SPOKEN, Spoken, for_each, ollama_error, openai_error

HOST = b"Host: localhost\r\n"
KEY = b"Authorization: Bearer right-key\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def guarded(
    key: str | None, servers: dict[str | None, Attacked], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Attacked]:
    async for each in unharmed(servers[key], caplog):
        yield each


async def send(server: Server, data: bytes) -> list[Answer]:
    """Send bytes and read all answers until the server closes."""
    async with connected(server, data) as (reader, writer):
        writer.write_eof()
        received = await reader.read()
    *parts, last = re.split(rb"HTTP/1\.1 (?=[2-5])", received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))[1:]
    return [parse(b"HTTP/1.1 " + part) for part in (*parts, last)]


HEADS: dict[str, bytes] = {
    "no host": b"",
    "two hosts": HOST + b"Host: evil.example\r\n",
    "a host with a user": b"Host: a@b\r\n",
    "a host with a path": b"Host: localhost/x\r\n",
    "a host that is a number of another script": "Host: localhost:٣\r\n".encode(),
    "too large": HOST + b"X-Large: " + b"x" * 20_000 + b"\r\n",
    "too many": HOST + b"".join(b"X-%d: y\r\n" % i for i in range(2000)),
    "a null byte": HOST + b"X: a\x00b\r\n",
    "a bare carriage return": HOST + b"X: a\rContent-Length: 5\r\n",
    "a bare line feed": HOST + b"X: a\nContent-Length: 5\r\n",
    "an escape": HOST + b"X: \x1b]52;c;eA==\x07\r\n",
    "a folded line": HOST + b"X: a\r\n b\r\n",
    "a space before the colon": HOST + b"Content-Length : 5\r\n",
    "no name": HOST + b": 5\r\n",
    "no colon": HOST + b"nonsense\r\n",
    "a name in Unicode": HOST + "Cöntent-Length: 5\r\n".encode(),
    "two lengths": HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "a list of lengths": HOST + b"Content-Length: 5, 5\r\n",
    "a negative length": HOST + b"Content-Length: -1\r\n",
    "a signed length": HOST + b"Content-Length: +5\r\n",
    "a length with an underscore": HOST + b"Content-Length: 1_0\r\n",
    "a length of another script": HOST + "Content-Length: ٣\r\n".encode(),
    "a superscript length": HOST + b"Content-Length: \xb2\r\n",
    "a huge length": HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "a hexadecimal length": HOST + b"Content-Length: 0x5\r\n",
    "length and chunks": HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "chunks and length": HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "two codings": HOST + b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked twice": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "identity": HOST + b"Transfer-Encoding: identity\r\n",
    "a coding in disguise": HOST + b"Transfer-Encoding: xchunked\r\n",
    "a coding behind a tab": HOST + b"Transfer-Encoding:\x0bchunked\r\n",
    "a compressed body": HOST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n",
    "an unknown expectation": HOST + b"Expect: the best\r\nContent-Length: 2\r\n",
    "two expectations": HOST + b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 2\r\n",
    "two keys": HOST + b"Authorization: Bearer x\r\nAuthorization: Bearer y\r\n",
    "two media types": HOST + b"Content-Type: text/plain\r\nContent-Type: application/json\r\n",
    "a byte that is no text": HOST + b"\xff: x\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@for_each(*SPOKEN)
async def test_a_doubtful_header(guarded: Server, key: str | None, spoken: Spoken, head: bytes) -> None:
    line = b"POST " + spoken.path.encode() + b" HTTP/1.1\r\n"
    data = line + (KEY if key and b"Authorization" not in head else b"") + head + b"\r\n{}" + SMUGGLED
    answers = await send(guarded, data)
    assert len(answers) == 1, "what followed was taken for another request"
    assert answers[0].status in ((400, 401, 413, 415, 417) if "Authorization" in str(head) else (400, 413, 415, 417))
    spoken.error(answers[0].status, json.loads(answers[0].body))
    assert guarded.sessions.requests == []


LINES = (
    b"",
    b"\x00",
    b"nonsense",
    b"GET",
    b"GET /",
    b"GET  / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b" GET / HTTP/1.1",
    b"GET /\tx HTTP/1.1",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"PRI * HTTP/2.0",
    b"GET / http/1.1",
    b"G\x80T / HTTP/1.1",
    b"GET /\xff HTTP/1.1",
    b"GET http://[ HTTP/1.1",
    b"GET //[ HTTP/1.1",
    b"GET ? HTTP/1.1",
    b"GET " + b"/x" * 9000 + b" HTTP/1.1",
    b"GET /%00%zz%ff%c0%af HTTP/1.1",
    b"GET /../../etc/passwd HTTP/1.1",
    b"GET /v1/models/%2e%2e%2f HTTP/1.1",
    b"CONNECT evil.example:443 HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"BREW /v1/models HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.6",
    b"EHLO x",
    b"\xff" * 4000,
)


@pytest.mark.parametrize("line", LINES, ids=lambda line: ascii(line[:24]))
async def test_a_strange_first_line(guarded: Server, key: str | None, line: bytes) -> None:
    [answer] = await send(guarded, line + b"\r\n" + HOST + KEY + b"Connection: close\r\n\r\n")
    assert 400 <= answer.status < 500
    body = json.loads(answer.body)
    (ollama_error if isinstance(body["error"], str) else openai_error)(answer.status, body)  # Ollama has the path /


CHUNKS: dict[str, bytes] = {
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a signed size": b"+2\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "a size of another script": "٢\r\n{}\r\n0\r\n\r\n".encode(),
    "a huge size": b"F" * 16 + b"\r\n{}\r\n0\r\n\r\n",
    "an endless size": b"0" * 100_000,
    "a space before the size": b" 2\r\n{}\r\n0\r\n\r\n",
    "a size that is too small": b"1\r\n{}\r\n0\r\n\r\n",
    "no line break after a chunk": b"2\r\n{}XX0\r\n\r\n",
    "a bare line feed": b"2\n{}\n0\n\n",
    "an extension with a line feed": b"2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "a trailer": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a request as a trailer": b"2\r\n{}\r\n0\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize("path", [SPOKEN[0].path, "/nope"])
async def test_doubtful_chunks(server: Server, path: str, chunks: bytes) -> None:
    head = b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    answers = await send(server, head + chunks + SMUGGLED)
    assert [answer.status for answer in answers] == [400 if path != "/nope" else 404]
    SPOKEN[0].error(answers[0].status, json.loads(answers[0].body))
    assert server.sessions.requests == []


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one, two = (request_bytes("POST", each.path, each.good, connection="keep-alive") for each in SPOKEN[:2])
    answers = await send(server, one + two + request_bytes("GET", "/nope"))
    assert [answer.status for answer in answers] == [200, 200, 404]


@pytest.mark.parametrize("reset", [False, True])
async def test_whoever_leaves_anywhere_leaves_nothing(guarded: Server, reset: bool) -> None:
    """Every TCP probe does it: in the first line, in a header, in a body, in a chunk."""
    whole = request_bytes("POST", SPOKEN[0].path, SPOKEN[0].good)
    chunked = b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    def leave(data: bytes) -> None:
        with socket.create_connection((guarded.address.host, guarded.address.port)) as client:
            client.sendall(data)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for data in (whole, chunked, b"GET / HTTP/9\r\n\r\n" + b"x" * 100):
        for cut in range(0, len(data), 7):
            await asyncio.to_thread(leave, data[:cut])
    assert (await ask(guarded, "GET", "/health")).status == 200


async def test_the_server_ends_while_headers_and_bodies_are_on_their_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = request_bytes("POST", SPOKEN[0].path, SPOKEN[0].good)
    writers: list[asyncio.StreamWriter] = []
    async for server in attacked(Settings(home=tmp_path, cache_dir=tmp_path / "models"), caplog):
        for cut in (0, 1, 30, len(whole) - 3):
            writers.append((await asyncio.open_connection(server.address.host, server.address.port))[1])
            writers[-1].write(whole[:cut])
            await writers[-1].drain()
        assert (await ask(server, "GET", "/health")).status == 200
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


DRIPPED = {
    "nothing": b"",
    "header": b"POST /v1/completions HTTP/1.1\r\n",
    "body": request_bytes("POST", "/v1/completions", None, **{"content-length": "99999"}),
    "chunk": b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
}


HURRIED = Options(patience=Patience(header=0.1, body=0.1, send=0.1))


@pytest_asyncio.fixture(loop_scope="module")
async def hurried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Server]:
    """Only what drips is sent to it: on a machine that stands still for a moment every request would be late."""
    async for each in attacked(Settings(home=tmp_path, cache_dir=tmp_path / "models"), caplog, HURRIED):
        yield each


@pytest.mark.parametrize("drop", [b"x", b"x: y\r\n", b"\r\n", b"\x00"])
@pytest.mark.parametrize("begun", DRIPPED.values(), ids=DRIPPED.keys())
async def test_a_client_that_drips_is_left(hurried: Server, begun: bytes, drop: bytes) -> None:
    async with connected(hurried, begun) as (reader, writer):
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            writer.write(drop)
            await asyncio.sleep(0.01)
        await asyncio.gather(reading, return_exceptions=True)  # its last word can be lost to our next drop
    assert hurried.sessions.requests == []

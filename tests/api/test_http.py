"""HTTP as it is on the wire: doubtful headers, bodies that are too large, what is said about a wrong request."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squish.api.openai import translate
from squish.api.openai.requests import ChatRequest
from squish.api.transport.connection import MAX_BODY
from squish.config.settings import Settings
from squish.generation import GenerationRequest
from tests.api.raw_http import CHAT, Answer, Server, ask, connected, parse, request_bytes, scripted
from tests.conftest import PATIENCE

HOST = b"Host: localhost\r\n"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models")) as running:
        yield running


async def send(server: Server, data: bytes) -> Answer:
    """Send bytes and read until the server closes."""
    async with connected(server, data) as (reader, _):
        return parse(await reader.read())


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (b"", 400, "Host is missing"),
        (HOST + HOST, 400, "Host appears twice"),
        (b"Host: a@localhost\r\n", 400, "'a@localhost'"),
        (b"Host:\r\n", 400, "a name or an address"),
        (HOST + b"X-Note: a\x00b\r\n", 400, "'X-Note' has a control character"),
        (HOST + b"X-Note: a\nb\r\n", 400, "'X-Note' has a control character"),
        (HOST + b"X-Note : a\r\n", 400, "'X-Note : a' is not a header"),
        (HOST + b"X-Note: a\r\n b\r\n", 400, "' b' is not a header"),
        (HOST + b"no header at all\r\n", 400, "'no header at all' is not a header"),
        (HOST + b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n", 400, "Authorization appears twice"),
        (HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n", 400, "Content-Length appears twice"),
        (HOST + b"Content-Length : 2\r\n", 400, "is not a header"),
        (HOST + b"Content-Length: two\r\n", 400, "'two'"),
        (HOST + b"Content-Length: +2\r\n", 400, "'+2'"),
        (HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400, "exclude each other"),
        (HOST + b"Transfer-Encoding: gzip\r\n", 400, "chunked"),
        (HOST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n", 415, "'gzip' is not read"),
        (HOST + b"Expect: the best\r\nContent-Length: 2\r\n", 417, "100-continue"),
        (HOST + b"Expect: \xff\r\nContent-Length: 2\r\n", 417, "100-continue"),
        (HOST + b"X-Note: " + b"x" * 20_000 + b"\r\n", 413, "larger than 16 kB"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_doubtful_header_is_refused_with_its_reason(
    server: Server, head: bytes, status: int, reason: str
) -> None:
    answer = await send(server, b"POST /v1/completions HTTP/1.1\r\n" + head + b"\r\n{}")
    assert answer.status == status
    assert reason in answer.error["message"]
    assert answer.headers["connection"] == "close"
    assert server.sessions.requests == []


@pytest.mark.parametrize("line", [b"nonsense", b"GET /health", b"GET  /health HTTP/1.1", b"PRI * HTTP/2.0"])
async def test_a_first_line_that_is_none(server: Server, line: bytes) -> None:
    answer = await send(server, line + b"\r\n" + HOST + b"\r\n")
    assert answer.status == 400
    assert "The first line is not an HTTP/1.1 request" in answer.error["message"]


async def test_headers_that_are_rare_and_right(server: Server) -> None:
    for head in (HOST + b"X-Note:\r\n", b"Host: [::1]:80\r\n", b"hOST:\tlocalhost:\t\r\n", HOST + b"X-Note: \xff\r\n"):
        answer = await send(server, b"GET /health HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n")
        assert answer.status == 200
    assert (await send(server, b"GET /health HTTP/1.0\r\n\r\n")).status == 200
    assert (await send(server, b"\r\n\r\nGET /health HTTP/1.0\r\n\r\n")).status == 200
    encoded = {"content-encoding": "identity"}
    assert (await ask(server, "POST", "/v1/completions", {"model": "m"}, **encoded)).error["param"] == "prompt"


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: Chunked\r\n",
        b"Transfer-Encoding: \tCHUNKED \r\nConnection: Close\r\n",
        b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Type: Application/JSON; Charset=UTF-8\r\n",
        b"transfer-encoding: chunked\r\nContent-Encoding: Identity\r\n",
    ],
)
async def test_words_of_headers_have_no_case(server: Server, head: bytes) -> None:
    body = b'1\r\n{\r\nB;note=x\r\n"model":"m"\r\n00001\r\n}\r\n0\r\n\r\n'
    closing = b"" if b"Close" in head else b"connection: CLOSE\r\n"
    data = b"POST /v1/completions HTTP/1.1\r\n" + HOST + closing + head + b"\r\n" + body
    async with connected(server, data) as (reader, _):
        answer = parse((await reader.read()).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert answer.error["param"] == "prompt"


async def test_a_connection_stays_open_as_its_options_say(server: Server) -> None:
    kept = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, Keep-Alive\r\nUpgrade: h2c\r\n\r\n"
    old = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: te\r\nConnection: CLOSE\r\n\r\n"
    async with connected(server, kept + old + last + kept) as (reader, _):
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("path", ["/v1/completions", "/nope"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_whoever_sends_too_much_can_read_that_it_is_too_much(server: Server, path: str, chunked: bool) -> None:
    size = MAX_BODY + 1_000_000
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    body = b"%x\r\n" % size + b" " * size if chunked else b" " * size

    def blindly() -> bytes:
        """Send all of it before a single byte is read, as simple clients do."""
        with socket.create_connection((server.address.host, server.address.port)) as client:
            client.settimeout(PATIENCE)
            client.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + length + b"\r\n\r\n" + body)
            received = b""
            while part := client.recv(65536):
                received += part
            return received

    answer = parse(await asyncio.to_thread(blindly))
    assert answer.status == (413 if path == "/v1/completions" else 404)
    assert answer.error["message"]


async def test_a_body_that_is_announced_too_large_is_not_asked_for(server: Server) -> None:
    large = {"content-length": str(MAX_BODY + 1), "expect": "100-continue"}
    answer = await send(server, request_bytes("POST", "/v1/completions", **large))
    assert (answer.status, answer.error["message"]) == (413, "The request body is larger than 32 MB.")


async def test_others_are_answered_while_a_large_body_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, answered = threading.Event(), threading.Event()
    to_generation = translate.chat_to_generation

    def read_when_the_other_is_answered(request: ChatRequest) -> GenerationRequest:
        reading.set()
        assert answered.wait(PATIENCE)
        return to_generation(request)

    monkeypatch.setattr(translate, "chat_to_generation", read_when_the_other_is_answered)
    body = CHAT | {"messages": CHAT["messages"] * 10_000}  # type: ignore[operator]
    asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", body))
    assert await asyncio.to_thread(reading.wait, PATIENCE)
    assert (await ask(server, "GET", "/health")).status == 200
    answered.set()
    (await server.sessions.admitted.get()).answer("all read")
    assert b"all read" in (await asked).body


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/nope", "There is nothing at /nope. The API is at /v1/chat/completions"),
        ("GET", "/v1/chat", "There is nothing at /v1/chat."),
        ("DELETE", "/health", "DELETE is not a method of /health; use "),
        ("POST", "/v1/completions", "The request body is empty. Send a JSON object."),
    ],
)
async def test_a_refusal_says_what_to_do(server: Server, method: str, path: str, message: str) -> None:
    assert (await ask(server, method, path)).error["message"].startswith(message)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "~/x", "./here", "model.gguf", "..", "a b"])
async def test_a_path_is_no_model(server: Server, tmp_path: Path, name: str) -> None:
    answer = await ask(server, "POST", "/v1/chat/completions", CHAT | {"model": name})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert answer.error["message"] == f"The model {name!r} is not installed. GET /v1/models lists the installed models."
    quoted = name.replace("/", "%2F").replace(" ", "%20")
    assert (await ask(server, "GET", f"/v1/models/{quoted}")).error == answer.error
    assert server.sessions.requests == []


async def test_the_list_of_models_with_a_slash_at_its_end_is_the_list(server: Server) -> None:
    answers = [await ask(server, "GET", path) for path in ("/v1/models", "/v1/models/")]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body

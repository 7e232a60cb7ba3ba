"""Around every request: ids, web pages of other origins, slow and many clients, counts. The engine is the test."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from squish.api import openapi
from squish.api.access.machine import machine
from squish.api.serving.options import Options, Patience
from squish.api.serving.server import Shutdown
from squish.api.transport import refusal
from squish.config.settings import Settings
from squish.errors import WorkerDied
from squish.models.store import Store
from tests.api.raw_http import CHAT, Server, ask, connected, parse, request_bytes, scripted
from tests.api.scripted import scripted_runtime, serving
from tests.conftest import PATIENCE
from tests.models.test_store import install

PAGE = "https://app.example"


@pytest.mark.parametrize(
    ("theirs", "ours", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.1", "192.0.2.7"),
        ("::ffff:192.0.2.7", "::1", "::ffff:192.0.2.7"),
        ("2001:db8:1:2:a:b:c:d", "2001:db8:9::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:9::1", "2001:db8:1:2::/64"),
        ("2001:db8:9::7", "2001:db8:9::1", "2001:db8:9::7"),  # neighbors in one network are several machines
        ("fe80::1%eth0", "fe80::2%eth0", "fe80::1%eth0"),
        ("::1", "::1", "::1"),
        ("", "", ""),
    ],
)
def test_a_machine_with_many_addresses_takes_turns_as_one(theirs: str, ours: str, counts_as: str) -> None:
    assert machine(theirs, ours) == counts_as


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models")


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with scripted(settings) as running:
        yield running


# ---- request ids


async def test_the_clients_request_id_comes_back(server: Server) -> None:
    assert (await ask(server, "GET", "/health", **{"x-request-id": "abc-1:2"})).headers["x-request-id"] == "abc-1:2"
    for strange in ("a b", "x" * 129, "<script>"):
        answer = await ask(server, "GET", "/health", **{"x-request-id": strange})
        assert answer.headers["x-request-id"].startswith("req_")
    assert (await ask(server, "GET", "/nope", **{"x-request-id": "abc"})).headers["x-request-id"] == "abc"


# ---- web pages


async def test_without_permission_no_page_can_use_the_server(server: Server) -> None:
    answer = await ask(server, "GET", "/v1/models", origin=PAGE)
    assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    for page in (PAGE, "http://localhost:3000", "null"):
        answer = await ask(server, "OPTIONS", "/v1/chat/completions", **preflight | {"origin": page})
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        assert f"--cors-origin {page}" in answer.error["message"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for own in ("http://localhost:3000", "http://127.0.0.1:1", "app://obsidian.md", "tauri://x", "http://localhost"):
        answer = await ask(server, "GET", "/v1/models", origin=own)
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["null", "file://", "", "NULL", "data:x", "blob:null", "about:blank", "x://y", "//[x"]
)
async def test_a_page_that_says_nothing_of_its_site_is_a_foreign_one(settings: Settings, origin: str) -> None:
    simple = {"origin": origin, "content-type": "text/plain"}  # what a page may send without asking first
    async with scripted(settings) as server:
        answer = await ask(server, "POST", "/v1/completions", {"model": "m", "prompt": "x"}, **simple)
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        assert server.sessions.requests == []
    async with scripted(settings, Options(cors_origins=(origin.lower() or "*",))) as server:
        assert (await ask(server, "GET", "/v1/models", origin=origin)).status == 200


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_allowed_page(settings: Settings, key: str | None) -> None:
    async with scripted(replace(settings, api_key=key), Options(cors_origins=(PAGE,))) as server:
        preflight = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, x-stainless-os",
        }
        answer = await ask(server, "OPTIONS", "/v1/chat/completions", **preflight)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, PAGE)
        assert answer.headers["access-control-allow-headers"] == preflight["access-control-request-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        answer = await ask(server, "GET", "/v1/models", origin=PAGE, authorization="Bearer k")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert answer.headers["vary"] == "Origin"
        bad = await ask(server, "POST", "/v1/chat/completions", b"{", origin=PAGE, authorization="Bearer k")
        assert (bad.status, bad.headers["access-control-allow-origin"]) == (400, PAGE)  # or the page cannot read why
        other = await ask(server, "GET", "/health", origin="https://evil.example", authorization="Bearer k")
        assert other.status == (200 if key else 403)
        assert "access-control-allow-origin" not in other.headers


async def test_any_page_when_that_is_asked_for(settings: Settings) -> None:
    async with scripted(settings, Options(cors_origins=("*",))) as server:
        answer = await ask(server, "GET", "/v1/models", origin="https://any.example")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")


# ---- clients that are slow, large or many

# Only what is late is sent to these: on a machine that stands still for a moment every request would be.
HURRIED = Options(patience=Patience(header=0.1, body=0.1))
MUST_READ = Options(patience=Patience(send=0.1))
FEW = Options(patience=Patience(connections=3))


async def test_a_header_that_never_ends(settings: Settings) -> None:
    async with scripted(settings, HURRIED) as server:
        for _ in range(2):
            async with connected(server, b"GET /health HTTP/1.1\r\nhost: x\r\n") as (reader, _):
                assert parse(await reader.read()).error["code"] == "request_timeout"


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes) -> None:
    """Send drop after drop until the server has had enough."""
    reading = asyncio.create_task(reader.read())
    while not reading.done():
        writer.write(drop)
        await asyncio.sleep(0.01)
    await asyncio.gather(reading, return_exceptions=True)  # its last word can be lost to our next drop


async def test_a_header_that_drips(settings: Settings) -> None:
    async with scripted(settings, HURRIED) as server:
        async with connected(server, b"GET /health HTTP/1.1\r\n") as (reader, writer):
            await cut_off(reader, writer, b"x: y\r\n")


async def test_a_body_that_never_comes_or_drips(settings: Settings) -> None:
    async with scripted(settings, HURRIED) as server:
        head = request_bytes("POST", "/v1/completions", **{"content-length": "100000"})
        async with connected(server, head) as (reader, _):
            assert parse(await reader.read()).error["code"] == "request_timeout"
        async with connected(server, head) as (reader, writer):
            await cut_off(reader, writer, b"x")
        refused = request_bytes("POST", "/nope", **{"content-length": "100000", "connection": "keep-alive"})
        async with connected(server, refused) as (reader, writer):
            await cut_off(reader, writer, b"x")
    assert server.sessions.requests == []


async def test_a_client_that_does_not_read_loses_its_place(settings: Settings) -> None:
    async with scripted(settings, MUST_READ) as server:
        async with connected(server, request_bytes("POST", "/v1/chat/completions", CHAT | {"stream": True})) as _:
            script = await server.sessions.admitted.get()
            script.accept()
            for _ in range(400):
                script.say("x" * 100_000)
            assert await server.sessions.cancelled.get() is script.generation


async def test_a_header_that_is_too_large(server: Server) -> None:
    async with connected(server, request_bytes("GET", "/health", **{"x-large": "y" * 20_000})) as (reader, _):
        answer = parse(await reader.read())
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


async def test_one_connection_too_many(settings: Settings) -> None:
    async with scripted(settings, FEW) as server:
        head = request_bytes("POST", "/v1/chat/completions", CHAT)
        async with connected(server, head), connected(server, head), connected(server, head):
            for _ in range(3):
                await server.sessions.admitted.get()
            answer = await ask(server, "GET", "/health")
            assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        for _ in range(3):
            await server.sessions.cancelled.get()
        assert (await ask(server, "GET", "/health")).status == 200


@asynccontextmanager
async def full(settings: Settings) -> AsyncIterator[Server]:
    """A server that has all the connections that it takes."""
    head = request_bytes("POST", "/v1/chat/completions", CHAT)
    async with scripted(settings, FEW) as server:
        async with connected(server, head), connected(server, head), connected(server, head):
            for _ in range(3):
                await server.sessions.admitted.get()
            yield server


def one_too_many(server: Server) -> socket.socket:
    """A client that has asked before anybody looks: a close beside what is unread would be a reset."""
    client = socket.create_connection((server.address.host, server.address.port))
    client.sendall(request_bytes("GET", "/health"))
    client.setblocking(False)
    return client


async def read_to_the_end(client: socket.socket) -> bytes:
    data = b""
    while part := await asyncio.get_running_loop().sock_recv(client, 65536):
        data += part
    return data


async def is_reset(client: socket.socket) -> None:
    """Wait until the other side has let go."""
    with suppress(ConnectionError):
        while True:
            client.send(b"x")
            await asyncio.sleep(0.005)


async def test_who_is_refused_can_read_why_whatever_it_has_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "_MOMENT", PATIENCE)
    async with full(settings) as server:
        for _ in range(20):
            with one_too_many(server) as client:
                assert parse(await read_to_the_end(client)).error["code"] == "too_many_connections"


async def test_who_is_refused_and_stays_is_ended_with_the_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "_MOMENT", PATIENCE)
    async with full(settings) as server:
        client = one_too_many(server)
        await read_to_the_end(client)
        client.send(b"it is still read")
    with client:
        await is_reset(client)


async def test_of_very_many_who_are_refused_some_are_closed_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "_MOMENT", PATIENCE)
    monkeypatch.setattr(refusal, "_MOST", 1)
    async with full(settings) as server:
        with one_too_many(server) as first, one_too_many(server) as second:
            await is_reset(second)
            assert parse(await read_to_the_end(first)).error["code"] == "too_many_connections"


async def test_who_is_refused_and_stays_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "_MOMENT", 0.0)
    async with full(settings) as server:
        with one_too_many(server) as client:
            await is_reset(client)


async def test_a_thousand_bad_requests_leave_nothing_behind(server: Server) -> None:
    bodies = (b"{", b"[]", b'{"model": 3}', b'{"model": "m", "messages": []}', b"\xff" * 2000, b"[" * 5000)
    raw = (b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\ncontent-length: x\r\n\r\n")

    async def bad(number: int) -> None:
        if number % 4 == 0:
            async with connected(server, raw[number % len(raw)]) as (reader, _):
                assert parse(await reader.read()).status == 400
        else:
            answer = await ask(server, "POST", "/v1/chat/completions", bodies[number % len(bodies)])
            assert answer.status == 400

    async def rounds(count: int) -> None:
        for start in range(0, count, 20):
            await asyncio.gather(*(bad(start + i) for i in range(20)))

    process = psutil.Process()

    async def held() -> tuple[int, int]:
        """Descriptors, and blocks of Python's own heap, when what is over has been collected."""
        assert (await ask(server, "GET", "/health")).status == 200
        gc.collect()
        return process.num_fds(), sys.getallocatedblocks()

    await rounds(300)  # what is made once is made now
    descriptors, blocks = await held()
    await rounds(1000)
    after = await held()
    assert after[0] <= descriptors + 2
    assert after[1] - blocks < 3 * 1000, "a request that is kept has many more"
    assert (await ask(server, "GET", "/health")).status == 200


# ---- counts, logs, the document


async def test_metrics_count_requests_tokens_and_models(settings: Settings, server: Server) -> None:
    asked = asyncio.create_task(ask(server, "POST", "/v1/completions", {"model": "m", "prompt": "x"}))
    (await server.sessions.admitted.get()).answer("quiet")
    await asked
    install(Store(settings.cache_dir), "vectors")
    await ask(server, "POST", "/v1/embeddings", {"model": "vectors:latest", "input": ["a", "b"]})
    await ask(server, "GET", "/nope")
    await ask(server, "BREW", "/health")
    answer = await ask(server, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    assert found["squish_http_requests_total", "POST", "/v1/completions", "200"] == 1
    assert found["squish_embedding_tokens_total", "vectors"] == 6
    assert found["squish_http_requests_total", "GET", "other", "404"] == 1
    assert found["squish_http_requests_total", "other", "other", "405"] == 1
    expected = {
        "prompt_tokens_total": 7, "cached_prompt_tokens_total": 3, "completion_tokens_total": 2,
        "prefix_cache_hits_total": 1, "time_to_first_token_seconds_count": 1, "time_per_token_seconds_sum": 0.2,
        "queue_depth": 2, "running_requests": 1, "model_loaded": 1, "model_weights_bytes": 1000,
    }  # fmt: skip
    assert {name: found[f"squish_{name}", "m"] for name in expected} == expected


async def test_a_stream_that_broke_is_counted_and_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = request_bytes("POST", "/v1/chat/completions", CHAT | {"stream": True})
    async with connected(server, data) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept()
        script.say("Hel")
        script.fail(WorkerDied("The worker died."))
        await reader.read()
    text = (await ask(server, "GET", "/metrics")).body.decode()
    assert 'squish_generation_failures_total{code="worker_died",model="m"} 1.0' in text
    lines = [record.getMessage() for record in caplog.records if record.name == "squish.access"]
    assert " 200 " in lines[0]
    assert lines[0].endswith(" error=worker_died")


async def test_routes_are_counted_under_the_names_of_the_document(server: Server) -> None:
    for path in ("/v1/models/nothing:1b", "/v1/models/org/repo", "/v1/models"):
        await ask(server, "GET", path)
    text = (await ask(server, "GET", "/metrics")).body.decode()
    assert 'squish_http_requests_total{method="GET",route="/v1/models/{id}",status="404"} 2.0' in text
    assert 'squish_http_requests_total{method="GET",route="/v1/models",status="200"} 1.0' in text


async def test_metrics_need_the_key(settings: Settings) -> None:
    async with scripted(replace(settings, api_key="k")) as server:
        assert (await ask(server, "GET", "/metrics")).status == 401
        assert (await ask(server, "GET", "/metrics", authorization="Bearer k")).status == 200


async def test_what_was_no_http_is_in_the_log_too(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "squish.access")
    async with connected(server, b"nonsense\r\n\r\n") as (reader, _):
        await reader.read()
    assert "127.0.0.1 NONE * 400 " in caplog.text
    caplog.clear()
    assert (await ask(server, "POST", "/v1/completions", {}, **{"content-encoding": "gzip"})).status == 415
    assert "127.0.0.1 POST /v1/completions 415 " in caplog.text


def test_every_path_of_the_document_is_a_route(settings: Settings) -> None:
    from squish.api.app import build_app

    app = build_app(scripted_runtime(settings)[0], Options())
    routes = {re.sub(r"<(?:__)?(\w+?)(?:__)?(:\w+)?>", r"{\1}", f"/{route.path}") for route in app.router.routes}
    assert routes == set(openapi.openapi()["paths"])


# ---- the end


async def test_a_request_in_flight_is_answered_before_the_server_ends(settings: Settings) -> None:
    runtime, sessions = scripted_runtime(settings)
    stop = Shutdown(drain=60)
    async with serving(runtime, stop=stop) as address:
        server = Server(address, sessions)
        asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT))
        script = await sessions.admitted.get()
        assert stop.ask()
        while await listens(server):
            await asyncio.sleep(0.01)
        script.answer("done")
        answer: Any = json.loads((await asked).body)
        assert answer["choices"][0]["message"]["content"] == "done"


async def test_asked_twice_the_server_ends_at_once(settings: Settings) -> None:
    runtime, sessions = scripted_runtime(settings)
    stop = Shutdown(drain=600)
    async with serving(runtime, stop=stop) as address:
        async with connected(Server(address, sessions), request_bytes("POST", "/v1/chat/completions", CHAT)):
            await sessions.admitted.get()
            assert stop.ask()
            assert not stop.ask()
            await sessions.cancelled.get()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_broken_off_says_so(settings: Settings, stream: bool) -> None:
    runtime, sessions = scripted_runtime(settings)
    stop = Shutdown(drain=600)
    async with serving(runtime, stop=stop) as address:
        body = request_bytes("POST", "/v1/chat/completions", CHAT | {"stream": stream})
        async with connected(Server(address, sessions), body) as (reader, _):
            script = await sessions.admitted.get()
            script.accept()
            script.say("half of it")
            if stream:
                await reader.readuntil(b"half of it")
            stop.ask()
            stop.ask()
            rest = await reader.read()
    assert b"server_ending" in rest
    assert stream or rest.startswith(b"HTTP/1.1 503 ")


async def listens(server: Server) -> bool:
    """Whether the server still takes connections."""

    def connect() -> bool:
        with socket.socket() as client:
            return client.connect_ex((server.address.host, server.address.port)) == 0

    return await asyncio.to_thread(connect)

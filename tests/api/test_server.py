"""The API over a real socket, with an engine that the test plays: waiting, faults, refusals, clients that leave."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squish.api.serving.opening import Opening
from squish.api.serving.options import Options, Timing
from squish.api.serving.server import Shutdown, serve
from squish.config.settings import Settings
from squish.errors import ConfigError, ContextLengthExceeded, InvalidInput, LoadFailed, QueueFull, WorkerDied
from squish.generation import Loading, Queued, Usage
from squish.runtime import Runtime
from squish.system.ports import addresses
from tests.api.raw_http import CHAT, Server, ask, client, connected, parse, request_bytes, scripted
from tests.api.scripted import ScriptedSessions, scripted_runtime, serving
from tests.later import openai

AT_ONCE = Options(timing=Timing(grace=0.0, comments=0.01))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models")


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with scripted(settings) as running:
        yield running


# ---- errors are JSON, whatever fails


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/v1/models", 405),
        ("DELETE", "/health", 405),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_a_wrong_url_or_method(server: Server, method: str, path: str, status: int) -> None:
    answer = await ask(server, method, path)
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET /health HTTP/9\r\n\r\n", b"GET /\x1b HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http(server: Server, data: bytes) -> None:
    async with connected(server, data) as (reader, _):
        answer = parse(await reader.read())
    assert answer.status == 400
    assert answer.error["code"] == "bad_request"


async def test_a_bad_body_and_a_bad_field(server: Server) -> None:
    assert (await ask(server, "POST", "/v1/chat/completions", b"{")).status == 400
    answer = await ask(server, "POST", "/v1/chat/completions", CHAT | {"temperature": 3})
    assert (answer.status, answer.error["param"]) == (400, "temperature")
    assert server.sessions.requests == []


async def test_a_model_that_is_not_installed(settings: Settings) -> None:
    async with Runtime(settings) as runtime, serving(runtime) as address:
        server = Server(address, ScriptedSessions())
        for path, body in (("chat/completions", CHAT), ("completions", {"model": "not here!", "prompt": "x"})):
            answer = await ask(server, "POST", f"/v1/{path}", body | {"stream": True})
            assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert "squish pull m" in (await ask(server, "POST", "/v1/chat/completions", CHAT)).error["message"]
        assert (await ask(server, "GET", "/v1/models/org%2Frepo")).error["message"].startswith("org/repo is not")
        async with client(server) as api:
            with pytest.raises(openai.NotFoundError):
                await api.models.retrieve("org/repo")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue(server: Server, stream: bool) -> None:
    server.sessions.refusal = QueueFull("64 requests wait already.")
    answer = await ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": stream})
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_early_error_of_the_engine_has_its_status(server: Server, stream: bool) -> None:
    cases = [(ContextLengthExceeded("Too long.", param="messages"), 400), (WorkerDied("It died."), 500)]
    for error, status in cases:
        asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": stream}))
        script = await server.sessions.admitted.get()
        script.generation.put(Loading())
        script.fail(error)
        answer = await asked
        assert (answer.status, answer.error["code"]) == (status, error.code)
    script_after = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT))
    (await server.sessions.admitted.get()).answer("fine")
    assert (await script_after).status == 200


async def test_a_bug_is_a_500_that_tells_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.sessions.crash = ZeroDivisionError("secret detail")
    answer = await ask(server, "POST", "/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert "secret" not in answer.error["message"]
    assert any(record.exc_info for record in caplog.records)


async def test_a_body_that_is_too_large(server: Server) -> None:
    head = request_bytes("POST", "/v1/completions", **{"content-length": str(10**9), "expect": "100-continue"})
    async with connected(server, head) as (reader, _):
        answer = parse((await reader.read()).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


# ---- who may ask


async def test_the_key(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted(replace(settings, api_key="right-key")) as server:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right-key"}):
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/nope")):
                answer = await ask(server, method, path, CHAT, **headers)
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert (await ask(server, "GET", "/health")).body == b'{"status":"ok"}'
        assert (await ask(server, "GET", "/v1/models", authorization="bearer right-key")).status == 200
        async with client(server, "wrong") as api:
            with pytest.raises(openai.AuthenticationError):
                await api.models.list()
        async with client(server, "right-key") as api:
            assert (await api.models.list()).data == []
    assert "right-key" not in caplog.text


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_the_key_as_other_clients_send_it(settings: Settings, name: str) -> None:
    def sent(key: str) -> str:
        return key if name == "x-api-key" else f"Basic {b64encode(f'anybody:{key}'.encode()).decode()}"

    async with scripted(replace(settings, api_key="right:key")) as server:
        assert (await ask(server, "GET", "/v1/models", **{name: sent("right:key")})).status == 200
        for wrong in (sent("right"), sent(""), "Basic \xff", "Basic cmlnaHQ6a2V5=", "Basic", "Digest right:key"):
            assert (await ask(server, "GET", "/v1/models", **{name: wrong})).status == 401
        both = {"x-api-key": "right:key", "authorization": "Bearer something-else"}
        assert (await ask(server, "GET", "/v1/models", **both)).status == 200


REFUSED = {
    413: b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%bX-Large: " + b"y" * 20_000 + b"\r\n\r\n",
    417: b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n%bExpect: x\r\nContent-Length: 2\r\n\r\n{}",
    400: b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n%bContent-Length: ten\r\n\r\n{}",
    4001: b"GET /v1/models HTTP/2.0\r\nHost: x\r\n%b\r\n",
    4002: b"GET /v1/mod els HTTP/1.1\r\nHost: x\r\n%b\r\n",
    4003: b"GET http://[x HTTP/1.1\r\nHost: x\r\n%b\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_the_key_counts_also_where_the_request_is_refused(settings: Settings, case: int) -> None:
    keys = {b"Authorization: Bearer right\r\n": int(str(case)[:3]), b"Authorization: Bearer wrong\r\n": 401, b"": 401}
    if case == 413:
        keys[b""] = 413  # nobody knows what else stands in it
    async with scripted(replace(settings, api_key="right")) as server:
        for header, status in keys.items():
            async with connected(server, REFUSED[case] % header) as (reader, _):
                answer = parse(await reader.read())
            assert answer.status == status
            assert answer.error["code"] != "internal_error"


async def test_a_foreign_host_name_on_a_local_server(server: Server, settings: Settings) -> None:
    for host in ("evil.example", "evil.example:11435"):
        answer = await ask(server, "GET", "/v1/models", host=host)
        assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    for host in ("localhost:1", "127.0.0.1:1", "[::1]:1", "mymac", "mymac.local", "host.docker.internal:11435"):
        assert (await ask(server, "GET", "/v1/models", host=host)).status == 200
    async with scripted(replace(settings, api_key="k")) as guarded:
        answer = await ask(guarded, "GET", "/v1/models", host="llm.example", authorization="Bearer k")
        assert answer.status == 200


# ---- waiting, streaming, failing half way


async def test_comments_while_waiting_then_the_answer(settings: Settings) -> None:
    async with scripted(settings, AT_ONCE) as server:
        body = CHAT | {"stream": True}
        async with connected(server, request_bytes("POST", "/v1/chat/completions", body)) as (reader, _):
            script = await server.sessions.admitted.get()
            script.generation.put(Queued(3))
            await reader.readuntil(b": queued, position 3\n\n")
            script.generation.put(Loading())
            await reader.readuntil(b": loading the model\n\n")
            script.answer("Hello")
            rest = await reader.read()
        assert b'"content":"Hello"' in rest
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_model_that_cannot_be_loaded_is_a_status_however_long_it_took(settings: Settings) -> None:
    async with scripted(settings, Options(timing=Timing(grace=0.0, comments=0.01))) as server:
        server.sessions.state = "loading"
        asked = [
            asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": True})) for _ in range(2)
        ]
        started, queued = await server.sessions.admitted.get(), await server.sessions.admitted.get()
        started.generation.put(Loading())
        queued.generation.put(Queued(1))
        for _ in range(10):  # each is longer than the grace, and than the silence before a comment
            assert (await ask(server, "GET", "/health")).status == 200
        started.fail(LoadFailed("It cannot be loaded."))
        queued.fail(LoadFailed("It cannot be loaded."))
        for answer in await asyncio.gather(*asked):
            assert (answer.status, answer.error["code"]) == (500, "load_failed")


async def test_a_model_that_takes_very_long_to_load_gets_comments_for_its_proxies(settings: Settings) -> None:
    async with scripted(settings, Options(timing=Timing(grace=0.0, loading=0.0, comments=0.01))) as server:
        server.sessions.state = "loading"
        body = CHAT | {"stream": True}
        async with connected(server, request_bytes("POST", "/v1/chat/completions", body)) as (reader, _):
            script = await server.sessions.admitted.get()
            script.generation.put(Loading())
            await reader.readuntil(b": loading the model\n\n")
            script.answer("Hello")
            assert (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_failure_after_the_headers_is_one_last_event(server: Server) -> None:
    body = CHAT | {"stream": True}
    async with connected(server, request_bytes("POST", "/v1/chat/completions", body)) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept()
        script.say("Hel")
        await reader.readuntil(b"Hel")
        script.fail(WorkerDied("The worker died."))
        rest = await reader.read()
    assert b'data: {"error":{"message":"The worker died."' in rest
    assert b"[DONE]" not in rest
    assert rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_somebody_at_the_server_cancels_is_no_whole_one(server: Server, stream: bool) -> None:
    async def answered() -> None:
        options: Any = CHAT | {"stream": stream}
        async with openai.AsyncOpenAI(base_url=f"{server.address.url}/v1", api_key="any", max_retries=3) as api:
            if stream:
                async for chunk in await api.chat.completions.create(**options):
                    assert chunk.choices[0].finish_reason is None
            else:
                await api.chat.completions.create(**options)

    asked = asyncio.create_task(answered())
    script = await server.sessions.admitted.get()
    script.accept()
    script.say("Hel")
    script.generation.cancel()
    with pytest.raises(openai.APIError, match="cancelled at the server") as failure:
        await asked
    assert failure.value.code == "request_cancelled"
    assert len(server.sessions.requests) == 1, "the client tried again"


async def test_the_openai_client_sees_that_failure(server: Server) -> None:
    async def read() -> None:
        options: Any = CHAT | {"stream": True}
        async with client(server) as api:
            async for _ in await api.chat.completions.create(**options):
                pass

    reading = asyncio.create_task(read())
    script = await server.sessions.admitted.get()
    script.accept()
    script.say("Hel")
    script.fail(WorkerDied("The worker died."))
    with pytest.raises(openai.APIError, match="The worker died"):
        await reading


async def test_chunks_of_a_chat_in_order(server: Server) -> None:
    async def read() -> list[Any]:
        options: Any = CHAT | {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
        async with client(server) as api:
            return [chunk async for chunk in await api.chat.completions.create(**options)]

    reading = asyncio.create_task(read())
    script = await server.sessions.admitted.get()
    script.accept(7, 7)
    script.say("a", 0)
    script.say("b", 1)
    script.finish(1, "length", Usage(7, 4, 7))
    script.finish(0, "stop", Usage(7, 2, 3))
    *chunks, last = await reading
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert last.id.startswith("chatcmpl-")
    assert all(chunk.usage is None for chunk in chunks)
    choices = [chunk.choices[0] for chunk in chunks]
    assert [choice.delta.role for choice in choices[:2]] == ["assistant", "assistant"]
    assert [(choice.index, choice.delta.content) for choice in choices[2:4]] == [(0, "a"), (1, "b")]
    assert [(choice.index, choice.finish_reason) for choice in choices[4:]] == [(1, "length"), (0, "stop")]
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (7, 6, 13)
    assert last.usage.prompt_tokens_details.cached_tokens == 3


async def test_a_batch_keeps_its_order_whichever_row_ends_first(server: Server) -> None:
    asked = asyncio.create_task(ask(server, "POST", "/v1/completions", {"model": "m", "batch": ["x", "y"]}))
    script = await server.sessions.admitted.get()
    script.accept(2, 3)
    script.say("second", 1)
    script.finish(1, "length", Usage(3, 5))
    script.say("first", 0)
    script.finish(0, "stop", Usage(2, 4, 1))
    answer = json.loads((await asked).body)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"text": "first", "index": 0, "finish_reason": "stop", "logprobs": None},
        {"text": "second", "index": 1, "finish_reason": "length", "logprobs": None},
    ]
    assert answer["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip


async def test_health_answers_while_a_request_waits(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/v1/chat/completions", CHAT)):
        await server.sessions.admitted.get()
        assert (await ask(server, "GET", "/health")).body == b'{"status":"ok"}'


# ---- clients that leave


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [1, 300_000])
async def test_a_client_that_is_gone_is_cancelled(server: Server, stream: bool, size: int) -> None:
    body = {"model": "m", "prompt": "x" * size, "stream": stream}
    async with connected(server, request_bytes("POST", "/v1/completions", body)) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept()
        if stream:
            await reader.readuntil(b": preparing the prompt")
    assert await server.sessions.cancelled.get() is script.generation


async def test_a_client_that_resets_is_cancelled(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(request_bytes("POST", "/v1/chat/completions", CHAT))
    await server.sessions.admitted.get()
    writer.transport.abort()
    await server.sessions.cancelled.get()
    assert await reader.read() == b""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_half_closes_gets_its_answer(server: Server, stream: bool) -> None:
    data = request_bytes("POST", "/v1/completions", {"model": "m", "prompt": "x", "stream": stream})
    async with connected(server, data) as (reader, writer):
        writer.write_eof()
        script = await server.sessions.admitted.get()
        script.accept()
        # The probe of a half-closed connection, which tells it from a closed one
        await reader.readuntil(b":\n\n" if stream else b"HTTP/1.1 100 Continue\r\n\r\n")
        script.say("answer")
        script.finish()
        assert b'"text":"answer"' in await reader.read()
    assert server.sessions.cancelled.empty()


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_stream_for_http_1_0_has_no_chunks(server: Server, half_closed: bool) -> None:
    body = json.dumps({"model": "m", "prompt": "x", "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with connected(server, head + body) as (reader, writer):
        script = await server.sessions.admitted.get()
        script.accept()
        if half_closed:
            writer.write_eof()
            await reader.readuntil(b"\n\n:\n\n")
        script.say("answer")
        script.finish()
        answer = await reader.read()
    assert b"transfer-encoding" not in answer.lower()
    lines = answer.rpartition(b"\r\n\r\n")[2].split(b"\n")
    assert all(not line or line.startswith((b"data: ", b":")) for line in lines)
    assert lines[-3:] == [b"data: [DONE]", b"", b""]


async def test_a_client_that_half_closes_too_early(server: Server) -> None:
    data = request_bytes("POST", "/v1/completions", {"model": "m", "prompt": "x"})
    for cut in (10, len(data) - 3):
        async with connected(server, data[:cut]) as (reader, writer):
            writer.write_eof()
            assert parse(await reader.read()).status == 400
    assert server.sessions.requests == []


# ---- the server's own life


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_wait_until_the_server_is_open(settings: Settings, stream: bool) -> None:
    opening = Opening(1)
    async with scripted(settings, opening=opening) as server:
        asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": stream}))
        while not opening.waiting:
            await asyncio.sleep(0.01)
        for path in ("/health", "/v1/models", "/metrics"):
            assert (await ask(server, "GET", path)).status == 200
        refused = await ask(server, "POST", "/v1/chat/completions", CHAT)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert server.sessions.requests == []
        opening.open()
        (await server.sessions.admitted.get()).answer("open")
        assert b"open" in (await asked).body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_does_not_open_tells_who_waits(settings: Settings, stream: bool) -> None:
    opening = Opening(5)
    async with scripted(settings, opening=opening) as server:
        asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": stream}))
        while not opening.waiting:
            await asyncio.sleep(0.01)
        opening.close("It could not load m.")
        answer = await asked
        assert (answer.status, answer.error["message"]) == (503, "It could not load m.")
        assert answer.error["type"] == "server_error"
        assert int(answer.headers["retry-after"]) >= 1


async def test_stopping_ends_requests_in_flight(settings: Settings) -> None:
    async with scripted(settings) as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(request_bytes("POST", "/v1/chat/completions", CHAT))
        await server.sessions.admitted.get()
    assert server.sessions.cancelled.qsize() == 1
    writer.close()
    assert isinstance(reader, asyncio.StreamReader)


@pytest.mark.parametrize("turns", range(6))
async def test_nobody_who_comes_as_it_stops_is_left_connected(settings: Settings, turns: int) -> None:
    async with scripted(settings) as server:
        client = socket.create_connection((server.address.host, server.address.port))
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client:
        try:
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        except ConnectionResetError:
            pass  # it was never accepted


async def test_two_servers_in_one_process_and_again(settings: Settings) -> None:
    async with scripted(settings) as one, scripted(settings) as two:
        assert (await ask(one, "GET", "/health")).status == (await ask(two, "GET", "/health")).status == 200
    async with scripted(settings) as three:
        assert (await ask(three, "GET", "/health")).status == 200


async def test_an_address_that_cannot_be_used(settings: Settings) -> None:
    runtime, _ = scripted_runtime(settings)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} on 127.0.0.1 is already in use"):
            await serve(runtime, Options(port=port), stop=Shutdown())
    for host, port in (("203.0.113.7", 0), ("no.such.host.invalid", 0), ("", 0), ("127.0.0.1", 70000)):
        with pytest.raises(InvalidInput):
            await serve(runtime, Options(host, port), stop=Shutdown())


async def test_localhost_is_served_on_all_loopback_addresses(settings: Settings) -> None:
    runtime, _ = scripted_runtime(settings)
    async with serving(runtime, Options("localhost", 0)) as address:
        for host in addresses("localhost"):
            reader, writer = await asyncio.open_connection(host, address.port)
            writer.write(request_bytes("GET", "/health"))
            assert b"200 OK" in await reader.readline(), host
            writer.close()


async def test_one_line_per_request_and_no_prompt_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = asyncio.create_task(ask(server, "POST", "/v1/completions?q=x", {"model": "m", "prompt": "hush"}))
    (await server.sessions.admitted.get()).answer("quiet")
    request_id = (await asked).headers["x-request-id"]
    assert (await ask(server, "GET", "/\x1b]52;c;eA==\x07nope")).status == 400
    lines = [record.getMessage() for record in caplog.records if record.name == "squish.access"]
    assert lines[0].startswith("127.0.0.1 POST /v1/completions 200 ")
    assert lines[0].endswith(f" ms {request_id} model=m prompt=7 cached=3 completion=2 " + lines[0].split(" ")[-1])
    assert "\x1b" not in caplog.text
    assert "hush" not in caplog.text
    assert "quiet" not in caplog.text

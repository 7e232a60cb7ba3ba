"""/v1/responses over a socket: what is kept and forgotten, news in silence, and how streams break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from squish.api.serving.options import Options, Timing
from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded, QueueFull, WorkerDied
from tests.api.raw_http import Answer, Server, ask, connected, request_bytes, scripted

BODY: dict[str, Any] = {"model": "m", "input": "Hi"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    options = Options(timing=Timing(grace=0.0, comments=0.05))
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models"), options) as running:
        yield running


async def answered(server: Server, body: dict[str, Any]) -> Answer:
    asked = asyncio.create_task(ask(server, "POST", "/v1/responses", body))
    (await server.sessions.admitted.get()).answer("Hello")
    return await asked


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events of a chunked stream, each with the name that is in it, numbered without a gap."""
    lines = [line.strip() for line in stream.split(b"\n")]
    found = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
    assert [line[7:].decode() for line in lines if line.startswith(b"event: ")] == [event["type"] for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert b"[DONE]" not in stream
    return found


async def test_a_response_is_kept_and_gone_on_with_until_it_is_deleted(server: Server) -> None:
    first = json.loads((await answered(server, BODY)).body)
    path = f"/v1/responses/{first['id']}"
    assert json.loads((await ask(server, "GET", path)).body) == first
    second = json.loads((await answered(server, BODY | {"previous_response_id": first["id"]})).body)
    assert second["previous_response_id"] == first["id"]
    [prompt] = server.sessions.requests[-1].prompts
    assert [message.content for message in prompt.messages] == ["Hi", "Hello", "Hi"]  # type: ignore[union-attr]
    refused = await ask(server, "GET", f"{path}?stream=true")
    assert (refused.status, "stream" in refused.error["message"]) == (400, True)
    gone = await ask(server, "DELETE", path)
    assert json.loads(gone.body) == {"id": first["id"], "object": "response", "deleted": True}
    for method in ("GET", "DELETE"):
        missing = await ask(server, method, path)
        assert (missing.status, missing.error["code"]) == (404, "response_not_found")
    last = await ask(server, "POST", "/v1/responses", BODY | {"previous_response_id": first["id"]})
    assert (last.status, last.error["param"]) == (400, "previous_response_id")


async def test_what_is_not_to_be_stored_is_not(server: Server) -> None:
    answer = json.loads((await answered(server, BODY | {"store": False})).body)
    assert answer["store"] is False
    assert (await ask(server, "GET", f"/v1/responses/{answer['id']}")).status == 404


async def test_news_while_a_prompt_waits_are_events_that_clients_count(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/v1/responses", BODY | {"stream": True})) as (reader, _):
        script = await server.sessions.admitted.get()
        before = b""
        while before.count(b"event: response.in_progress") < 3:
            before += await reader.readuntil(b"\n")
        script.answer("Hello")
        found = events(before + await reader.read())
    assert found[0]["type"] == "response.created"
    assert found[-1]["type"] == "response.completed"
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stream_that_breaks(server: Server, cancelled: bool) -> None:
    async with connected(server, request_bytes("POST", "/v1/responses", BODY | {"stream": True})) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept()
        script.say("Hel")
        if cancelled:
            script.generation.cancel()
        else:
            script.fail(WorkerDied("It died."))
        last = events(await reader.read())[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == ("invalid_prompt" if cancelled else "server_error")


async def test_refusals_name_what_the_client_wrote(server: Server) -> None:
    server.sessions.refusal = ContextLengthExceeded("Too long.", param="messages")
    long = await ask(server, "POST", "/v1/responses", BODY)
    assert (long.status, long.error["code"], long.error["param"]) == (400, "context_length_exceeded", "input")
    server.sessions.refusal = QueueFull("Full.")
    full = await ask(server, "POST", "/v1/responses", BODY)
    assert (full.status, full.error["code"], "retry-after" in full.headers) == (429, "rate_limit_exceeded", True)
    assert (await ask(server, "PUT", "/v1/responses", BODY)).status == 405
    sent = await ask(server, "POST", "/v1/responses", BODY | {"messages": [{"role": "user", "content": "x"}]})
    assert (sent.status, sent.error["param"]) == (400, "messages")
    kept = await ask(server, "PUT", "/v1/responses/resp_1")
    assert (kept.headers["allow"], "use GET, DELETE." in kept.error["message"]) == ("GET, DELETE", True)
    nowhere = await ask(server, "POST", "/v1/responses/a/b", BODY)
    assert "/v1/responses" in nowhere.error["message"]


async def test_a_stream_says_itself_that_a_prompt_is_too_long(server: Server) -> None:
    server.sessions.refusal = ContextLengthExceeded("Too long.", param="messages")
    answer = await ask(server, "POST", "/v1/responses", BODY | {"stream": True})
    said = events(answer.body)
    assert (answer.status, [event["type"] for event in said]) == (
        200,
        ["response.created", "response.in_progress", "response.failed"],
    )
    assert said[-1]["response"]["error"] == {"code": "context_length_exceeded", "message": "Too long."}


async def test_the_log_says_what_was_left_out(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "squish.access")
    await answered(server, BODY | {"tools": [{"type": "web_search"}, {"type": "local_shell\x1b[2J x=1"}]})
    assert "left_out=web_search,local_shell" in caplog.text
    assert " x=1" not in caplog.text
    assert "\x1b" not in caplog.text

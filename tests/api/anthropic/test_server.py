"""The Messages API over a socket, with an engine that the test plays."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from squish.api.serving.options import Options, Timing
from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded, ModelNotFound, QueueFull, WorkerDied
from tests.api.raw_http import Answer, Server, ask, connected, request_bytes, scripted

BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
PATHS = ("/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens", "/v1/messages/count_tokens?beta=true")
QUICK = Options(timing=Timing(grace=0.0, comments=0.01))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models")


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with scripted(settings, QUICK) as running:
        yield running


def error_message(answer: Answer) -> str:
    return str(json.loads(answer.body)["error"]["message"])


def error(answer: Answer) -> tuple[int, str]:
    body = json.loads(answer.body)
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    assert body["error"]["message"]
    return answer.status, body["error"]["type"]


def events(stream: bytes) -> list[tuple[str, Any]]:
    """Names and values of the events in a chunked stream."""
    lines = [line.strip() for line in stream.decode().split("\n")]
    names = [line[7:] for line in lines if line.startswith("event: ")]
    values = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert names == [value["type"] for value in values]
    return list(zip(names, values, strict=True))


@pytest.mark.parametrize("path", PATHS[:2])
async def test_a_whole_answer(server: Server, path: str) -> None:
    asked = asyncio.create_task(ask(server, "POST", path, BODY, **{"anthropic-version": "2030-01-01"}))
    script = await server.sessions.admitted.get()
    script.answer("Hello")
    answer = await asked
    body = json.loads(answer.body)
    assert (answer.status, body["type"], body["role"], body["model"]) == (200, "message", "assistant", "m")
    assert body["content"] == [{"type": "text", "text": "Hello"}]
    assert answer.headers["request-id"].startswith("req_")
    usage = body["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"] == 7


@pytest.mark.parametrize("path", PATHS[2:])
async def test_a_count(server: Server, path: str) -> None:
    answer = await ask(server, "POST", path, BODY)
    assert (answer.status, json.loads(answer.body)) == (200, {"input_tokens": 7})
    server.sessions.refusal = ModelNotFound("It is not there.")
    missing = await ask(server, "POST", path, BODY)
    assert error(missing) == (404, "not_found_error")
    assert "squish pull m" in json.loads(missing.body)["error"]["message"]


async def test_a_stream_says_that_it_lives_before_and_while_it_answers(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/v1/messages", BODY | {"stream": True})) as (reader, _):
        script = await server.sessions.admitted.get()
        stream = await reader.readuntil(b'{"type":"ping"}')  # while the prompt waits
        script.accept(9)
        stream += await reader.readuntil(b"message_start")
        stream += await reader.readuntil(b'{"type":"ping"}')
        script.say("Hello")
        script.finish()
        stream += await reader.read()
    assert b"event: message_stop" in stream
    assert b"[DONE]" not in stream
    assert [name for name, _ in events(stream) if name != "ping"] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


async def test_a_stream_that_breaks_off(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/v1/messages", BODY | {"stream": True})) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept(9)
        script.say("Hel")
        script.fail(WorkerDied("It died."))
        head, _, stream = (await reader.read()).partition(b"\r\n\r\n")
    [id] = re.findall(rb"\r\nrequest-id: (\S+)", head)
    error = {"type": "api_error", "message": "It died."}
    assert events(stream)[-1] == ("error", {"type": "error", "error": error, "request_id": id.decode()})


@pytest.mark.parametrize("path", ["/v1/models/none:1b", "/v1/audio", "/v1/v1/messages"])
async def test_its_clients_get_its_errors_at_paths_that_are_not_its_own(server: Server, path: str) -> None:
    marked = await ask(server, "GET", path, **{"anthropic-version": "2026-10-21"})
    assert error(marked) == (404, "not_found_error")
    other = await ask(server, "GET", path)
    assert (other.status, other.error["type"]) == (404, "invalid_request_error")
    assert "request-id" not in other.headers


@pytest.mark.parametrize("path", PATHS)
async def test_refusals(server: Server, path: str) -> None:
    assert error(await ask(server, "POST", path, b"{")) == (400, "invalid_request_error")
    assert error(await ask(server, "POST", path, BODY | {"messages": []})) == (400, "invalid_request_error")
    assert error(await ask(server, "GET", path)) == (405, "invalid_request_error")
    assert error(await ask(server, "POST", path, BODY | {"model": "../x"})) == (404, "not_found_error")
    assert error(await ask(server, "POST", "/v1/messages/batches", BODY)) == (404, "not_found_error")
    said = error_message(await ask(server, "POST", path, BODY | {"system": [{"type": "image"}]}))
    assert said.startswith("system[0].type: ")  # its errors have no other place for the field's name
    server.sessions.refusal = QueueFull("Full.")
    full = await ask(server, "POST", path, BODY)
    assert error(full) == (429, "rate_limit_error")
    assert "retry-after" in full.headers
    server.sessions.refusal = ContextLengthExceeded("It has 9 tokens.")
    assert b"prompt is too long: " in (await ask(server, "POST", path, BODY)).body


async def test_the_key_can_come_in_either_header(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models", api_key="right")
    async with scripted(settings, QUICK) as server:
        assert error(await ask(server, "POST", PATHS[2], BODY)) == (401, "authentication_error")
        wrong = {"x-api-key": "wrong"}
        assert error(await ask(server, "POST", PATHS[0], BODY, **wrong)) == (401, "authentication_error")
        for right in ({"x-api-key": "right"}, {"authorization": "Bearer right"}):
            assert (await ask(server, "POST", PATHS[2], BODY, **right)).status == 200


async def test_a_probe_of_the_root(server: Server) -> None:
    answer = await ask(server, "HEAD", "/")
    assert (answer.status, answer.body) == (200, b"")

"""What a collector gets of requests: a real one, over HTTP, whose protobuf is decoded. The engine is the test."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from squish.api.clients.keys import ApiKey, KeyFile
from squish.config.settings import Settings
from squish.errors import WorkerDied
from squish.generation import Loading, Queued, Usage
from squish.models.store import Store
from tests.api.ollama.test_routes import install
from tests.api.raw_http import CHAT, Server, ask, client, connected, request_bytes, scripted
from tests.api.telemetry.receiver import Received, Receiver, receiving

PROMPT = "Wer hat den Kaesekuchen"
ANSWER = "Der Mops war es"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TURN = [{"role": "user", "content": PROMPT}]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@asynccontextmanager
async def traced(home: Path, receiver: Receiver, **more: Any) -> AsyncIterator[Server]:
    settings = Settings(home=home, cache_dir=home / "models", otlp_endpoint=receiver.url, **more)
    install(Store(settings.cache_dir), "m:1b")
    install(Store(settings.cache_dir), "vectors:1b", kind="embedding")
    async with scripted(settings) as server:
        yield server


async def received(receiver: Receiver) -> tuple[Received, list[Received]]:
    return await asyncio.to_thread(receiver.request)


async def answered(server: Server, path: str, body: Any, **headers: str) -> int:
    """The status of the answer to a request that the engine answers with two tokens."""
    asking = asyncio.create_task(ask(server, "POST", path, body, **headers))
    admitted = asyncio.create_task(server.sessions.admitted.get())
    await asyncio.wait((asking, admitted), return_when=asyncio.FIRST_COMPLETED)
    assert admitted.done(), (await asking).body
    script = await admitted
    script.tell(Queued(1), Loading())
    script.accept()
    script.say(ANSWER)
    script.finish(usage=Usage(7, 2, 3))
    return (await asking).status


DIALECTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": ("chat", {"messages": TURN, "seed": 2**63}),
    "/v1/completions": ("text_completion", {"prompt": PROMPT}),
    "/v1/messages": ("chat", {"messages": TURN, "max_tokens": 9}),
    "/v1/responses": ("chat", {"input": PROMPT}),
    "/api/chat": ("chat", {"messages": TURN}),
    "/api/generate": ("chat", {"prompt": PROMPT}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_a_request_is_one_span_in_the_trace_of_its_client(
    path: str, stream: bool, receiver: Receiver, tmp_path: Path
) -> None:
    operation, body = DIALECTS[path]
    async with traced(tmp_path, receiver, api_key="geheim") as server:
        parent = f"00-{TRACE}-{PARENT}-01"
        asked = {"model": "m:1b", "stream": stream, **body}
        headers = {"traceparent": parent, "authorization": "Bearer geheim", "x-request-id": "r-1"}
        assert await answered(server, path, asked, **headers) == 200
        span, phases = await received(receiver)
    assert (span.trace, span.parent, span.kind, span.error) == (TRACE, PARENT, "server", False)
    assert [each.name for each in phases] == ["queue", "load", "prefill", "decode"]
    assert all(before.end == after.start for before, after in pairwise(phases))
    assert span.start <= phases[0].start and phases[-1].end <= span.end
    assert span.name == f"{operation} m:1b"
    wanted = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "squish",
        "gen_ai.request.model": "m:1b",
        "gen_ai.request.stream": stream,
        "gen_ai.response.model": "m:1b",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": path,
        "server.address": "localhost",
        "squish.request.id": "r-1",
    }
    assert wanted.items() <= span.attributes.items()
    limit = span.attributes.get("gen_ai.request.max_tokens")
    assert limit == 9 if "max_tokens" in body else limit in (None, 256, 512), "no limit is none"
    assert span.resource["service.name"] == "squish"
    assert set(receiver.paths) == {"/v1/traces"}
    for secret in (PROMPT, ANSWER, "geheim"):
        assert not any(secret.encode() in each for each in receiver.bodies)


async def test_vectors_are_traced(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver) as server:
        body = {"model": "vectors:1b", "input": [PROMPT, PROMPT]}
        assert (await ask(server, "POST", "/v1/embeddings", body)).status == 200
        span, phases = await received(receiver)
        assert (span.name, [each.name for each in phases]) == ("embeddings vectors:1b", ["queue", "prefill"])
        assert span.parent == ""
        assert span.attributes["gen_ai.usage.input_tokens"] == 6
        assert "gen_ai.usage.output_tokens" not in span.attributes


async def test_each_request_of_a_batch_is_traced(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver, max_concurrency=1) as server, client(server) as api:
        line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT})
        file = await api.files.create(file=("in.jsonl", line.encode()), purpose="batch")
        created = await api.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        (await server.sessions.admitted.get()).answer(ANSWER)
        names = {}
        while "chat m" not in names:
            span, phases = await received(receiver)
            names[span.name] = span, phases
        span, phases = names["chat m"]
        assert names.keys() == {"POST /v1/files", "POST /v1/batches", "chat m"}
        assert (span.kind, span.attributes["squish.batch.id"]) == ("internal", created.id)
        assert [each.name for each in phases] == ["queue", "prefill", "decode"]


async def test_a_request_of_a_batch_is_traced_with_the_name_of_its_key(receiver: Receiver, tmp_path: Path) -> None:
    secret = KeyFile(tmp_path).add(ApiKey(name="alice", hash=""))
    async with traced(tmp_path, receiver, max_concurrency=1) as server, client(server, secret) as api:
        line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT})
        file = await api.files.create(file=("in.jsonl", line.encode()), purpose="batch")
        await api.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        (await server.sessions.admitted.get()).answer(ANSWER)
        spans = [(await received(receiver))[0] for _ in range(3)]
        assert "chat m" in [span.name for span in spans]
        assert {span.attributes["squish.key.name"] for span in spans} == {"alice"}


async def test_a_failure_says_what_the_client_was_told(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver, api_key="geheim") as server:
        key = {"authorization": "Bearer geheim"}
        assert (await ask(server, "POST", "/v1/chat/completions", CHAT)).status == 401
        refused, phases = await received(receiver)
        assert (refused.name, phases, refused.error) == ("POST /v1/chat/completions", [], False)
        assert refused.attributes["error.type"] == "invalid_api_key"

        asking = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT, **key))
        (await server.sessions.admitted.get()).fail(WorkerDied("The worker died."))
        assert (await asking).status == 500
        failed, phases = await received(receiver)
        assert (failed.name, failed.error, [each.name for each in phases]) == ("chat m", True, ["queue"])
        assert failed.attributes["error.type"] == "worker_died"

        broken = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": True}, **key))
        script = await server.sessions.admitted.get()
        script.accept()
        script.say("a")
        script.fail(WorkerDied("The worker died."))
        assert (await broken).status == 200
        cut, phases = await received(receiver)
        assert (cut.error, cut.attributes["error.type"]) == (True, "worker_died")
        assert cut.attributes["http.response.status_code"] == 200


async def test_a_client_that_leaves_is_traced(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver) as server:
        async with connected(server, request_bytes("POST", "/v1/chat/completions", CHAT)):
            (await server.sessions.admitted.get()).accept()
        span, phases = await received(receiver)
        assert span.attributes["http.response.status_code"] == 499
        assert [each.name for each in phases] == ["queue", "prefill"]


async def test_what_monitoring_asks_for_is_not_traced(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver) as server:
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            await ask(server, "GET", path)
    assert receiver.bodies == []


async def test_nobody_waits_for_a_collector_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as silent:  # it takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = Settings(home=tmp_path, cache_dir=tmp_path, otlp_endpoint=endpoint)
        async with scripted(settings) as server:
            for _ in range(3):
                assert await answered(server, "/v1/chat/completions", CHAT) == 200
    assert "Traceback" not in caplog.text


async def test_a_collector_that_refuses_is_one_line_in_the_log(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 400
    async with traced(tmp_path, receiver) as server:
        for _ in range(3):
            assert await answered(server, "/v1/chat/completions", CHAT) == 200
        while "Traces cannot be sent" not in caplog.text:
            await asyncio.sleep(0.005)
        receiver.status = 200
        await answered(server, "/v1/chat/completions", CHAT)
        await received(receiver)
    assert caplog.text.count("Traces cannot be sent") == 1


async def test_what_is_left_is_sent_at_the_end(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with traced(tmp_path, receiver) as server:
        await answered(server, "/v1/chat/completions", CHAT)
    assert (await received(receiver))[0].name == "chat m"


async def test_a_trace_that_its_client_does_not_sample_is_not_sent(receiver: Receiver, tmp_path: Path) -> None:
    async with traced(tmp_path, receiver) as server:
        await answered(server, "/v1/chat/completions", CHAT, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert receiver.bodies == []

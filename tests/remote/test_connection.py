"""Servers that behave badly: each gives one clear sentence, and nothing hangs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from httpx2 import ConnectTimeout, ProxyError, ReadError
from msgspec.structs import replace

from squish.config.settings import Settings
from squish.errors import InvalidInput, ModelNotFound, RemoteError
from squish.generation import (
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    SamplingParams,
    TextDelta,
)
from squish.remote import failures
from squish.remote.connected import Connected, connected
from squish.remote.connection import ServerConnection
from squish.remote.generation import RemoteGeneration
from squish.remote.nearby import nearby
from squish.sessions.activity import Log
from squish.tui.server.connected_server import ServerReadings
from tests.remote.small_server import STREAM, Answer, SmallServer, chunk, event, reply, small_server

KEY = "sk-very-secret"
CHAT = "POST /v1/chat/completions"
END = event({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"HOME": str(tmp_path)})


def asked() -> GenerationRequest:
    return GenerationRequest("m", (ChatPrompt((Message("user", "Hi"),)),), SamplingParams())


async def answers(backend: Connected) -> list[GenerationEvent]:
    async with backend.sessions.generate(asked()) as generation:
        return [event async for event in generation]


async def failure(settings: Settings, answer: dict[str, Answer]) -> RemoteError:
    """What somebody reads who connects to a server that answers so."""
    async with small_server(answer) as server:
        with pytest.raises(RemoteError) as caught:
            async with connected(settings, server.url, KEY):
                pass
    assert KEY not in f"{caught.value.message} {caught.value.hint}"
    return caught.value


async def test_an_answer_comes_and_the_key_goes_to_the_server(settings: Settings) -> None:
    async with small_server({CHAT: STREAM + chunk(content="Hello") + b": still here\n\n" + END}) as server:
        async with connected(settings, server.url, KEY) as backend:
            assert [each.id for each in backend.store.list()] == ["m"]
            assert [each.state for each in backend.sessions.status()] == ["served"]
            text, end = await answers(backend)
            assert text == TextDelta(0, "Hello")
            assert isinstance(end, Finished)
            assert end.reason == "stop"
            (row,) = backend.sessions.activity()
            assert (row.state, row.client) == ("done", "")
        head, body = next(each for each in server.seen if each[0].startswith("POST"))
        assert f"authorization: bearer {KEY}" in head.lower()
        assert body["model"] == "m"


async def test_nothing_goes_on_when_a_server_was_left(settings: Settings) -> None:
    async with small_server({}) as server:
        others = asyncio.all_tasks()
        async with connected(settings, server.url) as backend:
            backend.sessions.pin("m", pinned=True)
        ours = {each.get_name() for each in asyncio.all_tasks() - others}
        assert ours.isdisjoint({"watch the server", "remote change"})


def refusing(server: SmallServer, *fields: str) -> Answer:
    """A chat as OpenAI has it for newer models: one field is refused after the other."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refused = next((each for each in fields if each in server.seen[-1][1]), None)
        error = {"message": f"Unsupported parameter: '{refused}' is not supported.", "param": refused}
        writer.write(reply({"error": error}, "400 Bad Request") if refused else STREAM + chunk(content="Hello") + END)
        await writer.drain()
        writer.close()

    return answer


async def test_what_a_model_of_openai_does_not_take_is_asked_otherwise_from_then_on(settings: Settings) -> None:
    async with small_server({}) as server, connected(settings, server.url) as backend:
        server.answers[CHAT] = refusing(server, "max_tokens", "temperature", "top_p")
        for asks in (4, 1):
            before = len(server.seen)
            assert TextDelta(0, "Hello") in await answers(backend)
            bodies = [body for _, body in server.seen[before:] if body]
            assert len(bodies) == asks
            assert bodies[-1]["max_completion_tokens"] == SamplingParams().max_tokens
            assert not {"max_tokens", "temperature", "top_p"} & bodies[-1].keys()


@pytest.mark.parametrize("refused", ["temperature", "messages"])
async def test_what_was_chosen_is_not_left_out_in_silence(settings: Settings, refused: str) -> None:
    async with small_server({}) as server, connected(settings, server.url) as backend:
        server.answers[CHAT] = refusing(server, refused)
        request = replace(asked(), sampling=SamplingParams(temperature=0.2))
        with pytest.raises(InvalidInput, match="Unsupported parameter"):
            async with backend.sessions.generate(request) as generation:
                _ = [event async for event in generation]
        assert sum(body is not None for _, body in server.seen) == 1


async def test_leaving_an_answer_closes_the_connection(settings: Settings) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(content="one "))
        await writer.drain()

    async with small_server({CHAT: endless}) as server, connected(settings, server.url) as backend:
        async with backend.sessions.generate(asked()) as generation:
            assert await anext(generation) == TextDelta(0, "one ")
            generation.cancel()
            end = await anext(generation)
            assert isinstance(end, Finished)
            assert (end.reason, end.usage.completion_tokens) == ("cancelled", 1)
            await server.left.wait()
        assert [each.state for each in backend.sessions.activity()] == ["stopped"]


async def test_a_server_that_never_answers_can_be_left(settings: Settings) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200")
        await writer.drain()

    async with small_server({CHAT: silent}) as server, connected(settings, server.url) as backend:
        async with backend.sessions.generate(asked()) as generation:
            while not any(head.startswith("POST") for head, _ in server.seen):
                await asyncio.sleep(0.005)
            generation.cancel()
            assert [event.reason async for event in generation if isinstance(event, Finished)] == ["cancelled"]
        await server.left.wait()


async def test_leaving_twice_does_not_interrupt_the_closing(settings: Settings) -> None:
    """Whoever cancels leaves the block next, maybe while the connection is being closed."""
    closing, closed = asyncio.Event(), asyncio.Event()

    class Slow(ServerConnection):
        @asynccontextmanager
        async def events(self, path: str, body: object, headers: object = None) -> AsyncIterator[AsyncIterator[bytes]]:
            async with super().events(path, body) as events:
                try:
                    yield events
                finally:
                    closing.set()
                    await asyncio.sleep(0)
                    closed.set()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(content="one "))
        await writer.drain()

    async with small_server({CHAT: endless}) as server:
        async with RemoteGeneration(Slow(server.url), "/v1/chat/completions", asked(), {}, Log()) as generation:
            await anext(generation)
            generation.cancel()
            await closing.wait()
        assert closed.is_set()
        await server.left.wait()


async def test_a_server_that_drips_is_given_up_after_a_silence() -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(content="one ") + b"data: {")
        await writer.drain()

    async with small_server({CHAT: dripping}) as server:
        connection = ServerConnection(server.url, silence=0.01)
        with pytest.raises(RemoteError, match="has sent nothing for"):
            async with connection.events("/v1/chat/completions", {}) as events:
                async for _ in events:
                    pass
        await connection.close()


async def test_a_program_that_was_itself_stopped_reads_on() -> None:
    """What the server sent in the meantime lies there, and the time for it has passed."""
    silence = 0.2

    async def stopping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(content="one "))
        await writer.drain()
        await heard.wait()
        writer.write(chunk(content="two ") + END)
        over = time.monotonic() + silence
        while time.monotonic() < over:  # nothing in this process goes on, as under SIGSTOP
            pass

    heard = asyncio.Event()
    async with small_server({CHAT: stopping}) as server:
        connection = ServerConnection(server.url, silence=silence)
        async with connection.events("/v1/chat/completions", {}) as events:
            assert b"one" in await anext(events)
            heard.set()
            assert b"two" in await anext(events)
        await connection.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (STREAM + chunk(content="Hel"), "before it was complete"),
        (STREAM + event({"error": {"message": f"out of memory {KEY}"}}), "out of memory …"),
        (STREAM + b"data: <html>\n\n", "not a part of an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\ndata: ", "broke off"),
        (reply({"error": {"message": "no such model\x1b[2J"}}, "404 Not Found"), "answered 404: no such model"),
        (reply({"error": "slow down"}, "429 Too Many Requests"), "answered 429: slow down"),
        (reply({"detail": "x" * 9000}, "400 Bad Request"), "answered 400: xxx"),
        (reply(b"<html>", kind="text/html"), "web page"),
        (reply({"choices": []}), "not OpenAI's API"),
        (b"", "broke off"),
    ],
)
async def test_an_answer_that_fails_says_why_in_one_sentence(settings: Settings, answer: bytes, says: str) -> None:
    async with small_server({CHAT: answer}) as server, connected(settings, server.url, KEY) as backend:
        with pytest.raises((RemoteError, InvalidInput, ModelNotFound)) as caught:
            await answers(backend)
        assert says in caught.value.message
        assert KEY not in caught.value.message
        assert "\x1b" not in caught.value.message
        assert len(caught.value.message) < 500
        assert [each.state for each in backend.sessions.activity()] == ["failed"]


@pytest.mark.parametrize(
    ("answer", "says", "advice"),
    [
        (reply({}, "401 Unauthorized"), "refuses the key (401)", "--key-env"),
        (reply(b"<html>hello</html>", kind="text/html"), "web page", "/v1"),
        (reply(b"\x00\x01"), "not OpenAI's API", "/v1"),
        (reply(b"[" * 100_000), "not OpenAI's API", "/v1"),
        (reply({}, "404 Not Found"), "no list of models", "before /v1"),
        (
            reply({}, "301 Moved", "text/html", "Location: https://example.org/v1/models"),
            "redirects to https://example.org",
            "",
        ),
        (reply({"error": {"message": "Loading model"}}, "503 Service Unavailable"), "Loading model", "ready"),
        (reply(b"x" * 2000, "500 Internal Server Error"), "answered 500: xxx", ""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port", "speaks HTTPS", "https://"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "as an HTTP server does", "https://"),
    ],
)
async def test_a_server_that_cannot_be_used_says_why(settings: Settings, answer: bytes, says: str, advice: str) -> None:
    error = await failure(settings, {"GET /v1/models": answer})
    assert says in error.message
    assert advice in (error.hint or "")


async def test_nobody_there_and_no_such_host_are_told_apart(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteError, match="Nothing answers at"):
            async with connected(settings, f"http://127.0.0.1:{taken.getsockname()[1]}"):
                pass
    with pytest.raises(RemoteError, match=r"^no-such-host\.invalid cannot be reached: its name cannot be looked up\.$"):
        async with connected(settings, "http://no-such-host.invalid"):
            pass


async def test_https_to_a_server_without_it_says_so(settings: Settings) -> None:
    async with small_server({}) as server:
        with pytest.raises(RemoteError, match="does not speak HTTPS"):
            async with connected(settings, server.url.replace("http", "https")):
                pass


async def test_an_answer_without_end_is_cut(settings: Settings) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while not writer.is_closing():
            writer.write(b" " * (1 << 20))
            await writer.drain()

    async with small_server({"GET /v1/models": endless}) as server:
        with pytest.raises(RemoteError, match="more than fits"):
            async with connected(settings, server.url):
                pass


async def test_names_that_cannot_be_shown_are_left_out(settings: Settings) -> None:
    ids = ["good", "", "\x1b]52;c;AAAA\x07", "x" * 1000, "a\nb", "good"]
    async with small_server({"GET /v1/models": reply({"data": [{"id": each} for each in ids]})}) as server:
        async with connected(settings, server.url) as backend:
            assert [each.id for each in backend.store.list()] == ["good"]


async def test_a_server_that_goes_away_and_comes_back_is_found_again(settings: Settings) -> None:
    served: SmallServer
    async with small_server({}) as served, connected(settings, served.url) as backend:
        answer = served.answers.pop("GET /v1/models")
        with pytest.raises(RemoteError):
            await backend.store.read()
        served.answers["GET /v1/models"] = answer
        await backend.store.read()
        assert [each.id for each in backend.store.list()] == ["m"]


async def test_servers_on_this_machine_are_found_and_get_no_key_that_is_not_theirs(settings: Settings) -> None:
    async with small_server({}) as server, small_server({"GET /v1/models": reply({}, "401 Unauthorized")}) as closed:
        ports = tuple(int(each.url.rpartition(":")[2]) for each in (server, closed))
        assert [each.url for each in await nearby(settings.home, KEY, ports)] == [server.url]
        assert not any(KEY in head for head, _ in [*server.seen, *closed.seen])


PROXY = "http_proxy"


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxy")
async def test_a_server_elsewhere_is_reached_through_the_proxy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests over plain HTTP name the whole address. Servers on this machine never go there."""
    there = "GET http://models.invalid/v1/models"
    async with small_server({there: reply({"data": [{"id": "behind"}]})}) as proxy, small_server({}) as server:
        monkeypatch.setenv(PROXY, proxy.url)
        async with connected(settings, "http://models.invalid") as backend:
            assert [each.id for each in backend.store.list()] == ["behind"]
        before = len(proxy.seen)
        async with connected(settings, server.url) as backend:
            assert [each.id for each in backend.store.list()] == ["m"]
        assert len(proxy.seen) == before
        monkeypatch.setenv("no_proxy", "models.invalid")
        with pytest.raises(RemoteError) as unknown:
            async with connected(settings, "http://models.invalid"):
                pass
        assert unknown.value.message == "models.invalid cannot be reached: its name cannot be looked up."
        assert len(proxy.seen) == before


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply({}, "407 Proxy Authentication Required"), "wants a user name and a password (407)"),
        (None, "cannot be reached"),
    ],
)
async def test_a_proxy_that_does_not_help_is_named(
    answer: bytes | None, says: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_server({"GET http://models.invalid/v1/models": answer or b""}) as proxy:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = proxy.url if answer else f"http://127.0.0.1:{closed.getsockname()[1]}"
            monkeypatch.setenv(PROXY, url.replace("://", "://anna:secret@"))
            with pytest.raises(RemoteError, match=r"The proxy http://127\.0\.0\.1") as caught:
                async with connected(settings, "http://models.invalid"):
                    pass
    assert says in caught.value.message
    assert PROXY in caught.value.message
    assert "NO_PROXY" in str(caught.value.hint)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.usefixtures("no_proxy")
def test_what_an_error_of_the_connection_says(monkeypatch: pytest.MonkeyPatch) -> None:
    far = "https://models.invalid"
    late = failures.failure(ConnectTimeout("late"), far, 10.0, streaming=False)
    assert (late.message, late.hint) == (
        "models.invalid did not answer within 10 s.",
        "If it does not speak HTTPS, connect to http://models.invalid.",
    )
    reset = failures.failure(ReadError("reset"), "http://models.invalid", 10.0, streaming=False)
    assert reset.hint == "Has the server ended? If it speaks HTTPS, connect to https://models.invalid."
    monkeypatch.setenv("https_proxy", "proxy.invalid:3128")
    refused = failures.failure(ProxyError("403 Forbidden\x1b[2J"), far, 10.0, streaming=False)
    assert "does not connect to models.invalid: 403 Forbidden." in refused.message
    assert "\x1b" not in refused.message


PYTHON = "Server: BaseHTTP/0.6 Python/3.11.7"


@pytest.mark.parametrize(
    ("listed", "model"),
    [
        (reply(b"", "200 OK", "application/json", PYTHON), "default_model"),
        (reply({"data": [{"id": "org/tiny"}]}, "200 OK", "application/json", PYTHON), "org/tiny"),
    ],
    ids=["without a cache of the Hub", "with one"],
)
async def test_mlx_lm_is_known_by_what_it_does_not_say(settings: Settings, listed: bytes, model: str) -> None:
    """Without a cache of the Hub it sends the head of its list, and no list."""
    answers: dict[str, Answer] = {
        "GET /v1/models": listed,
        "GET /health": reply({"status": "ok"}, "200 OK", "application/json", PYTHON),
    }
    async with small_server(answers) as server, connected(settings, server.url) as backend:
        assert (backend.program, [each.id for each in backend.store.list()]) == ("mlx_lm.server", [model])


async def test_an_empty_answer_of_another_server_is_no_list(settings: Settings) -> None:
    error = await failure(settings, {"GET /v1/models": reply(b"")})
    assert "not OpenAI's API" in error.message


async def test_models_that_only_embed_are_not_offered_for_a_chat(settings: Settings) -> None:
    """A list of OpenAI's API says nothing of that but the name; LM Studio and Ollama say more."""
    names = ["text-embedding-3-small", "nomic-embed-text:latest", "Qwen3-Embedding-0.6B", "embedded-coder", "gpt-4o"]
    plain: dict[str, Answer] = {"GET /v1/models": reply({"data": [{"id": each} for each in names]})}
    async with small_server(plain) as server, connected(settings, server.url) as backend:
        assert [each.kind for each in backend.store.list()] == ["embedding"] * 3 + ["chat"] * 2
    tags = [
        {"name": "all-minilm:latest", "details": {"family": "bert"}},
        {"name": "nomic-embed-text"},
        {"name": "llama"},
    ]
    ollama: dict[str, Answer] = {
        "GET /api/version": reply({"version": "0.12"}),
        "GET /api/tags": reply({"models": tags}),
    }
    ollama["GET /api/ps"] = reply({"models": []})
    async with small_server(ollama) as server, connected(settings, server.url) as backend:
        assert [each.kind for each in backend.store.list()] == ["embedding", "embedding", "chat"]


async def test_what_a_model_of_ollama_takes_in_memory_is_known(settings: Settings) -> None:
    tags = {"models": [{"name": "llama:1b", "size": 700_000_000}]}
    there = {"models": [{"name": "llama:1b", "size": 1_100_000_000, "context_length": 4096}]}
    ollama: dict[str, Answer] = {"GET /api/version": reply({"version": "0.12"}), "GET /api/tags": reply(tags)}
    ollama["GET /api/ps"] = reply(there)
    async with small_server(ollama) as server, connected(settings, server.url) as backend:
        assert backend.store.manifest("llama:1b").size == 700_000_000
        (status,) = backend.sessions.status()
        assert (status.weights_bytes, status.context_length) == (0, 4096)
        assert ServerReadings(backend).of_model(status) == 1_100_000_000


async def test_lm_studio_says_which_models_there_are_and_which_are_in_memory(settings: Settings) -> None:
    vectors = {"id": "bge-m3", "type": "embeddings", "state": "loaded", "max_context_length": 512}
    resting = {"id": "qwen3-8b", "type": "llm", "state": "not-loaded", "max_context_length": 40960}
    loaded = {
        "id": "qwen3-4b",
        "type": "vlm",
        "arch": "qwen3",
        "quantization": "4bit",
        "state": "loaded",
        "max_context_length": 40960,
        "loaded_context_length": 8192,
        "capabilities": ["tool_use"],
    }
    answers: dict[str, Answer] = {
        "GET /v1/models": reply({"data": [{"id": "bge-m3", "owned_by": "organization_owner"}]}),
        "GET /api/version": reply({"error": "Unexpected endpoint or method."}),
        "GET /api/v0/models": reply({"data": [vectors, resting, loaded]}),
    }
    async with small_server(answers) as server, connected(settings, server.url) as backend:
        assert backend.program == "LM Studio"
        found = {each.id: (each.kind, each.context_length) for each in backend.store.list()}
        assert found == {"bge-m3": ("embedding", 512), "qwen3-8b": ("chat", 40960), "qwen3-4b": ("chat", 8192)}
        states = {each.name: (each.state, each.context_length) for each in backend.sessions.status()}
        assert states == {"bge-m3": ("ready", 512), "qwen3-4b": ("ready", 8192)}
        assert [await backend.calls_tools(each) for each in ("qwen3-4b", "qwen3-8b")] == [True, False]

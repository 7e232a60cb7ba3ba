"""Ollama's routes over a socket: what is listed, loaded, copied and deleted, and who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from squish.api.clients.keys import ApiKey, KeyFile
from squish.api.ollama import models
from squish.api.serving.options import Options
from squish.config.settings import Settings
from squish.errors import QueueFull, WorkerDied
from squish.format.embedding import ModelKind
from squish.generation import Finished, Timings, Usage
from squish.models.store import Manifest, Store
from squish.sessions.model_status import ModelStatus
from tests.api.raw_http import Answer, Server, ask, connected, parse, request_bytes, scripted

CHAT = {"model": "tiny:1b", "messages": [{"role": "user", "content": "Hi"}]}
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}<tool_call>{{ tool_call.name }}</tool_call>{# <think> #}"


def install(store: Store, id: str, days: int = 0, *, kind: ModelKind = "chat", template: str = TEMPLATE) -> None:
    """A model without weights, but with all that is told of one."""
    with store.staging(id) as folder:
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        (folder / "tokenizer.json").write_text('{"added_tokens": ["<think>", "</think>"]}', encoding="utf-8")
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        installed = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)
        manifest = Manifest(id, f"hub:org/{id[:4]}", None, "llama", "4-bit", 8_030_000_000, 2048, "mit", installed)
        store.commit(folder, replace(manifest, kind=kind))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path, cache_dir=tmp_path / "models")
    install(Store(found.cache_dir), "tiny:1b")
    install(Store(found.cache_dir), "other", days=1)
    return found


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with scripted(settings) as running:
        yield running


@pytest.fixture
async def open_server(settings: Settings) -> AsyncIterator[Server]:
    async with scripted(settings, Options(allow_pull=True)) as running:
        yield running


async def told(server: Server, method: str, path: str, body: Any = None) -> Any:
    answer = await ask(server, method, path, body)
    assert answer.status == 200, answer.body
    return json.loads(answer.body) if answer.body else None


def error(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    [(key, message)] = json.loads(answer.body).items()
    assert key == "error"
    return answer.status, message


async def test_what_programs_look_for(server: Server) -> None:
    for path in ("/", "/api/version", "/api/tags", "/api/ps"):
        with_body, without = await ask(server, "GET", path), await ask(server, "HEAD", path)
        assert (with_body.status, without.status, without.body) == (200, 200, b"")
    assert (await ask(server, "GET", "/")).body == b"Ollama is running"
    version = (await told(server, "GET", "/api/version"))["version"]
    assert [int(part) for part in version.split(".")] > [0, 13, 5]


async def test_the_installed_models_the_newest_first(server: Server) -> None:
    [newest, oldest] = (await told(server, "GET", "/api/tags"))["models"]
    assert [newest["name"], oldest["model"]] == ["other", "tiny:1b"]
    assert newest["modified_at"] == "2026-01-02T00:00:00Z"
    assert (len(newest["digest"]), newest["digest"] == oldest["digest"]) == (64, True)
    assert newest["size"] > 0
    assert newest["details"] == {
        "parent_model": "", "format": "safetensors", "family": "llama", "families": ["llama"], "parameter_size": "8.0B",
        "quantization_level": "4-bit",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [{"model": "tiny:1b"}, {"name": "tiny:1b", "verbose": True}, {"model": "other:latest"}]
)
async def test_everything_about_a_model(server: Server, body: dict[str, Any]) -> None:
    shown = await told(server, "POST", "/api/show", body)
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert (shown["license"], shown["template"]) == ("mit", TEMPLATE)
    info = shown["model_info"]
    assert (info["general.architecture"], info["llama.context_length"], info["llama.embedding_length"]) == (
        "llama", 2048, 64
    )  # fmt: skip
    assert info["llama.attention.head_count_kv"] == 2
    assert ["num_ctx", "2048"] in [line.split() for line in shown["parameters"].splitlines()]
    assert f"FROM {info['general.basename']}" in shown["modelfile"]


async def test_the_models_in_memory(server: Server) -> None:
    server.sessions.statuses = [
        ModelStatus("tiny:1b", "ready", 0, 0, 1, 1000, 2048, "test", None, unloads_in=300.0),
        ModelStatus("other", "ready", 0, 0, 1, 1000, 2048, "test", None),
        ModelStatus("m", "loading", 0, 0, 1, 0, 0, "", None),
        ModelStatus("tiny:1b", "ready", 0, 0, 1, 1000, 2048, "being unloaded", None, unloads_in=0.0),
    ]
    before = datetime.now(UTC)
    [soon, never] = (await told(server, "GET", "/api/ps"))["models"]
    after = datetime.now(UTC)
    assert (soon["name"], soon["size"], soon["context_length"]) == ("tiny:1b", 1000, 2048)
    in_five_minutes = timedelta(minutes=5)
    assert before + in_five_minutes <= datetime.fromisoformat(soon["expires_at"]) <= after + in_five_minutes
    assert datetime.fromisoformat(never["expires_at"]).year > after.year + 200


@pytest.mark.parametrize(
    ("body", "kept", "reason"),
    [
        ({}, [("wanted",), ("loaded",), (None,)], "load"),
        ({"keep_alive": "10m"}, [("wanted",), ("loaded",), (600.0,)], "load"),
        ({"keep_alive": 0}, [(0,)], "unload"),
    ],
)
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_nothing_to_answer_loads_or_unloads(
    server: Server, path: str, body: dict[str, Any], kept: list[tuple[Any]], reason: str
) -> None:
    answer = await told(server, "POST", path, {"model": "tiny:1b"} | body)
    assert (answer["done"], answer["done_reason"]) == (True, reason)
    assert server.sessions.kept == [("tiny:1b", *each) for each in kept]


async def test_a_stream_of_lines_and_one_that_breaks_off(server: Server) -> None:
    for breaks in (False, True):
        async with connected(server, request_bytes("POST", "/api/chat", CHAT)) as (reader, _):
            script = await server.sessions.admitted.get()
            script.accept(9)
            script.say("Hel")
            if breaks:
                script.fail(WorkerDied("It died."))
            else:
                script.tell(Finished(0, "length", Usage(9, 2), Timings(0.1, 0.2)))
            answer = parse(await reader.read())
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.body.split(b"\n") if line.startswith(b"{")]
        assert lines[0]["message"]["content"] == "Hel"
        if breaks:
            assert lines[-1] == {"error": "It died."}
        else:
            assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "length")


async def test_a_whole_answer(server: Server) -> None:
    asked = asyncio.create_task(
        ask(server, "POST", "/api/generate", {"model": "tiny:1b", "prompt": "x", "stream": False})
    )
    (await server.sessions.admitted.get()).answer("Hello")
    found = json.loads((await asked).body)
    assert (found["response"], found["done"], found["model"]) == ("Hello", True, "tiny:1b")


async def test_every_refusal_is_in_words(server: Server) -> None:
    cases: list[tuple[str, str, Any, int, str]] = [
        ("POST", "/api/chat", b"{", 400, "not valid JSON"),
        ("POST", "/api/chat", {"model": "tiny:1b", "options": {"mirostat": 1}}, 200, ""),
        ("POST", "/api/chat", CHAT | {"options": {"mirostat": 1}}, 400, "options.mirostat"),
        ("POST", "/api/show", {"model": "none:1b"}, 404, "model not found: none:1b is not installed. "),
        ("POST", "/api/show", {"model": "../../etc/passwd"}, 404, "model not found"),
        ("POST", "/api/show", {}, 400, "model is missing"),
        ("GET", "/api/chat", None, 405, "use POST"),
        ("GET", "/api/nothing", None, 404, "/api/chat"),
        ("POST", "/api/create", {"model": "x", "from": "y"}, 404, "There is nothing at /api/create"),
        ("POST", "/api/pull", {"model": "none:1b"}, 403, "--allow-pull"),
        ("POST", "/api/copy", {"source": "tiny:1b", "destination": "x"}, 403, "--allow-pull"),
        ("DELETE", "/api/delete", {"model": "tiny:1b"}, 403, "--allow-pull"),
    ]
    for method, path, body, status, words in cases:
        answer = await ask(server, method, path, body)
        if status == 200:
            assert answer.status == 200
            continue
        assert error(answer)[0] == status
        assert words in error(answer)[1]
    server.sessions.refusal = QueueFull("Full.")
    assert error(await ask(server, "POST", "/api/chat", CHAT)) == (429, "Full.")
    assert len((await told(server, "GET", "/api/tags"))["models"]) == 2


async def test_the_key_is_asked_for_everywhere(settings: Settings) -> None:
    async with scripted(Settings(home=settings.home, cache_dir=settings.cache_dir, api_key="right")) as server:
        for method, path in (("GET", "/"), ("GET", "/api/tags"), ("POST", "/api/chat"), ("DELETE", "/api/delete")):
            answer = await ask(server, method, path, None if method == "GET" else CHAT)
            assert answer.status == 401
            assert "API key" in error(answer)[1]
        right = await ask(server, "GET", "/api/tags", authorization="Bearer right")
        assert right.status == 200


async def test_a_key_sees_only_its_models(settings: Settings) -> None:
    alice = {"authorization": f"Bearer {KeyFile(settings.home).add(ApiKey(name='alice', hash='', models=('other',)))}"}
    async with scripted(settings) as server:
        names = ("tiny:1b", "other")
        server.sessions.statuses = [ModelStatus(each, "ready", 1, 0, 1, 1000, 2048, "test", None) for each in names]
        for path in ("/api/tags", "/api/ps"):
            listed = json.loads((await ask(server, "GET", path, **alice)).body)["models"]
            assert [each["name"] for each in listed] == ["other"]


async def test_a_copy_and_its_end(open_server: Server) -> None:
    server = open_server
    await told(server, "POST", "/api/copy", {"source": "tiny:1b", "destination": "mine:latest"})
    assert (await told(server, "GET", "/api/tags"))["models"][0]["name"] == "mine"
    again = await ask(server, "POST", "/api/copy", {"source": "tiny:1b", "destination": "mine"})
    assert error(again)[0] == 400
    server.sessions.statuses = [ModelStatus("mine", "ready", 1, 0, 1, 1000, 2048, "test", None)]
    assert error(await ask(server, "DELETE", "/api/delete", {"model": "mine"}))[0] == 409
    server.sessions.statuses = []
    await told(server, "DELETE", "/api/delete", {"name": "mine:latest"})
    assert server.sessions.kept == [("mine", "unloaded")]
    assert len((await told(server, "GET", "/api/tags"))["models"]) == 2
    assert error(await ask(server, "DELETE", "/api/delete", {"model": "mine"}))[0] == 404
    for path in ("/etc/passwd", "~", "./x"):
        refused = await ask(server, "POST", "/api/copy", {"source": "tiny:1b", "destination": path})
        assert error(refused)[0] == 404


async def test_a_pull_of_what_is_installed_needs_no_switch(server: Server) -> None:
    answer = await ask(server, "POST", "/api/pull", {"model": "other:latest"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert b'{"status":"success"}' in answer.body
    assert await told(server, "POST", "/api/pull", {"name": "other", "stream": False}) == {"status": "success"}


async def test_an_embedding_model_has_nothing_that_is_for_answers(settings: Settings, server: Server) -> None:
    install(Store(settings.cache_dir), "vectors", kind="embedding")
    shown = await told(server, "POST", "/api/show", {"model": "vectors"})
    assert shown["parameters"].split() == ["num_ctx", "2048"]
    assert "temperature" not in shown["modelfile"]


@pytest.mark.parametrize(("path", "field"), [("/api/embed", "input"), ("/api/embeddings", "prompt")])
@pytest.mark.parametrize("text", [None, "", "x"])
async def test_a_model_that_writes_makes_no_vectors_and_is_not_loaded_for_any(
    server: Server, path: str, field: str, text: str | None
) -> None:
    refused = await ask(server, "POST", path, {"model": "tiny:1b", field: text})
    assert error(refused)[0] == 400
    assert "not an embedding model" in error(refused)[1]
    assert server.sessions.kept == []


@pytest.mark.parametrize("think", [True, "low", "high"])
async def test_a_model_that_cannot_think_refuses_to(settings: Settings, server: Server, think: bool | str) -> None:
    install(Store(settings.cache_dir), "plain:1b", template="{{ messages[0].content }}")
    for path, question in (("/api/chat", CHAT), ("/api/generate", {"prompt": "Hi"})):
        refused = await ask(server, "POST", path, question | {"model": "plain:1b", "think": think})
        assert error(refused) == (400, '"plain:1b" does not support thinking. Leave think out.')
        missing = await ask(server, "POST", path, question | {"model": "none:1b", "think": think})
        assert error(missing)[0] == 404
    for model, wanted in (("plain:1b", False), ("tiny:1b", think)):
        asked = asyncio.create_task(ask(server, "POST", "/api/chat", CHAT | {"model": model, "think": wanted}))
        (await server.sessions.admitted.get()).answer("Hello")
        assert (await asked).status == 200


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1500, "2K"),
        (134_515_008, "134.52M"),
        (8_030_000_000, "8.0B"),
        (70_600_000_000, "70.6B"),
    ],
)
def test_a_number_of_parameters(number: int, text: str) -> None:
    assert models.parameter_size(number) == text

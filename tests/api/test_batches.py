"""Files and batches over HTTP, with OpenAI's own client: answers, refusals, an end in the middle, and a new start."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from squish.api.batches.files import read_upload
from squish.api.batches.kept import KeptBatches
from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded, EngineError
from squish.generation import Usage
from tests.api.raw_http import Server, ask, client, scripted
from tests.later import openai

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def request(id: str, text: str = "Hi", **fields: Any) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": id, "method": "POST", "url": CHAT, "body": body} | fields)


def settings(home: Path) -> Settings:
    return Settings(home=home, cache_dir=home / "models", max_concurrency=1)


async def created(api: openai.AsyncOpenAI, texts: Sequence[str]) -> Any:
    file = await api.files.create(file=("in.jsonl", "\n".join(texts).encode()), purpose="batch")
    return await api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


async def ended(api: openai.AsyncOpenAI, id: str) -> Any:
    while (batch := await api.batches.retrieve(id)).status not in ("completed", "failed", "cancelled"):
        await asyncio.sleep(0.005)
    return batch


async def read(api: openai.AsyncOpenAI, id: str | None) -> dict[str, Any]:
    assert id is not None
    found = [json.loads(each) for each in (await api.files.content(id)).text.splitlines()]
    return {each["custom_id"]: each["response"] for each in found}


async def answer(server: Server, text: str) -> None:
    script = await server.sessions.admitted.get()
    assert script.generation.request.background
    script.accept()
    script.say(text)
    script.finish(usage=Usage(7, 2, 3))


async def test_each_request_is_answered_or_told_what_is_wrong(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        batch = await created(api, [request("a"), "", request("b"), request("c", body={"model": "m", "messages": []})])
        await answer(server, "first")
        (await server.sessions.admitted.get()).fail(ContextLengthExceeded("too long"))
        batch = await ended(api, batch.id)
        assert (batch.status, batch.request_counts.model_dump()) == (
            "completed",
            {"total": 3, "completed": 1, "failed": 2},
        )
        answers = await read(api, batch.output_file_id)
        assert answers["a"]["body"]["choices"][0]["message"]["content"] == "first"
        assert answers["a"]["status_code"] == 200
        failures = await read(api, batch.error_file_id)
        assert failures["b"]["body"]["error"]["code"] == "context_length_exceeded"
        assert failures["c"]["body"]["error"]["param"] == "messages"
        assert [each.id async for each in await api.batches.list()] == [batch.id]
        assert {each.purpose async for each in await api.files.list()} == {"batch", "batch_output"}
        text = (await ask(server, "GET", "/metrics")).body.decode()
        assert 'squish_completion_tokens_total{model="m"} 2.0' in text


async def test_a_file_with_mistakes_fails_as_a_whole_and_names_the_lines(tmp_path: Path) -> None:
    texts = [request("a"), request("a"), "{", request("b", url="/v1/embeddings"), request("c", method="GET")]
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        batch = await ended(api, (await created(api, texts)).id)
        assert batch.status == "failed"
        assert [(each.line, each.param) for each in batch.errors.data] == [
            (2, "custom_id"),
            (3, None),
            (4, "url"),
            (5, "method"),
        ]
        assert server.sessions.requests == []


async def test_what_is_answered_when_the_server_ends_is_not_asked_again(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        batch = await created(api, [request("a"), request("b")])
        await answer(server, "first")
        await server.sessions.admitted.get()
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        await answer(server, "second")
        batch = await ended(api, batch.id)
        answers = await read(api, batch.output_file_id)
        assert [answers[id]["body"]["choices"][0]["message"]["content"] for id in "ab"] == ["first", "second"]
        assert len(server.sessions.requests) == 1
        assert batch.error_file_id is None


async def test_a_kill_at_any_moment_of_the_end_leaves_no_file_that_no_batch_names(tmp_path: Path) -> None:
    """The server ends after it has made both files, and before the batch says so; then the failure is tried again."""
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        batch = await created(api, [request("a"), request("b")])
        await answer(server, "first")
        for _ in range(2):
            (await server.sessions.admitted.get()).fail(EngineError("not now"))
        batch = await ended(api, batch.id)
        made = [await read(api, batch.output_file_id), await read(api, batch.error_file_id)]
        assert [list(each) for each in made] == [["a"], ["b"]]
    directory = settings(tmp_path).home / "batches"
    assert {path.name: oct(path.stat().st_mode & 0o77) for path in directory.iterdir()} == dict.fromkeys(
        (path.name for path in directory.iterdir()), "0o0"
    )
    kept = KeptBatches(directory)
    known = kept.find(batch.id)
    assert known
    kept.change(known, status="finalizing", output_file_id=None, error_file_id=None)
    parts = [directory / f"{id}.jsonl" for id in (batch.output_file_id, batch.error_file_id)]
    (directory / f"{batch.id}.lines").write_bytes(b"".join(part.read_bytes() for part in parts))
    orphans = [directory / f"file-{digit * 24}.jsonl" for digit in "01"]
    for orphan in orphans:
        orphan.write_text("{}")  # an upload that was cut off by a kill, and one that is under way in another server
    os.utime(orphans[0], (0, 0))
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        await answer(server, "second")
        batch = await ended(api, batch.id)
        assert set(await read(api, batch.output_file_id)) == {"a", "b"}
        assert batch.error_file_id is None
        assert {each.id async for each in await api.files.list()} == {batch.input_file_id, batch.output_file_id}
        assert [orphan.exists() for orphan in orphans] == [False, True]


async def test_a_cancelled_batch_keeps_what_was_answered(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        batch = await created(api, [request("a"), request("b")])
        await answer(server, "first")
        await server.sessions.admitted.get()
        assert (await api.batches.cancel(batch.id)).status == "cancelling"
        batch = await ended(api, batch.id)
        assert batch.status == "cancelled"
        assert set(await read(api, batch.output_file_id)) == {"a"}
        with pytest.raises(openai.BadRequestError, match="is cancelled"):
            await api.batches.cancel(batch.id)


async def test_a_batch_waits_for_the_one_before_it_and_holds_its_file(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server, client(server) as api:
        first, second = await created(api, [request("a")]), await created(api, [request("b")])
        with pytest.raises(openai.BadRequestError, match="still needs it"):
            await api.files.delete(second.input_file_id)
        await answer(server, "first")
        await ended(api, first.id)
        await answer(server, "second")
        await ended(api, second.id)
        assert (await api.files.delete(second.input_file_id)).deleted
        with pytest.raises(openai.NotFoundError):
            await api.files.retrieve(second.input_file_id)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-0"}, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"metadata": {str(each): "" for each in range(17)}}, "metadata"),
    ],
)
async def test_a_batch_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    async with scripted(settings(tmp_path)) as server:
        content = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        content += b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n'
        headers = {"content-type": "multipart/form-data; boundary=x"}
        file = json.loads((await ask(server, "POST", "/v1/files", content, **headers)).body)
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"} | fields
        answer = await ask(server, "POST", "/v1/batches", body)
        assert (answer.status, answer.error["param"]) == (400, named)


async def test_ids_that_are_paths_are_unknown(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server:
        for path in ("/v1/files/..%2Fsecret", "/v1/files/lock/content", "/v1/batches/..%2F..%2Fx", "/v1/batches/lock"):
            assert (await ask(server, "GET", path)).status == 404


def test_an_upload_comes_out_as_it_went_in() -> None:
    content = bytes(range(256)) + b"\r\n--y\r\n\r\n\n\n"
    form = b'--b0"\r\nContent-Disposition: form-data; name="file"; filename="../a\x1b.jsonl"\r\n'
    form += b"Content-Type: application/jsonl\r\n\r\n" + content
    form += b'\r\n--b0"\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b0"--\r\n'
    assert read_upload(form) == ("a.jsonl", "batch", content)

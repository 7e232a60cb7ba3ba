"""A dialect brings Structs and pure functions. This one is spoken in named events, and in lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from squish.api import bodies, dialects
from squish.api.dialect import Asked, Call, Dialect, Frames, Pieces, Route, Row, WithStatus
from squish.api.errors import Failure
from squish.api.replies.frames import JsonLines, NamedEvents
from squish.api.routing import LARGE_BODY
from squish.api.serving.options import Options, Timing
from squish.config.settings import Settings
from squish.errors import InvalidInput, QueueFull, WorkerDied
from squish.generation import (
    Accepted,
    Finished,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    TextDelta,
    TextPrompt,
    Timings,
    Usage,
)
from tests.api.raw_http import Server, ask, connected, parse, request_bytes, scripted


class Wish(msgspec.Struct):
    say: str
    until: tuple[str, ...] = ()
    whole: bool = False


class Began(msgspec.Struct, tag="began"):
    tokens: int


class Piece(msgspec.Struct, tag="piece"):
    text: str


class Ended(msgspec.Struct, tag="ended"):
    by: str | None


class Ping(msgspec.Struct, tag="ping"):
    pass


class Broken(msgspec.Struct, tag="broken"):
    why: str
    id: str = ""


class Spoken:
    """The replies of the dialect."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def whole(self, rows: Sequence[Row]) -> msgspec.Struct:
        return Ended(f"{rows[0].text}|{rows[0].stop}")

    def chunks(self, event: GenerationEvent) -> Sequence[msgspec.Struct]:
        match event:
            case Accepted(prompt_tokens=(tokens, *_)):
                return [Began(tokens)]
            case TextDelta(text=text):
                return [Piece(text)]
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[msgspec.Struct]:
        return [Ended(rows[0].stop)]

    def alive(self, event: GenerationEvent | None) -> Sequence[msgspec.Struct]:
        return [Ping()]

    def failed(self, failure: Failure, request_id: str) -> Sequence[msgspec.Struct]:
        return [Broken(failure.code)]


def dialect(frames: Frames) -> Dialect:
    def read(body: bytes) -> Asked:
        wish = bodies.decode(body, Wish)
        if not wish.say:
            raise InvalidInput("say is empty.", param="say")
        request = GenerationRequest("m", (TextPrompt(wish.say),), SamplingParams(stop=wish.until))
        return Asked(request, Spoken(frames), not wish.whole)

    def error(failure: Failure, request_id: str) -> Broken:
        return Broken(failure.message, request_id)

    paths = ("/test/wish", "/test/none")
    return Dialect(
        "test", ("/test",), paths, {"/test/wish": read}, error, Broken, (), routes(frames), id_header="wish-id"
    )


def routes(frames: Frames) -> tuple[Route, ...]:
    """What the dialect has beside answers."""

    async def show(call: Call) -> Piece:
        async with call.asking(call.parts["name"]):
            call.services.runtime.store.find(call.parts["name"])
        return Piece("never")

    async def remove(call: Call) -> WithStatus:
        wish = await call.read(lambda body: bodies.decode(body, Wish))
        call.note("removed")
        return WithStatus(Piece(f"{wish.say} {call.parts['name']} {call.query.get('at')}"), 202)

    async def root(call: Call) -> WithStatus:
        return WithStatus("It runs.")

    async def progress(call: Call) -> Pieces:
        wish = await call.read(lambda body: bodies.decode(body, Wish))

        async def items() -> AsyncGenerator[msgspec.Struct, None]:
            for letter in wish.say:
                if letter == "!":
                    raise WorkerDied("It died.")
                yield Piece(letter)

        return Pieces(frames, items(), lambda failure, request_id: [Broken(failure.code)])

    return (
        Route("GET", "/test/named/<name:path>", show),
        Route("DELETE", "/test/named/<name:path>", remove),
        Route("HEAD", "/test", root),
        Route("GET", "/test", root),
        Route("POST", "/test/progress", progress),
    )


@pytest.fixture(params=[NamedEvents(), JsonLines()], ids=["events", "lines"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    monkeypatch.setattr(dialects, "DIALECTS", (*dialects.DIALECTS, dialect(request.param)))
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models")
    options = Options(timing=Timing(grace=0.0, comments=0.05))
    async with scripted(settings, options) as running:
        yield running


def said(stream: bytes) -> list[dict[str, Any]]:
    """The values of a chunked stream, in order; each event has the name that is in its value."""
    values = []
    for line in stream.split(b"\n"):
        text = line.strip().removeprefix(b"data: ")
        if text.startswith(b'{"type"'):
            values.append(json.loads(text))
    names = [line.strip()[7:].decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    assert names in ([], [value["type"] for value in values])
    assert bool(names) is not (b"application/x-ndjson" in stream)
    return values


async def test_a_stream_in_its_own_events(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/test/wish", {"say": "x", "until": list("abcdef")})) as (
        reader,
        _,
    ):
        script = await server.sessions.admitted.get()
        assert script.generation.request.sampling.stop == tuple("abcdef")
        before = await reader.readuntil(b'{"type":"ping"}')  # while the prompt waits
        script.accept(9)
        script.say("Hello")
        script.tell(Finished(0, "stop", Usage(9, 2), Timings(0.1, 0.2), stop="c"))
        values = [value for value in said(before + await reader.read()) if value["type"] != "ping"]
    assert values == [{"type": "began", "tokens": 9}, {"type": "piece", "text": "Hello"}, {"type": "ended", "by": "c"}]


async def test_a_probe_of_a_half_closed_connection_is_nothing_in_its_stream(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/test/wish", {"say": "x"})) as (reader, writer):
        script = await server.sessions.admitted.get()
        script.accept(9)
        before = await reader.readuntil(b'"began","tokens":9}')
        writer.write_eof()
        lines = b"ndjson" in before
        before += await reader.readuntil(b"\r\n1\r\n \r\n" if lines else b"3\r\n:\n\n\r\n")
        script.say("Hello")
        script.finish()
        after = await reader.read()
    assert [value["type"] for value in said(before + after) if value["type"] != "ping"] == ["began", "piece", "ended"]
    assert server.sessions.cancelled.empty()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stream_that_breaks_in_its_own_words(server: Server, cancelled: bool) -> None:
    async with connected(server, request_bytes("POST", "/test/wish", {"say": "x"})) as (reader, _):
        script = await server.sessions.admitted.get()
        script.accept(9)
        script.say("Hel")
        if cancelled:
            script.generation.cancel()
        else:
            script.fail(WorkerDied("It died."))
        values = said(await reader.read())
    assert values[-1] == {"type": "broken", "why": "request_cancelled" if cancelled else "worker_died", "id": ""}
    assert not [value for value in values if value["type"] == "ended"]


async def test_a_whole_answer_and_the_stop_that_ended_it(server: Server) -> None:
    asked = asyncio.create_task(ask(server, "POST", "/test/wish", {"say": "x", "whole": True, "until": ["end"]}))
    script = await server.sessions.admitted.get()
    script.accept()
    script.say("Hi")
    script.tell(Finished(0, "stop", Usage(9, 2), Timings(0.1, 0.2), stop="end"))
    assert json.loads((await asked).body) == {"type": "ended", "by": "Hi|end"}


async def test_failures_are_worded_by_the_dialect_of_the_path(server: Server) -> None:
    cases: list[tuple[str, str, Any, int]] = [
        ("POST", "/test/wish", {"say": ""}, 400),
        ("POST", "/test/wish", b"{", 400),
        ("GET", "/test/wish", None, 405),
        ("GET", "/test/nowhere", None, 404),
        ("DELETE", "/test", None, 405),
        ("GET", "/test/named/none:1b", None, 404),
        ("GET", "/test/named/..%2fetc", None, 404),
        ("DELETE", "/test/named/x", {"say": 1}, 400),
        ("POST", "/test/progress", {"say": "!"}, 500),
    ]
    for method, path, body, status in cases:
        answer = await ask(server, method, path, body, **{"x-request-id": "abc"})
        assert answer.status == status
        assert answer.headers["wish-id"] == answer.headers["x-request-id"] == "abc"
        found = json.loads(answer.body)
        assert (found["type"], found["id"]) == ("broken", "abc")
    assert "/test/wish and /test/none" in json.loads((await ask(server, "GET", "/test/nowhere")).body)["why"]
    server.sessions.refusal = QueueFull("Full.")
    full = await ask(server, "POST", "/test/wish", {"say": "x"})
    assert (full.status, json.loads(full.body)["why"]) == (429, "Full.")
    other = await ask(server, "GET", "/tester")
    assert other.error["code"] == "unknown_url"
    assert "wish-id" not in other.headers


async def test_what_else_can_be_asked_for(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "squish.access")
    removed = await ask(server, "DELETE", "/test/named/a%2Fb:1b?at=once", {"say": "Bye"})
    assert (removed.status, json.loads(removed.body)) == (202, {"type": "piece", "text": "Bye a/b:1b once"})
    assert "removed" in caplog.text
    large = await ask(server, "DELETE", "/test/named/x", {"say": "y" * LARGE_BODY})
    assert json.loads(large.body)["text"] == "y" * LARGE_BODY + " x None"
    found = await ask(server, "GET", "/test")
    assert (found.status, found.headers["content-type"], found.body) == (200, "text/plain; charset=utf-8", b"It runs.")
    assert (await ask(server, "HEAD", "/test")).body == b""
    missing = json.loads((await ask(server, "GET", "/test/named/none:1b")).body)
    assert "squish pull none:1b" in missing["why"]


async def test_progress_comes_bit_by_bit_and_breaks_off_in_the_dialects_words(server: Server) -> None:
    async with connected(server, request_bytes("POST", "/test/progress", {"say": "ab"})) as (reader, _):
        assert [value["text"] for value in said(await reader.read())] == ["a", "b"]
    async with connected(server, request_bytes("POST", "/test/progress", {"say": "a!"})) as (reader, _):
        assert said(await reader.read())[-1] == {"type": "broken", "why": "worker_died", "id": ""}


async def test_routes_need_the_key_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "DIALECTS", (*dialects.DIALECTS, dialect(JsonLines())))
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models", api_key="k")) as server:
        assert (await ask(server, "GET", "/test")).status == 401
        assert (await ask(server, "GET", "/test", **{"x-api-key": "k"})).status == 200


async def test_a_header_that_is_refused_is_worded_by_the_dialect_of_its_path(server: Server) -> None:
    data = request_bytes("POST", "/test/wish", {"say": "x"}, **{"content-encoding": "gzip"})
    async with connected(server, data) as (reader, _):
        answer = parse(await reader.read())
    assert (answer.status, json.loads(answer.body)["type"]) == (415, "broken")


async def test_a_page_may_delete_where_it_may_ask(tmp_path: Path) -> None:
    page = "https://app.example"
    settings = replace(Settings(home=tmp_path, cache_dir=tmp_path / "models"), api_key="k")
    async with scripted(settings, Options(cors_origins=(page,))) as server:
        preflight = {"origin": page, "access-control-request-method": "DELETE"}
        answer = await ask(server, "OPTIONS", "/v1/models/m", **preflight)
    assert "DELETE" in answer.headers["access-control-allow-methods"]


def test_an_event_without_a_name_is_a_mistake_in_the_dialect() -> None:
    with pytest.raises(TypeError, match="Wish has no tag"):
        NamedEvents().data(Wish("x"))

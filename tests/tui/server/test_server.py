"""The server screen on the real API and the real model: a port that is taken, requests as rows, cancelling one."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from squish.api.clients.keys import ApiKey, KeyFile
from squish.commands.serving.serve import serve_beside
from squish.config.settings import Settings
from squish.errors import QueueFull
from squish.generation import TITLE, Accepted, Finished, GenerationRequest, TextDelta, TextPrompt, Timings, Usage
from squish.runtime import Runtime
from squish.sessions.activity import Log, RequestStatus
from squish.sessions.manager import SessionManager
from squish.sessions.request_details import RequestDetails, RequestParameter
from squish.tui.app import SquishApp
from squish.tui.screens.server import ServerScreen
from squish.tui.server.load_history import LoadHistory
from squish.tui.widgets.table import Table
from squish.tui.windows.request_details import RequestScreen, sections
from tests.conftest import MODEL, PATIENCE, UNENDING
from tests.tui.chat.test_real import wait_for
from tests.tui.scenes import screen_text, until
from tests.tui.scripted import MODELS, SMOL, Clock, FrozenMachine, ScriptedApp, ScriptedSessions


def post(url: str, prompt: str, tokens: int) -> dict[str, object]:
    body = {
        "model": MODEL,
        "max_tokens": tokens,
        "logit_bias": dict(UNENDING),
        "messages": [{"role": "user", "content": prompt}],
    }
    asked = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answered:
        decoded: dict[str, object] = json.load(answered)
    return decoded


async def test_the_api_runs_beside_the_chat_and_shows_its_requests(real_settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = replace(real_settings, port=other.getsockname()[1], home=tmp_path)
        async with Runtime(settings) as runtime:
            app = SquishApp(runtime, MODEL, serve=serve_beside)
            async with app.run_test(size=(110, 30)) as pilot:
                await pilot.press("f5")
                await until(pilot, lambda: isinstance(app.screen, ServerScreen) and "off" in screen_text(pilot))
                await pilot.press("s")
                await wait_for(pilot, lambda: "listens on port" in screen_text(pilot))
                await pilot.press("n", "s")
                await wait_for(pilot, lambda: "● on" in screen_text(pilot))
                short = asyncio.create_task(asyncio.to_thread(post, app.server.url, "Say hi.", 4))
                await wait_for(pilot, short.done)
                assert short.result()["object"] == "chat.completion"
                await wait_for(pilot, lambda: "✓ done" in screen_text(pilot))
                await wait_for(pilot, lambda: "chat/completions 127.0.0.1" in screen_text(pilot))
                assert "Say hi" not in screen_text(pilot), "what is asked stays between client and model"
                long = asyncio.create_task(asyncio.to_thread(post, app.server.url, "Tell a very long story.", 7000))
                await wait_for(pilot, lambda: "▶ writing" in screen_text(pilot))
                await pilot.press("home", "x")
                await wait_for(pilot, long.done)
                with pytest.raises(urllib.error.HTTPError) as stopped:
                    await long
                stopped.value.close()
                await wait_for(pilot, lambda: "■ stopped" in screen_text(pilot))
                assert "no API key is set" in screen_text(pilot)
                KeyFile(tmp_path).add(ApiKey(name="somebody", hash=""))
                await wait_for(pilot, lambda: "clients must send a key" in screen_text(pilot))
                await pilot.press("s")
                await wait_for(pilot, lambda: app.server.state == "off")


def told(app: ScriptedApp) -> list[str]:
    return [each.message for each in app._notifications]


async def test_the_marked_request_is_cancelled() -> None:
    app = ScriptedApp(*MODELS)
    log = Log()
    request = GenerationRequest("qwen3:8b", (TextPrompt("secret"),), client="/v1/completions 10.0.0.7")
    for _ in range(2):
        log.begin(request, lambda: None).see(Accepted((64,)))
    app.engine.requests = log.snapshot()
    async with app.run_test() as pilot:
        await pilot.press("f5")
        await until(pilot, lambda: "◐ prefill" in screen_text(pilot))
        await pilot.press("down", "x")
        await until(pilot, lambda: app.engine.cancelled == [1])
        app.engine.requests[0] = replace(app.engine.requests[0], state="stopped")
        await pilot.press("x")
        await until(pilot, lambda: "The marked request has ended. ↑ and ↓ mark another." in told(app))
        app.engine.requests[1] = replace(app.engine.requests[1], state="done")
        app.clear_notifications()
        await pilot.press("delete")
        await until(pilot, lambda: told(app) == ["The marked request has ended."])
    assert app.engine.cancelled == [1]


async def test_the_request_for_a_title_is_not_taken_for_one_of_the_user() -> None:
    app = ScriptedApp(*MODELS)
    one = RequestStatus(1, "", SMOL.id, 1, "done", 64, 9, 0.3, 48.0, 4.0, None)
    app.engine.requests = [one, replace(one, id=2, client=TITLE)]
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("f5")
        await until(pilot, lambda: "this chat" in screen_text(pilot) and "↳ chat title" in screen_text(pilot))
        colors = {cell.style for cell in app.screen.query_one(Table).get_row_at(0)}
        assert len(colors) == 1 and colors != {cell.style for cell in app.screen.query_one(Table).get_row_at(1)}


async def test_the_window_of_a_request_follows_it() -> None:
    app = ScriptedApp(*MODELS)
    log = Log()
    client = "/v1/completions \x1b]0;owned\x07 10.0.0.7"
    trace = log.begin(GenerationRequest("qwen3:8b", (TextPrompt("secret"),), client=client), lambda: None)
    trace.see(Accepted((1640,)))
    app.engine.requests = log.snapshot()
    async with app.run_test() as pilot:
        await pilot.press("f5")
        await until(pilot, lambda: "details" in screen_text(pilot))
        assert "kept in memory" not in screen_text(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "⚠ prompts and answers of new requests are kept in memory" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RequestScreen) and "◐ prefill" in screen_text(pilot))
        assert "secret" not in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)
        trace.see(TextDelta(0, "a"))
        trace.see(Finished(0, "length", Usage(1640, 3, 1600), Timings(0.1, 0.2)))
        app.engine.requests = log.snapshot()
        await until(pilot, lambda: "✓ done · reached max tokens" in screen_text(pilot))
        assert "1,640, 1,600 of them cached" in screen_text(pilot)
        app.engine.requests = []
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ServerScreen) and "No requests yet" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ServerScreen))


async def test_what_another_server_does_not_say_is_not_shown_as_nothing() -> None:
    app = ScriptedApp(*MODELS)
    log = Log()
    usages = {"all": Usage(64, 3, 60), "some": Usage(64, 3), "none": Usage(0, 3)}
    for model, usage in usages.items():
        trace = log.begin(GenerationRequest(model, (TextPrompt("hi"),)), lambda: None)
        trace.see(TextDelta(0, "a"))
        trace.see(Accepted((usage.prompt_tokens,)))
        trace.see(Finished(0, "stop", usage, Timings(0.1, 0.2, with_queue=True)))
    app.engine.requests = log.snapshot()
    async with app.run_test() as pilot:
        await pilot.press("f5")
        await until(pilot, lambda: "– → 3" in screen_text(pilot) and "64 → 3" in screen_text(pilot))
    told = [dict(row for _, rows in sections(each) for row in rows) for each in app.engine.requests]
    assert [each["Prompt"] for each in told] == ["64, 60 of them cached", "64", "–"]
    assert {(each["Queue"], each["Load"]) for each in told} == {("counted in TTFT", "counted in TTFT")}


def test_the_window_says_nothing_that_is_not_clean() -> None:
    dirty = "\x1b[31m\x07"
    request = RequestStatus(
        1,
        dirty,
        dirty,
        2,
        "failed",
        0,
        0,
        None,
        0.0,
        1.0,
        dirty,
        RequestDetails(key=dirty, background=True, parameters=(RequestParameter("tools", dirty),)),
    )
    told = [text for _, rows in sections(request) for row in rows for text in row]
    assert {"Key", "Error", "Priority", "Rows", "tools"} <= set(told)
    assert not [text for text in told if "\x1b" in text or "\x07" in text]


def test_a_point_of_the_charts_is_the_tokens_since_the_one_before() -> None:
    engine, clock = ScriptedSessions(), Clock()
    history = LoadHistory(clock)

    def read_at(seconds: float, tokens: int, queued: int) -> None:
        clock.now = seconds
        done = RequestStatus(1, "", "m", 1, "done", 0, tokens, None, 0.0, 0.0, None)
        waiting = [RequestStatus(2 + at, "", "m", 1, "queued", 0, 0, None, 0.0, 0.0, None) for at in range(queued)]
        engine.requests = [done, *waiting]
        history.read(cast(SessionManager, engine), FrozenMachine())

    read_at(100, 50, 0)
    read_at(105, 60, 9)
    read_at(110, 450, 2)
    read_at(130, 449, 0)
    assert [(each.speed, each.queue) for each in history.points] == [(0.0, 0), (40.0, 2), (0.0, 0)]


def test_a_request_is_followed_to_its_end() -> None:
    log, cancelled = Log(), list[int]()
    trace = log.begin(GenerationRequest("m", (TextPrompt("p"),)), lambda: cancelled.append(1))
    trace.see(Accepted((7,)))
    trace.see(TextDelta(0, "a"))
    assert [(each.state, each.prompt_tokens, each.completion_tokens) for each in log.snapshot()] == [("writing", 7, 1)]
    log.cancel(trace.id)
    assert cancelled == [1]
    trace.see(Finished(0, "cancelled", Usage(7, 3), Timings(0.1, 0.2)))
    (status,) = log.snapshot()
    assert (status.state, status.completion_tokens, status.running) == ("stopped", 3, False)
    log.cancel(trace.id)
    assert cancelled == [1], "one that has ended is left alone"


def test_a_refused_request_is_a_failed_one() -> None:
    log = Log()
    log.begin(GenerationRequest("m", (TextPrompt("p"),)), lambda: None).fail(QueueFull("64 wait."))
    (status,) = log.snapshot()
    assert (status.state, status.error) == ("failed", "64 wait.")

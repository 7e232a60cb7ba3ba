"""The server screen on the real API and the real model: a port that is taken, requests as rows, cancelling one."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from dataclasses import replace

from squish.commands.serve import serve_beside
from squish.config.settings import Settings
from squish.errors import QueueFull
from squish.generation import Accepted, Finished, GenerationRequest, TextDelta, TextPrompt, Timings, Usage
from squish.runtime import Runtime
from squish.sessions.activity import Log
from squish.tui.app import SquishApp
from squish.tui.screens.server import ServerScreen
from tests.conftest import MODEL, PATIENCE, UNENDING
from tests.tui.scenes import screen_text, until
from tests.tui.scripted import MODELS, ScriptedApp
from tests.tui.test_real import wait_for


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


async def test_the_api_runs_beside_the_chat_and_shows_its_requests(real_settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = replace(real_settings, port=other.getsockname()[1])
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
                await wait_for(pilot, lambda: "■ stopped" in screen_text(pilot))
                await pilot.press("s")
                await wait_for(pilot, lambda: app.server.state == "off")


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

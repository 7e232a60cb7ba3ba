"""A Squish that serves already: the screens offer its models with one key, and the command line says how to use it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import OptionList

from squish.commands.serving.serve import with_who_listens
from squish.errors import ConfigError
from squish.generation import Loading
from squish.remote.nearby import NearbyServer
from squish.system.servers import Announcement
from squish.tui.short_names import short
from squish.tui.windows.command_palette import CommandPalette
from tests.ports import own_port
from tests.remote.small_server import MODELS as MODELS_LISTED
from tests.remote.small_server import NOT_FOUND, small_server
from tests.tui.scenes import ask, note, ready, screen_text, until, write
from tests.tui.scripted import MODELS, NOWHERE, SMOL, ScriptedApp


def said(app: ScriptedApp) -> list[str]:
    return [each.message for each in app._notifications]


async def test_a_running_server_is_offered_and_one_key_uses_it() -> None:
    app = ScriptedApp(*MODELS)
    async with small_server({}) as server, Announcement(app.runtime.settings.home, lambda: ()) as announcement:
        announcement.listening(server.url)
        offer = [f"A Squish server already runs at {server.url}. F6 uses its models."]
        async with app.run_test(notifications=True) as pilot:
            await until(pilot, lambda: offer == said(app))
            server.answers["GET /v1/models"] = NOT_FOUND
            await pilot.press("f6")
            await until(pilot, lambda: "has no list of models" in said(app)[-1])
            assert app.connect_to is None, "what cannot be used is only mentioned"
            server.answers["GET /v1/models"] = MODELS_LISTED
            await pilot.press("f6")
            await until(pilot, lambda: app.connect_to is not None)
        assert app.connect_to == (server.url, "")


async def test_a_server_is_offered_once_however_often_the_app_starts(tmp_path: Path) -> None:
    settings = replace(NOWHERE, home=tmp_path)
    async with small_server({}) as server:
        for times in (1, 0, 0):
            async with Announcement(tmp_path, lambda: ()) as announcement:
                announcement._started = 1_800_000_000.0
                announcement.listening(server.url)
                await offered(ScriptedApp(*MODELS, settings=settings), times)
        async with Announcement(tmp_path, lambda: ()) as announcement:
            announcement._started = 1_800_000_060.0
            announcement.listening(server.url)
            await offered(ScriptedApp(*MODELS, settings=settings), 1)


async def offered(app: ScriptedApp, times: int) -> None:
    """Run it until it has looked for servers, and once more."""
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        await app._offer_running()
        assert ["already runs" in each for each in said(app)] == [True] * times


async def test_the_palette_shows_a_server_that_answers_after_the_last_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asyncio.Event()

    async def late(home: Path, key: str) -> list[NearbyServer]:
        await answers.wait()
        return [NearbyServer("http://127.0.0.1:8080", "Ollama [/1]")]

    monkeypatch.setattr("squish.remote.nearby.nearby", late)
    async with ScriptedApp(*MODELS).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        await write(pilot, "connect")
        await until(pilot, lambda: "F6" in screen_text(pilot) and "Choose model" not in screen_text(pilot))
        answers.set()
        await until(pilot, lambda: "Connect: http://127.0.0.1:8080" in screen_text(pilot))
        await until(pilot, lambda: "Use the models of Ollama [/1]" in screen_text(pilot))


@pytest.mark.parametrize(
    ("written", "first"), [("temp", "temperature"), ("kv", "kv_bits"), ("freq", "frequency_penalty")]
)
async def test_the_palette_lists_what_the_panel_calls_so_first(written: str, first: str) -> None:
    async with ScriptedApp(*MODELS).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        await write(pilot, written)
        found = pilot.app.screen.query_one(OptionList)
        await until(
            pilot, lambda: found.option_count > 0 and f"Parameter: {first}" in str(found.get_option_at_index(0).prompt)
        )


async def test_serve_names_the_squish_that_has_the_port() -> None:
    settings = ScriptedApp(*MODELS).runtime.settings
    taken = ConfigError("Port 11435 is already in use.", hint="Choose another port.", param="port")
    async with Announcement(settings.home, lambda: ()) as announcement:
        announcement.listening("http://127.0.0.1:11999")
        assert await asyncio.to_thread(with_who_listens, taken, settings) is taken
        announcement.listening(f"http://127.0.0.1:{settings.port}")
        now = await asyncio.to_thread(with_who_listens, taken, settings)
    assert "already serves at http://127.0.0.1:11435." in now.message
    assert now.hint == "Use it: squish --connect http://127.0.0.1:11435\n        Choose another port."


def test_where_no_server_listens_the_http_client_is_not_even_imported(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from squish.remote.nearby import nearby\n"
        f"found = asyncio.run(nearby(Path({str(tmp_path)!r}), '', ports=({own_port()},)))\n"
        "print(found, 'httpx2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/ada/models/llama/Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M.gguf"),
        ("~/models/qwen3/", "qwen3"),
        ("C:\\models\\qwen3.gguf", "qwen3.gguf"),
        ("mlx-community/Qwen3-8B-4bit", "mlx-community/Qwen3-8B-4bit"),
        ("accounts/makers/models/qwen3-8b", "qwen3-8b"),
        ("qwen3:8b", "qwen3:8b"),
        ("/", "/"),
        ("/a\x1b[31m/b\x1b[31m", "b"),
    ],
)
def test_of_a_path_the_strip_shows_what_its_last_folder_holds(name: str, shown: str) -> None:
    assert short(name) == shown


async def test_a_long_path_leaves_room_for_the_figures() -> None:
    path = f"/{'models/' * 12}tiny.gguf"
    app = ScriptedApp(replace(SMOL, id=path), model=path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "enter  send" in screen_text(pilot))
        assert "tiny.gguf" in screen_text(pilot) and "models/" not in screen_text(pilot)
        await ask(pilot)
        app.engine.be(path, "loading")
        app.engine.last.put(Loading())
        await until(
            pilot, lambda: "loading tiny.gguf" in note(pilot) and "system" in screen_text(pilot).splitlines()[0]
        )
        await until(pilot, lambda: app.load_history.loading_for(path) is not None)
        app.seconds.now = 61
        await until(pilot, lambda: "tiny.gguf  ◌ loading 1 min 1 s" in screen_text(pilot).splitlines()[0])

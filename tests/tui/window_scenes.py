"""Windows and a screen that no other scene opens, for the snapshot tests. They may write into the working directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from squish.config.mcp_server import McpServer
from squish.mcp.lazy_toolbox import LazyToolbox
from squish.remote.connected import Connected
from squish.remote.connection import ServerConnection
from squish.remote.fields import SQUISH
from squish.remote.plain_server import PlainServer
from squish.runtime import Runtime
from squish.tui.screens.elsewhere import ElsewhereScreen
from squish.tui.windows.choice import ChoiceScreen
from tests.tui.scenes import Scene, _with_models, app_of, hub, loaded, prompt, said, screen_text, until, write
from tests.tui.scripted import FrozenMachine


async def command(pilot: Pilot[None], line: str, shows: str) -> None:
    prompt(pilot).put(line)
    await pilot.press("enter")
    await until(pilot, lambda: shows in screen_text(pilot))


async def palette(pilot: Pilot[None]) -> None:
    await loaded(pilot)
    await pilot.press("ctrl+p")
    await write(pilot, "chat")
    await until(pilot, lambda: "New chat" in screen_text(pilot) and "Archive chat" in screen_text(pilot))


async def rename(pilot: Pilot[None]) -> None:
    await said(pilot, "How do tides work?", "The **Moon** pulls the water.")
    await command(pilot, "/rename", "Rename chat")


async def folder(pilot: Pilot[None]) -> None:
    """What of a folder would be sent."""
    (Path("src") / "data").mkdir(parents=True)
    for name, size in (("a.py", 900), ("read_me.md", 2_400), ("data/words.txt", 21_000)):
        (Path("src") / name).write_text("word " * (size // 5), encoding="utf-8")
    (Path("src") / "icon.bin").write_bytes(b"\0")
    app_of(pilot).engine.counts = True
    await loaded(pilot)
    prompt(pilot).put("explain @src")
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, ChoiceScreen) and "tokens" in screen_text(pilot))


async def templates(pilot: Pilot[None]) -> None:
    await loaded(pilot)
    for name, text in (
        ("translate", "Translate to {{language|English}}:\n\n{{input}}"),
        ("review", "Review this code."),
    ):
        app_of(pilot).chats.keep_prompt(name, text)
    await command(pilot, "/template", "Prompt templates")


async def tools(pilot: Pilot[None]) -> None:
    """Servers that are set up, of which none is on."""
    runtime = app_of(pilot).runtime
    assert isinstance(runtime, Runtime)
    files = McpServer(command="npx", args=("-y", "@modelcontextprotocol/server-filesystem", "notes"))
    servers = (("files", files), ("search", McpServer(url="https://search.example/mcp")))
    runtime._tools = LazyToolbox(replace(runtime.settings, home=Path("squish"), mcp=servers), Path())
    await loaded(pilot)
    await command(pilot, "/tools", "[ ] search")


async def card(pilot: Pilot[None]) -> None:
    await hub(pilot)
    await pilot.press("i")
    await until(pilot, lambda: bool(pilot.app.screen.query("#readme")))
    await until(pilot, lambda: "Asking" not in screen_text(pilot))


async def elsewhere(pilot: Pilot[None]) -> None:
    """In the hub's place, where the models belong to another machine."""
    await loaded(pilot)
    connection = ServerConnection("http://mac.local:11435")
    server = PlainServer(connection, "/v1", "Squish 0.1.0", SQUISH)
    backend = Connected(app_of(pilot).runtime.settings, connection, server)
    await pilot.app.push_screen(ElsewhereScreen(backend, FrozenMachine()))
    await until(pilot, lambda: "The models are on mac.local:11435" in screen_text(pilot))
    await backend.close()


WINDOWS: dict[str, Scene] = {
    "palette": (_with_models, palette),
    "rename": (_with_models, rename),
    "folder": (_with_models, folder),
    "templates": (_with_models, templates),
    "tools": (_with_models, tools),
    "card": (_with_models, card),
    "elsewhere": (_with_models, elsewhere),
}

"""Titles that a model writes, pins, the archive, and what ctrl+p finds beside the actions, through the keys."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from squish.chats.messages import MAX_TITLE
from squish.generation import TITLE, ChatPrompt
from squish.tui.chat import titles
from squish.tui.screens.chat import ChatScreen
from squish.tui.screens.hub import HubScreen
from squish.tui.windows.command_palette import CommandPalette
from tests.tui.scenes import answer, ask, note, prompt, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

WIDE = (120, 36)


def new_app(chats: Path | None = None, named: bool = True) -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id, chats=chats, titles=named)


async def say(pilot: Pilot[None], app: ScriptedApp, question: str, answer: str) -> None:
    await ask(pilot, question)
    app.engine.last.say(answer)
    app.engine.last.finish()
    await until(pilot, lambda: "TTFT" in note(pilot) and shown(pilot) == answer)


async def command(pilot: Pilot[None], text: str, says: str) -> None:
    prompt(pilot).put(text)
    await pilot.press("enter")
    await until(pilot, lambda: any(says in each.message for each in pilot.app._notifications))


def listed(app: ScriptedApp) -> list[str]:
    return [each.title for each in app.chats.recent(pinned_first=True)]


@pytest.mark.parametrize(
    ("text", "complete", "title"),
    [
        ("Matching ISO dates", True, "Matching ISO dates"),
        ('\n**Title: "Matching ISO dates."**\n\nIt is short.', True, "Matching ISO dates"),
        ("Titles of books", True, "Titles of books"),
        ("Dates\x1b]52;c;aGk=\x07 and\x1b[31m times", True, "Dates and times"),
        ("a\u202eb", True, "ab"),
        ("日付の照合", True, "日付の照合"),
        ("Matching dates\nThis title says", False, "Matching dates"),
        ("This conversation is about how", False, ""),
        ("word " * MAX_TITLE, True, ""),
        ("The Earth is not a solid object, but a ball of rock.", True, ""),
        ("***", True, ""),
        ("1: 1. 1. 2. 3", True, ""),
        ("T:", True, ""),
        ("茶", True, "茶"),
        ("```python\nimport re\n```", True, ""),
        ("| Earth | 1 AU |", True, ""),
        ("", True, ""),
    ],
)
def test_a_title_is_one_short_clean_line_or_none(text: str, complete: bool, title: str) -> None:
    assert titles.taken(text, complete, "Use a pattern.") == title


def test_the_beginning_of_the_answer_is_not_a_title() -> None:
    assert titles.taken("Bonjour. Je suis ici.", True, "bonjour. je suis ici. Et toi?") == ""


async def test_a_new_chat_is_named_behind_its_first_answer() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "how do I match {dates}? " + "x" * 4000, "With a pattern.")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        request = app.engine.last.request
        (sent,) = request.prompts
        assert isinstance(sent, ChatPrompt)
        assert (request.background, request.client, request.model) == (True, TITLE, SMOL.id)
        assert "how do I match {dates}?" in sent.messages[0].content and "With a pattern." in sent.messages[0].content
        assert len(sent.messages[0].content) < 1200, "it is short however long the chat is"
        app.engine.last.say("Matching ", "dates")
        app.engine.last.finish()
        await until(pilot, lambda: "Matching dates" in screen_text(pilot))
        await say(pilot, app, "and times", "Too.")
        await until(pilot, lambda: app.engine.last.left)
        assert len(app.engine.generations) == 3, "it is named once"
        assert listed(app) == ["Matching dates"]


async def test_a_title_waits_for_an_idle_model_and_for_whoever_asks() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "first")
        app.engine.states["qwen3:8b"] = replace(app.engine.states[SMOL.id], name="qwen3:8b", running=1)
        await answer(pilot, "1")
        view = app.screen.query_one("#main")
        view.tick()  # type: ignore[attr-defined]
        assert len(app.engine.generations) == 1, "another model answers somebody"
        app.engine.states["qwen3:8b"] = replace(app.engine.states["qwen3:8b"], running=0)
        await until(pilot, lambda: len(app.engine.generations) == 2)
        named = app.engine.last
        await ask(pilot, "second")
        await until(pilot, lambda: named.left)
        app.engine.last.say("2")
        app.engine.last.finish()
        await until(pilot, lambda: len(app.engine.generations) == 4)
        assert app.engine.last.request.background, "it comes when the answer has ended"
        prompt(pilot).put("/rename Mine")
        await pilot.press("enter")
        await until(pilot, lambda: listed(app) == ["Mine"])
        app.engine.last.say("Counting")
        app.engine.last.finish()
        await until(pilot, lambda: app.engine.last.left)
        assert listed(app) == ["Mine"], "the user's title stays"


async def test_titles_can_be_switched_off() -> None:
    app = new_app(named=False)
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "first", "1")
        await say(pilot, app, "second", "2")
        assert len(app.engine.generations) == 2
        assert listed(app) == ["first"]


async def test_pins_and_the_archive() -> None:
    app = new_app(named=False)
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "lighthouse", "A tower.")
        await command(pilot, "/pin", "Pinned")
        await pilot.press("ctrl+n")
        await say(pilot, app, "tides", "The Moon.")
        assert listed(app) == ["lighthouse", "tides"]
        await until(pilot, lambda: "◆ lighthouse" in screen_text(pilot))
        await command(pilot, "/archive", "Archived")
        await until(pilot, lambda: "The Moon." not in screen_text(pilot))
        assert listed(app) == ["lighthouse"]
        await pilot.press("ctrl+s")
        await write(pilot, "tides")
        await until(pilot, lambda: "archived" in screen_text(pilot).lower() and "tides" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "The Moon." in screen_text(pilot))
        await pilot.press("escape")
        await command(pilot, "/archive", "Unarchived")
        assert listed(app) == ["lighthouse", "tides"]


async def palette(pilot: Pilot[None], words: str, title: str, key: str = "") -> None:
    """Look for something with ctrl+p, and take it."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette) and "Choose model" in screen_text(pilot))
    pilot.app.post_message(events.Paste(words))
    await until(pilot, lambda: re.search(rf"{title} .*{re.escape(key)} ", screen_text(pilot)) is not None)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(pilot.app.screen, CommandPalette))


async def test_ctrl_p_finds_models_chats_themes_and_parameters() -> None:
    app = new_app(named=False)
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "lighthouse", "A tower.")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "A tower." not in screen_text(pilot))
        await palette(pilot, "chat: light", "Chat: lighthouse", "ctrl+b")
        await until(pilot, lambda: "A tower." in screen_text(pilot))
        await palette(pilot, "model: qwen3:8b", "Model: qwen3:8b", "ctrl+l")
        await until(pilot, lambda: "qwen3:8b" in app.engine.loads)
        await palette(pilot, "theme: nord", "Theme: nord")
        await until(pilot, lambda: app.theme == "nord")
        await palette(pilot, "parameter: top_k", "Parameter: top_k", "ctrl+o")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "field-top_k")
        assert isinstance(app.focused, Input)


@pytest.mark.parametrize("written", ["", "mistral", "it's (x)\\n"])
async def test_the_models_to_choose_from_end_with_a_way_to_more(written: str) -> None:
    """Also where none is called what is written: then most of all."""
    app = new_app(named=False)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "get more models…  F3" in screen_text(pilot))
        app.screen.query_one(Input).value = written
        none = f"No installed model has “{written}” in its name." if written else ""
        await until(pilot, lambda: none in screen_text(pilot) and "get more models…  F3" in screen_text(pilot))
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        await until(pilot, lambda: app.screen.query_one(Input).value == written)  # and so it is looked for

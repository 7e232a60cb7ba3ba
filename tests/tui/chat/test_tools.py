"""Tools in the chat: switched on, asked for, stopped, kept. The engine is scripted, the MCP server is a process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from squish.chats.messages import ChatTools
from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.format import abilities
from squish.format.abilities import Abilities
from squish.generation import ChatPrompt, Message, ToolCallDelta
from squish.mcp import permissions
from squish.mcp.lazy_toolbox import LazyToolbox
from squish.runtime import Runtime
from squish.tui.widgets.chat.calls import CallQuestion, StepView
from tests.mcp.test_client import program
from tests.tui.scenes import ask, note, prompt, ready, screen_text, until, write
from tests.tui.scripted import SMOL, ScriptedApp


@pytest.fixture(autouse=True)
def calls_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that is told of has no files, in which a template could be."""
    monkeypatch.setattr(abilities, "read", lambda path: Abilities(chat=True, tools=True, thinking=False))


def new_app(home: Path, server: McpServer | None = None) -> ScriptedApp:
    settings = Settings(home=home, cache_dir=home, mcp=(("test", server or program()),))
    app = ScriptedApp(SMOL, model=SMOL.id, settings=settings, chats=home / "chats.db")
    runtime = app.runtime
    assert isinstance(runtime, Runtime)
    runtime._tools = LazyToolbox(settings, home)
    return app


async def switch(pilot: Pilot[None], on: str = "test is on in this chat") -> None:
    await ready(pilot)
    prompt(pilot).put("/tools test")
    await pilot.press("enter")
    await until(pilot, lambda: any(on in each.message for each in pilot.app._notifications))


def call(app: ScriptedApp, name: str = "echo", arguments: str = '{"text": "one"}') -> None:
    """Let the model call a tool."""
    app.engine.last.put(ToolCallDelta(0, 0, "c1", name, ""), ToolCallDelta(0, 0, "c1", None, arguments))
    app.engine.last.finish("tool_calls", tokens=9)


async def asked(pilot: Pilot[None]) -> CallQuestion:
    question = pilot.app.screen.query_one(CallQuestion)
    await until(pilot, lambda: bool(question.display) and question.has_focus_within)
    return question


async def goes_on(pilot: Pilot[None], app: ScriptedApp, generations: int) -> tuple[Message, ...]:
    await until(pilot, lambda: len(app.engine.generations) == generations)
    (sent,) = app.engine.last.request.prompts
    assert isinstance(sent, ChatPrompt)
    return sent.messages


async def end(pilot: Pilot[None], app: ScriptedApp, text: str = "done") -> None:
    app.engine.last.say(text)
    app.engine.last.finish(tokens=3)
    await until(pilot, lambda: "TTFT" in note(pilot))


async def test_a_chat_has_no_tools_until_they_are_switched_on(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        (sent,) = app.engine.last.request.prompts
        assert isinstance(sent, ChatPrompt)
        assert sent.tools == ()
        assert not app._runtime.toolbox.is_connected("test")


async def test_a_call_is_shown_asked_for_made_and_kept(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        app.engine.last.say("Let me see.")
        call(app)
        await asked(pilot)
        assert "May test/echo be called?" in screen_text(pilot)
        assert 'text: "one"' in screen_text(pilot)
        await pilot.press("enter")
        messages = await goes_on(pilot, app, 2)
        assert [(each.role, each.content) for each in messages[1:]] == [("assistant", "Let me see."), ("tool", "one")]
        await end(pilot, app)
        assert "▸ ⚙ test/echo" in screen_text(pilot)
        assert "Let me see." in screen_text(pilot)
        assert note(pilot).startswith("12 tok")
        counted = app.screen._chats.shown.with_draft("next")  # type: ignore[attr-defined]
        assert "echo" in {tool.name for tool in counted.tools}, "the meter counts the tools, which are in every prompt"
        assert not pilot.app.screen.query_one(CallQuestion).display
        assert prompt(pilot).has_focus
        await ask(pilot, "again")
        assert [each.role for each in (await goes_on(pilot, app, 3))] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
        ]
        await app._runtime.toolbox.close()
    again = new_app(tmp_path)
    async with again.run_test() as pilot:
        await ready(pilot)
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: "▸ ⚙ test/echo" in screen_text(pilot))
        assert "⚙ test" in screen_text(pilot), "the chat still has its tools"
        await again._runtime.toolbox.close()


@pytest.mark.parametrize(("downs", "asks_again"), [(0, True), (1, False), (2, False)])
async def test_a_call_is_allowed_once_for_the_chat_or_always(downs: int, asks_again: bool, tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app)
        await asked(pilot)
        await pilot.press(*["down"] * downs, "enter")
        await goes_on(pilot, app, 2)
        call(app, arguments='{"text": "two"}')
        if asks_again:
            await asked(pilot)
            await pilot.press("enter")
        assert (await goes_on(pilot, app, 3))[-1].content == "two"
        assert permissions.is_allowed(tmp_path, "test/echo", app._runtime.toolbox.find("test")) == (downs == 2)
        chat = app.chats.recent(1)[0]
        assert (chat.tools.servers, chat.tools.allowed) == (("test",), ("test/echo",) if downs == 1 else ())
        await app._runtime.toolbox.close()


async def test_a_refused_call_is_told_to_the_model(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app)
        await asked(pilot)
        await pilot.press("up", "enter")
        assert (await goes_on(pilot, app, 2))[-1].content == "The user did not allow this call."
        await end(pilot, app)
        assert "⊘ refused" in screen_text(pilot)
        await app._runtime.toolbox.close()


@pytest.mark.parametrize("moment", ["asked", "running"])
async def test_escape_stops_at_a_question_and_in_a_call(moment: str, tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app, "hang", "{}")
        await asked(pilot)
        if moment == "running":
            await pilot.press("enter")
            await until(pilot, lambda: "⚙ hang …" in note(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped" in note(pilot))
        assert "■ stopped" in screen_text(pilot)
        assert len(app.engine.generations) == 1
        prompt(pilot).put("/continue")
        await pilot.press("enter")
        assert (await goes_on(pilot, app, 2))[-1].role == "tool"
        await app._runtime.toolbox.close()


async def test_a_long_call_can_be_read_to_its_end_and_decided_about_on_a_small_screen(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test(size=(60, 20)) as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app, arguments=json.dumps({"text": "\n".join(f"line {n}" for n in range(12))}))
        question = await asked(pilot)
        await until(pilot, lambda: "line 2" in screen_text(pilot))
        assert "Refuse" in screen_text(pilot)
        assert "line 11" not in screen_text(pilot)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await until(pilot, lambda: "line 11" in screen_text(pilot))
        assert question.has_focus_within
        await pilot.press("escape")
        await until(pilot, lambda: not question.display)
        await app._runtime.toolbox.close()


async def test_what_is_being_written_is_no_answer_to_the_question(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        await write(pilot, "next")
        call(app)
        question = pilot.app.screen.query_one(CallQuestion)
        await until(pilot, lambda: bool(question.display))
        await write(pilot, " one")
        await until(pilot, lambda: prompt(pilot).text == "next one" and "ctrl+y" in screen_text(pilot))
        assert not question.has_focus_within
        await pilot.press("ctrl+y", "enter")
        assert (await goes_on(pilot, app, 2))[-1].content == "one"
        await app._runtime.toolbox.close()


async def test_words_typed_at_the_question_are_for_the_prompt(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test(size=(90, 30)) as pilot:
        await switch(pilot)
        await ask(pilot, "Echo something.")
        call(app)
        question = await asked(pilot)
        await write(pilot, "yes always")
        await until(pilot, lambda: prompt(pilot).text == "yes always" and prompt(pilot).has_focus)
        assert question.call is not None, "nothing was answered"
        assert len(app.engine.generations) == 1
        await app._runtime.toolbox.close()


async def test_a_server_that_fails_is_one_line_and_the_answer_comes(tmp_path: Path) -> None:
    app = new_app(tmp_path, program("die-at-once"))
    async with app.run_test() as pilot:
        await switch(pilot, "test: it ended with exit code 1: no configuration found.")
        await ask(pilot, "say it")
        await end(pilot, app)
        assert "⚠ test: it ended with exit code 1: no configuration found." in screen_text(pilot)


async def test_why_a_call_failed_is_said_where_it_is_folded(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test(size=(140, 36)) as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app, "echo", '{"text": "\x1b[2J')
        await goes_on(pilot, app, 2)
        await end(pilot, app)
        row = next(line for line in screen_text(pilot).splitlines() if "test/echo" in line)
        assert '{"text": "\\u001b[2J · ✕ failed: The arguments are not a JSON object.' in row
        for width in range(36, 50):
            await pilot.resize_terminal(width, 36)
            assert "✕ failed" in screen_text(pilot), "how a call stands is not broken"
        await app._runtime.toolbox.close()


async def test_another_version_of_an_answer_begins_without_its_calls(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app)
        await asked(pilot)
        await pilot.press("enter")
        await goes_on(pilot, app, 2)
        await end(pilot, app)
        prompt(pilot).put("/again")
        await pilot.press("enter")
        assert [each.role for each in await goes_on(pilot, app, 3)] == ["user"]
        assert not pilot.app.screen.query(StepView)
        await end(pilot, app)
        await pilot.press("alt+up")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "▸ ⚙ test/echo" in screen_text(pilot))
        await app._runtime.toolbox.close()


async def test_the_window_switches_servers_and_single_tools(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        prompt(pilot).put("/tools")
        await pilot.press("enter")
        await until(pilot, lambda: "[ ] test" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "[x] echo" in screen_text(pilot))
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "[ ] echo" in screen_text(pilot))
        assert pilot.app.screen.query_one(OptionList).highlighted == 2
        await write(pilot, "test")
        await until(pilot, lambda: "tokens of every prompt" in screen_text(pilot) and "[x] fail" in screen_text(pilot))
        await write(pilot, "!")
        await until(pilot, lambda: "No server or tool has “test!” in its name." in screen_text(pilot))
        await pilot.press("ctrl+u")
        await write(pilot, "weather")
        await until(pilot, lambda: "[x] weather" in screen_text(pilot) and "[x] fail" not in screen_text(pilot))
        assert "[x] test" in screen_text(pilot)
        await pilot.press("escape")
        await ask(pilot, "say it")
        (sent,) = app.engine.last.request.prompts
        assert isinstance(sent, ChatPrompt)
        names = {tool.name for tool in sent.tools}
        assert "echo" not in names
        assert "fail" in names
        await pilot.press("ctrl+n")
        screen: Any = app.screen  # a ChatScreen
        await until(pilot, lambda: screen._chats.shown.tools == ChatTools())  # a new chat begins without
        await app._runtime.toolbox.close()


@pytest.mark.parametrize("way", ["command", "window"])
async def test_the_line_above_the_message_names_the_servers_as_they_are_switched(way: str, tmp_path: Path) -> None:
    app = new_app(tmp_path)

    async def toggle(shown: str, said: str) -> None:
        if way == "command":
            await switch(pilot, said)
        else:
            prompt(pilot).put("/tools")
            await pilot.press("enter")
            await until(pilot, lambda: "Tools in this chat" in screen_text(pilot))
            await pilot.press("enter")
            await until(pilot, lambda: shown in screen_text(pilot))
            await pilot.press("escape")

    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await toggle("[x] fail", "test is on in this chat")
        await until(pilot, lambda: "╭─ ⚙ test ─" in screen_text(pilot))
        await toggle("[ ] test", "test is off in this chat")
        await until(pilot, lambda: "⚙ test" not in screen_text(pilot))
        await app._runtime.toolbox.close()


async def test_a_server_that_took_the_name_of_a_chats_is_not_started(tmp_path: Path) -> None:
    """Whoever opens a chat in another project starts no program of that project by it."""
    app = new_app(tmp_path)
    async with app.run_test() as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app)
        await asked(pilot)
        await pilot.press("down", "enter")
        await goes_on(pilot, app, 2)
        await end(pilot, app)
        await app._runtime.toolbox.close()
    started = tmp_path / "started"
    theirs = McpServer(sys.executable, ("-c", f"open({str(started)!r}, 'w')"))
    again = new_app(tmp_path, theirs)
    async with again.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("up")
        await ask(pilot, "once more")
        (sent,) = again.engine.last.request.prompts
        assert isinstance(sent, ChatPrompt)
        assert sent.tools == ()
        await end(pilot, again)
        await until(pilot, lambda: "test is set up differently" in screen_text(pilot))
        prompt(pilot).put("/tools")
        await pilot.press("enter")
        await until(pilot, lambda: "[ ] test" in screen_text(pilot))
    assert not started.exists()


@pytest.mark.parametrize("downs", [1, 2])
async def test_a_permission_is_shown_and_taken_back(downs: int, tmp_path: Path) -> None:
    app = new_app(tmp_path)
    async with app.run_test(size=(120, 36)) as pilot:
        await switch(pilot)
        await ask(pilot, "say it")
        call(app)
        await asked(pilot)
        await pilot.press(*["down"] * downs, "enter")
        await goes_on(pilot, app, 2)
        await end(pilot, app)
        prompt(pilot).put("/tools")
        await pilot.press("enter")
        said = "echo  · allowed in this chat" if downs == 1 else "echo  · always allowed"
        await until(pilot, lambda: said in screen_text(pilot))
        await pilot.press("down", "down", "ctrl+r")
        await until(pilot, lambda: " allowed" not in screen_text(pilot))
        await pilot.press("escape")
        await ask(pilot, "again")
        call(app)
        await asked(pilot)
        await app._runtime.toolbox.close()

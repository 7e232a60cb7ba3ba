"""What is typed and pasted reaches the prompt, all of it, and nothing else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from textual import events
from textual.message import Message
from textual.widgets import Input

from squish.tui.chat import context_meter
from squish.tui.chat.pasted import Pasted
from squish.tui.terminal.keyboard import PasteParser
from squish.tui.widgets.chat.chat_view import ChatView
from squish.tui.widgets.chat.prompt import PromptInput
from squish.tui.widgets.chat.transcript import Transcript
from tests.tui.scenes import answer, ask, note, prompt, ready, screen_text, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp, asked_text

LINES = "\n".join(f"line {number} of many" for number in range(5000))


def new_app() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


@pytest.mark.parametrize("into", ["answer", "transcript", "an answer after another was marked"])
async def test_letters_are_no_commands_before_a_message_is_marked(into: str) -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        if into != "transcript":
            if into != "answer":
                await pilot.press("alt+up")
                await until(pilot, lambda: bool(app.screen.query(".-marked")))
            await pilot.click(".answer")
        else:
            app.screen.set_focus(app.screen.query_one(Transcript))
        await pilot.press(*"great")
        await until(pilot, lambda: prompt(pilot).text == "great")
        assert len(app.engine.generations) == 1


async def test_other_letters_on_a_marked_message_are_for_the_prompt() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        await pilot.press("alt+up")
        await until(pilot, lambda: bool(app.screen.query(".-marked")))
        await pilot.press(*"why")
        await until(pilot, lambda: prompt(pilot).text == "why" and not app.screen.query(".-marked"))


async def test_four_thousand_keys_at_once_make_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = asyncio.Event()

    async def moment(seconds: float) -> None:
        await quiet.wait()  # no clock: a machine that stands still in the middle of the keys is not a pause of the user

    monkeypatch.setattr(context_meter, "asyncio", SimpleNamespace(Event=asyncio.Event, sleep=moment))
    app = new_app()
    app.engine.counts = True
    async with app.run_test() as pilot:
        await ready(pilot)
        meter = app.screen.query_one(ChatView)._meter
        before = meter.counts
        for _ in range(4000):
            app.post_message(events.Key("x", "x"))
        await until(pilot, lambda: len(prompt(pilot).text) == 4000)
        assert meter.counts == before
        quiet.set()
        await until(pilot, lambda: "+1.0k" in screen_text(pilot))
        assert meter.counts - before <= 3
        assert len(app.workers) <= 6


async def test_a_large_paste_is_one_line_of_the_draft_and_all_of_the_message() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press(*"see", "space")
        app.post_message(events.Paste(LINES))
        await until(pilot, lambda: prompt(pilot).text == "see [pasted 5000 lines #1]")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert asked_text(app) == f"see {LINES}"
        app.engine.last.finish()
        await until(pilot, lambda: "empty answer" in note(pilot))
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).draft == f"see {LINES}")


JOINED = "你好　世界 می‌خواهم 👩‍👩‍👧 oui\u202f!\xa0x"


@pytest.mark.parametrize("key", ["", "ctrl+b", "ctrl+s"], ids=["prompt", "chats", "search"])
async def test_spaces_and_joiners_of_every_script_can_be_typed(key: str) -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        if key:
            await pilot.press(key)
            await until(pilot, lambda: not isinstance(app.focused, PromptInput))
        for character in JOINED:
            app.post_message(events.Key("space" if character == " " else character, character))
        if key == "ctrl+s":
            await until(pilot, lambda: app.screen.query_one(Input).value == JOINED)
        else:
            await until(pilot, lambda: prompt(pilot).text == JOINED)


async def test_a_paste_is_only_text() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        app.post_message(events.Paste("red \x1b[31mrain\x1b]52;c;eA==\x07\r\nnext"))
        await until(pilot, lambda: prompt(pilot).text == "red rain\nnext")


def test_only_labels_that_were_given_are_unfolded() -> None:
    pasted = Pasted()
    assert pasted.fold("short\ntext") == "short\ntext"
    assert Pasted().fold("a line\n" * 5000) == "[pasted 5000 lines #1]"
    label = pasted.fold(LINES)
    assert pasted.unfold(f"a {label} b [pasted 5 lines #7]") == f"a {LINES} b [pasted 5 lines #7]"


def parsed(*pieces: str) -> list[Message]:
    parser = PasteParser()
    return [each for piece in pieces for each in (*parser.feed(piece), *parser.tick())]


@pytest.mark.parametrize(
    "text",
    ["plain", "a \x1b b", "\x1b[31mred\x1b[0m", "\x1b", "\x1b[200~", "x\x1b[20", LINES[:20_000]],
    ids=lambda text: ascii(text[:12]),
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_paste_is_whole_whatever_is_in_it_and_however_it_comes(text: str, size: int) -> None:
    data = f"a\x1b[200~{text}\x1b[201~b"
    parser = PasteParser()
    found = [each for at in range(0, len(data), size) for each in parser.feed(data[at : at + size])]
    kinds = [each.text if isinstance(each, events.Paste) else getattr(each, "key", "") for each in found]
    assert kinds == ["a", text, "b"]


def test_keys_that_begin_as_a_paste_does_are_keys() -> None:
    assert [getattr(each, "key", "") for each in parsed("\x1b[A", "\x1b[2~", "x")] == ["up", "insert", "x"]


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        ("\x1b\x11", ["escape", "ctrl+q"]),
        ("\x1b/x", ["escape", "slash", "x"]),
        ("\x1b/x\x1b", ["escape", "slash", "x", "escape"]),
        (f"\x1b/{'x' * 40}", ["escape", "slash", *"x" * 40]),
        ("^\x1b/^", ["circumflex_accent", "escape", "slash", "circumflex_accent"]),
        ("\x1b\x1b\x11", ["escape", "escape", "ctrl+q"]),
        ("\x1bx", ["alt+x"]),
        ("\x1b\r", ["alt+enter"]),
        ("\x1b\b", ["alt+backspace"]),
        ("\x1b[1;3A", ["alt+up"]),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("at_once", [True, False])
def test_escape_is_not_lost_before_a_key_that_comes_with_it(data: str, keys: list[str], at_once: bool) -> None:
    parser = PasteParser()
    found = [each for piece in (*([data] if at_once else data), "") for each in parser.feed(piece)]
    assert [getattr(each, "key", "") for each in found] == keys

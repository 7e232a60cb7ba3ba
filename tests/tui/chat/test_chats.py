"""Several chats, their branches, their parameters, and finding one's way among them, through the keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.chats.tags import change
from squish.errors import EngineError
from squish.generation import TITLE, ChatPrompt, Message
from squish.models.manifest import Manifest
from squish.sessions.activity import RequestStatus
from squish.tui.chat.conversations import day_of
from squish.tui.screens.chat import ChatScreen
from squish.tui.widgets.chat.chat_list import ChatList
from squish.tui.widgets.chat.transcript import MOST, WINDOW, Transcript
from squish.tui.widgets.chat.turns import AnswerView
from squish.tui.widgets.chat.welcome import Welcome
from squish.tui.widgets.status import StatusStrip
from squish.tui.windows.chat_search import ChatSearchScreen
from squish.tui.windows.confirm import ConfirmScreen
from squish.tui.windows.line_input import LineScreen
from tests.tui.scenes import ask, loaded, note, prompt, ready, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, SOME_DAY, ScriptedApp

WIDE = (120, 36)


def new_app(chats: Path | None = None) -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id, chats=chats)


def asked(app: ScriptedApp, at: int = -1) -> ChatPrompt:
    (only,) = app.engine.generations[at].request.prompts
    assert isinstance(only, ChatPrompt)
    return only


async def say(pilot: Pilot[None], app: ScriptedApp, question: str, answer: str) -> None:
    await ask(pilot, question)
    app.engine.last.say(answer)
    app.engine.last.finish()
    await until(pilot, lambda: "TTFT" in note(pilot) and shown(pilot) == answer)


def transcript(pilot: Pilot[None]) -> str:
    """The messages on the screen as text, from top to bottom."""
    views = pilot.app.screen.query(AnswerView)
    return " | ".join(f"{view.turn.question}: {view.turn.answer.text}" for view in views)


def add_chats(chats: Path, count: int, words: str = "an answer", title: str = "The long one") -> None:
    """A chat of so many turns, made without a screen."""
    store = Chats(chats)
    chat, parent = store.create(SMOL.id, title=title), None
    for turn in range(count):
        _, parent = store.ask(chat, parent, f"question {turn}", SMOL.id)
        store.finish(parent, f"{words} {turn}")
    store.close()


async def test_a_chat_is_there_again_after_a_restart(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "what is a lighthouse", "A tower.")
    again = new_app(tmp_path / "chats.db")
    async with again.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        await until(pilot, lambda: "A tower." in screen_text(pilot))
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).text == "what is a lighthouse")  # which was sent before the restart
        prompt(pilot).put("")
        await ask(pilot, "and who lives there")
        assert asked(again).messages == (
            Message("user", "what is a lighthouse"),
            Message("assistant", "A tower."),
            Message("user", "and who lives there"),
        )


async def test_a_start_names_the_latest_chat_and_lists_all_with_their_dates(tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", 1)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "↑  continue “The long one”, 2025-05" in screen_text(pilot))
        await until(pilot, lambda: re.search(r"The long one +2025-05 ", screen_text(pilot)) is not None)
        await pilot.press("up")
        await until(pilot, lambda: "an answer 0" in screen_text(pilot))
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "an answer 0" not in screen_text(pilot))
        assert "continue “" not in screen_text(pilot), "only a start offers it"
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).text == "question 0")


@pytest.mark.parametrize("goes_on", ["up", "ask"])
async def test_a_start_lists_the_chats_where_the_list_has_room_until_one_goes_on(goes_on: str, tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", 1)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: re.search(r"│ +The long one +2025-05 │", screen_text(pilot)) is not None)
        assert "↑  continue “The long one”" in screen_text(pilot)
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "─ Chats ─" not in screen_text(pilot))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "─ Chats ─" in screen_text(pilot))
        await (pilot.press("up") if goes_on == "up" else ask(pilot, "why"))
        await until(pilot, lambda: "─ Chats ─" not in screen_text(pilot))
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "send the message" in screen_text(pilot))
        assert "─ Chats ─" not in screen_text(pilot), "only at the start"


async def test_a_list_that_has_the_keys_stays_when_the_start_is_over(tmp_path: Path) -> None:
    for title in ("second", "first"):
        add_chats(tmp_path / "chats.db", 1, f"{title} answer", title)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "─ Chats ─" in screen_text(pilot))
        app.screen.set_focus(app.screen.query_one(ChatList))  # as a click does
        await pilot.press("d", "y", "d", "y")
        await until(pilot, lambda: "continue “" not in screen_text(pilot))
        assert "─ Chats ─" in screen_text(pilot)


async def test_a_start_names_the_chat_that_up_would_continue_now(tmp_path: Path) -> None:
    for title in ("third", "second", "first"):
        add_chats(tmp_path / "chats.db", 1, f"{title} answer", title)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "↑  continue “first”" in screen_text(pilot))
        await pilot.press("ctrl+b", "r", *"newest", "enter")
        await until(pilot, lambda: "↑  continue “newest”" in screen_text(pilot))
        await pilot.press("a")
        await until(pilot, lambda: "↑  continue “second”" in screen_text(pilot))
        await pilot.press("d", "y")
        await until(pilot, lambda: "↑  continue “third”" in screen_text(pilot))
        another = Chats(tmp_path / "chats.db")  # as another program would
        another.rename(1, "the other's")
        await until(pilot, lambda: "↑  continue “the other's”" in screen_text(pilot))
        await pilot.press("escape", "up")
        await until(pilot, lambda: "third answer 0" in screen_text(pilot))
        another.close()


@pytest.mark.parametrize(("installed", "opens_with"), [(MODELS, SMOL.id), (MODELS[:1], MODELS[0].id)])
async def test_a_start_takes_the_model_of_the_latest_chat_while_it_is_installed(
    tmp_path: Path, installed: tuple[Manifest, ...], opens_with: str
) -> None:
    assert MODELS[0] != SMOL
    add_chats(tmp_path / "chats.db", 1)
    app = ScriptedApp(*installed, chats=tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "why")
        assert app.engine.last.request.model == opens_with


async def test_a_new_chat_does_not_show_the_figures_of_another_model_than_its_own(tmp_path: Path) -> None:
    store = Chats(tmp_path / "chats.db")
    store.ask(store.create("gone:1b", title="of another model"), None, "one", "gone:1b")
    store.close()
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await loaded(pilot)
        await pilot.press("up")
        await until(pilot, lambda: "gone:1b" in screen_text(pilot).splitlines()[0])
        await pilot.press("ctrl+n")
        await until(pilot, lambda: str(app.screen.query_one(Welcome).render()).startswith("gone:1b"))
        assert "gone:1b is not installed." in str(app.screen.query_one(Welcome).render())
        assert "135M" not in screen_text(pilot)


@pytest.mark.parametrize(
    ("width", "room", "below"), [(60, 45, True), (80, 15, True), (100, 19, True), (120, 26, True), (200, 52, False)]
)
async def test_titles_take_the_room_that_the_list_has(tmp_path: Path, width: int, room: int, below: bool) -> None:
    title = "Why the cold of the night comes from the open sky above"[:47]
    store = Chats(tmp_path / "chats.db")
    chat = store.create(SMOL.id, title=title)
    store.ask(chat, None, "one", SMOL.id)
    store.pin(chat, True)
    store.tag(chat, change("sky"))
    store.close()
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(width, 24)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b")
        shown = title if len(title) <= room else f"{title[: room - 1]}…"
        await until(pilot, lambda: f"│◆ {shown}" in screen_text(pilot))
        row = next(line.rstrip() for line in screen_text(pilot).splitlines() if "◆" in line)
        assert ("#sky" in row) != below and "#sky" in screen_text(pilot)
        assert f"{day_of(SOME_DAY.timestamp(), datetime.now().astimezone())} │" in row


async def test_the_strip_says_that_a_model_is_not_installed_from_when_it_goes_until_it_comes(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await loaded(pilot)
        await app.engine.unload(SMOL.id)
        await until(pilot, lambda: "○ not loaded" in screen_text(pilot).splitlines()[0])
        gone = [each for each in app.shelf.models if each.id == SMOL.id]
        app.shelf.models = [each for each in app.shelf.models if each.id != SMOL.id]
        await until(pilot, lambda: f"{SMOL.id}  ○ not installed" in screen_text(pilot).splitlines()[0])
        assert str(app.screen.query_one(Welcome).render()).startswith(
            f"{SMOL.id}\n{SMOL.id} is not installed. F3 downloads models, ctrl+l chooses another."
        )
        app.shelf.models += gone
        await until(pilot, lambda: f"{SMOL.id}  ○ not loaded" in screen_text(pilot).splitlines()[0])
        assert "135M" in str(app.screen.query_one(Welcome).render())


async def test_a_start_offers_no_chat_once_none_is_left(tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", 1)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "↑  continue “The long one”" in screen_text(pilot))
        await pilot.press("ctrl+b", "a", "escape")
        await until(pilot, lambda: "continue “" not in screen_text(pilot))
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).text == "question 0")


async def test_the_context_meter_stays_while_an_answer_is_written() -> None:
    app = new_app()
    app.engine.counts = True
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "one")
        app.engine.last.prefill(64, 64)
        app.engine.last.say(*"abcdefghij")
        await until(pilot, lambda: "74/8.2k" in screen_text(pilot))


@pytest.mark.parametrize(("days", "text"), [(0, "12:00"), (1, "Fri"), (6, "Sun"), (7, "9 May"), (200, "2025-10")])
def test_days_are_short(days: int, text: str) -> None:
    now = datetime(2026, 5, 16, 12).astimezone()
    assert day_of((now - timedelta(days=days)).timestamp(), now) == text


async def test_drafts_stay_with_their_chats(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "one", "1")
        await write(pilot, "and two")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: prompt(pilot).text == "")
        await write(pilot, "begun")
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: prompt(pilot).text == "and two")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: prompt(pilot).text == "begun")
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: prompt(pilot).text == "and two")
        await write(pilot, " and three")
    again = new_app(tmp_path / "chats.db")
    async with again.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        await until(pilot, lambda: prompt(pilot).text == "and two and three")


async def test_a_draft_is_not_lost_while_a_long_chat_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = new_app(tmp_path / "chats.db")
    add_chats(tmp_path / "chats.db", 2)
    (chat,) = app.chats.recent()
    app.chats.keep_draft(chat.id, "half a thought")
    drawn, screens = Transcript.show, []

    async def slowly(self: Transcript, *arguments: Any) -> None:
        screens.append(self.screen)
        for _ in range(3):
            assert isinstance(self.screen, ChatScreen)
            await self.screen._tick()
        await drawn(self, *arguments)

    monkeypatch.setattr(Transcript, "show", slowly)
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        await until(pilot, lambda: bool(screens) and "question 1" in transcript(pilot))
        assert prompt(pilot).text == "half a thought"
        assert app.chats.get(chat.id).draft == "half a thought"


async def test_a_chat_is_in_view_although_the_draft_that_was_left_could_not_be_kept(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    add_chats(tmp_path / "chats.db", 2)
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "one", "1")
        await write(pilot, "and two")
        app.chats._write(
            "CREATE TRIGGER full BEFORE UPDATE OF draft ON chats BEGIN SELECT RAISE(FAIL, 'full'); END", ()
        )
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: "question 1" in transcript(pilot))
        app.chats._write("DROP TRIGGER full", ())
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: transcript(pilot) == "one: 1")
        assert prompt(pilot).text == "and two"


@pytest.mark.parametrize("then", ["waits", "asks", "quits"])
async def test_an_answer_that_ended_on_a_full_disk_is_saved_once_there_is_room(then: str, tmp_path: Path) -> None:
    app, text = new_app(tmp_path / "chats.db"), "words " * 20_000

    def saved() -> list[tuple[str, str]]:
        chats = Chats(tmp_path / "chats.db")
        try:
            return [(each.state, each.text) for each in chats.tree(1).branch if each.role == "assistant"]
        finally:
            chats.close()

    def room(pages: int) -> None:
        app.chats._connection.execute(f"PRAGMA max_page_count = {pages}")

    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "one")
        room(1)  # as many as there are
        app.engine.last.say(text)
        app.engine.last.finish()
        await until(pilot, lambda: any("disk is full" in each.message for each in app._notifications))
        await until(pilot, lambda: "TTFT" in note(pilot))
        assert saved()[0][1] != text
        if then == "waits":
            room(100_000)
            await until(pilot, lambda: saved() == [("done", text)])
        elif then == "asks":
            await write(pilot, "two")
            await pilot.press("enter")
            await until(pilot, lambda: prompt(pilot).text == "two" and len(app.engine.generations) == 1)
            room(100_000)
            await pilot.press("enter")
            await until(pilot, lambda: len(app.engine.generations) == 2)
            assert saved()[0] == ("done", text)
        else:
            room(100_000)
    assert saved()[0] == ("done", text)


async def test_where_chats_cannot_be_read_that_is_said_once_and_the_model_is_there(tmp_path: Path) -> None:
    (tmp_path / "chats.db").write_bytes(b"this is no database at all" * 50)
    app = ScriptedApp(*MODELS, chats=tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.screen.query_one(StatusStrip).facts.model == MODELS[0].id)
        await until(pilot, lambda: any("is not a database" in each.message for each in app._notifications))
        await write(pilot, "two")
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == "two" and not app.engine.generations)
        said = [each.message for each in app._notifications]
        assert len(said) == len(set(said))


async def test_a_chat_that_another_program_deleted_is_said_to_be_gone(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "one", "1")
        elsewhere = Chats(tmp_path / "chats.db")
        elsewhere.remove(1)
        elsewhere.close()
        await write(pilot, "two")
        await pilot.press("enter")
        gone = "This chat has been deleted in the meantime. Begin a new chat."
        await until(pilot, lambda: [each.message for each in app._notifications] == [gone])
        assert prompt(pilot).text == "two"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not transcript(pilot))
        await say(pilot, app, "three", "3")


async def test_answers_go_on_in_several_chats_at_once() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "first chat")
        one = app.engine.last
        await write(pilot, "draft of one")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: prompt(pilot).text == "")
        await ask(pilot, "second chat")
        two = app.engine.last
        one.say("one goes on")
        two.say("two as well")
        await until(pilot, lambda: shown(pilot) == "two as well" and "(2 live)" in screen_text(pilot))
        assert not one.left
        one.finish()
        await until(pilot, lambda: "● first chat" in screen_text(pilot))
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: "one goes on" in screen_text(pilot) and prompt(pilot).text == "draft of one")
        assert "▶ second chat" in screen_text(pilot)
        await pilot.press("alt+pageup")
        await until(pilot, lambda: shown(pilot) == "two as well")
        two.say(" still")
        await until(pilot, lambda: shown(pilot) == "two as well still")
        assert "draft" not in prompt(pilot).text


async def test_what_is_written_is_saved_while_it_grows(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("half")
        other = Chats(tmp_path / "chats.db")
        (chat,) = other.recent()
        await until(pilot, lambda: other.branch(chat.id)[-1].text == "half")
        app.engine.last.say(" an answer")
        await until(pilot, lambda: other.branch(chat.id)[-1].text == "half an answer")
        other.close()


async def test_asking_again_and_comparing_versions() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await say(pilot, app, "q", "first")
        await pilot.press("alt+up", "r")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        assert asked(app).messages == (Message("user", "q"),)
        app.engine.last.say("second")
        app.engine.last.finish()
        await until(pilot, lambda: transcript(pilot) == "q: second" and "‹2/2›" in screen_text(pilot))
        await say(pilot, app, "more", "of second")
        await pilot.press("alt+up", "alt+up", "alt+up", "left_square_bracket")
        await until(pilot, lambda: transcript(pilot) == "q: first" and "‹1/2›" in screen_text(pilot))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: transcript(pilot) == "q: second | more: of second")


async def test_an_edit_is_a_branch_and_escape_leaves_it() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await say(pilot, app, "one", "1")
        await say(pilot, app, "two", "2")
        await pilot.press("alt+up", "alt+up", "alt+up", "e")
        await until(pilot, lambda: prompt(pilot).text == "one" and "esc cancels" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "" and "esc cancels" not in screen_text(pilot))
        await write(pilot, "three")
        await pilot.press("alt+up", "alt+up", "alt+up", "e")
        await until(pilot, lambda: prompt(pilot).text == "one")
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "three")
        await pilot.press("alt+up", "alt+up", "alt+up", "e")
        await until(pilot, lambda: prompt(pilot).text == "one")
        await say(pilot, app, "uno", "eins")
        assert prompt(pilot).text == "three", "the draft that the edit took the place of"
        assert transcript(pilot) == "uno: eins" and "you ‹2/2›" in screen_text(pilot)
        assert asked(app).messages == (Message("user", "uno"),)
        await pilot.press("alt+up", "alt+up", "left_square_bracket")
        await until(pilot, lambda: transcript(pilot) == "one: 1 | two: 2")


async def test_a_stopped_answer_goes_on() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "count")
        app.engine.last.say("one two")
        await until(pilot, lambda: shown(pilot) == "one two")
        await pilot.press("escape")
        await until(pilot, lambda: "stopped" in note(pilot))
        await pilot.press("alt+up", "g")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        assert asked(app).continue_last
        assert asked(app).messages[-1] == Message("assistant", "one two")
        app.engine.last.say(" three")
        app.engine.last.finish()
        await until(pilot, lambda: shown(pilot) == "one two three" and "TTFT" in note(pilot))
        (chat,) = app.chats.recent()
        assert [each.text for each in app.chats.branch(chat.id)] == ["count", "one two three"]


async def test_thoughts_are_folded_with_their_duration() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "q")
        app.engine.last.think("Let me ", "see [/foo]")
        await until(pilot, lambda: "thinking" in note(pilot) and "see [/foo]" in screen_text(pilot))
        app.seconds.now = 3.2
        app.engine.last.say("Yes.")
        await until(pilot, lambda: "▸ thought 3.20 s" in screen_text(pilot))
        assert "Let me" not in screen_text(pilot)
        app.engine.last.finish()
        await until(pilot, lambda: "TTFT" in note(pilot))
        await pilot.press("alt+up", "t")
        await until(pilot, lambda: "Let me see [/foo]" in screen_text(pilot))


async def test_blocks_of_code_are_numbered_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_TTY", "/dev/pts/0")
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "code")
        app.engine.last.say("```")
        await until(pilot, lambda: "[1]" in screen_text(pilot))
        app.engine.last.say("py\nx = 1\n```\n\nsee a.example\n\n```sh\nls\n```\n")
        app.engine.last.finish()
        await until(pilot, lambda: "[1] py" in screen_text(pilot) and "[2] sh" in screen_text(pilot))
        await pilot.press("alt+up", "1")
        await until(pilot, lambda: app.clipboard == "x = 1")
        await pilot.press("c")
        await until(pilot, lambda: app.clipboard == "ls")
        await pilot.press("alt+up", "y")
        await until(pilot, lambda: app.clipboard == "code")
    again = new_app(app.chats.path)
    async with again.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        # What is frozen looks like what was live.
        await until(pilot, lambda: "[2] sh" in screen_text(pilot))
        assert "see a.example " in screen_text(pilot) and "http" not in screen_text(pilot)


async def test_rename_and_delete_ask_for_what_they_need() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "first words of it", "ok")
        prompt(pilot).put("/rename")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LineScreen))
        app.screen.query_one(Input).value = "Better [/name]"
        await pilot.press("enter")
        await until(pilot, lambda: "Better [/name]" in screen_text(pilot))
        await pilot.press("ctrl+b", "delete")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: app.chats.recent() == [] and transcript(pilot) == "")


async def test_deleting_a_chat_ends_its_answer() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("half")
        prompt(pilot).put("/delete")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: app.engine.last.left and app.chats.recent() == [])


async def test_parameters_are_marked_kept_and_reset(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "field-temperature")
        await write(pilot, "0.25")
        await until(pilot, lambda: "• temp" in screen_text(pilot))
        await pilot.press("tab")
        await write(pilot, "7")
        await until(pilot, lambda: "✕ top_p" in screen_text(pilot) and "top_p must be" in screen_text(pilot))
        await pilot.press("escape")
        prompt(pilot).put("/set seed 11")
        await pilot.press("enter")
        await until(pilot, lambda: "• seed" in screen_text(pilot))
        prompt(pilot).put("/set seed many")
        await pilot.press("enter")
        await say(pilot, app, "q", "a")
        sampling = app.engine.last.request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.25, 0.9, 11)
    again = new_app(tmp_path / "chats.db")
    async with again.run_test(size=WIDE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter", "ctrl+o")
        await until(pilot, lambda: "• temp" in screen_text(pilot))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: again.chats.recent()[0].settings == ChatSettings())
        assert "•" not in screen_text(pilot)


async def test_presets() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await ready(pilot)
        for command in ("/system Be brief", "/preset greedy", "/set top_k 5", "/preset save mine", "/preset greedy"):
            prompt(pilot).put(command)
            await pilot.press("enter")
            await until(pilot, lambda: prompt(pilot).text == "")
        await ask(pilot, "q")
        assert app.engine.last.request.sampling.temperature == 0
        assert app.engine.last.request.sampling.top_k == 0
        assert asked(app).messages[0] == Message("system", "Be brief"), "a preset leaves the system prompt"
        assert app.chats.presets()["mine"].top_k == 5


async def test_finding_words_opens_the_branch_they_are_on(tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", 60)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await say(pilot, app, "q", "the lighthouse keeper")
        await pilot.press("alt+up", "r")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        app.engine.last.finish()
        await until(pilot, lambda: "empty answer" in note(pilot))
        await pilot.press("ctrl+n", "ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen))
        await write(pilot, "keep")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
        assert "…" not in screen_text(pilot).split("2026")[0].rsplit("│", 1)[-1], "a short title has its room"
        await pilot.press("enter")
        await until(pilot, lambda: transcript(pilot) == "q: the lighthouse keeper")

        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen))
        await write(pilot, "question 7")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: "an answer 7" in screen_text(pilot) and "an answer 59" not in screen_text(pilot))
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "an answer 59" in screen_text(pilot))

        await pilot.press("ctrl+s")
        await until(pilot, lambda: "Type the words to look for" in screen_text(pilot))
        await pilot.press("escape")
        await write(pilot, "/find keep")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen) and "lighthouse" in screen_text(pilot))


async def test_a_long_chat_opens_at_its_end_with_few_widgets(tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", 250)
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: "an answer 249" in screen_text(pilot))
        assert len(app.screen.query(AnswerView)) == WINDOW
        assert len(app.screen.query_one(Transcript).query("*")) <= 6 * WINDOW, "of 500 messages"
        app.screen.query_one(Transcript).scroll_home(animate=False)
        await until(pilot, lambda: len(app.screen.query(AnswerView)) == 2 * WINDOW)
        assert f"an answer {250 - WINDOW}" in screen_text(pilot), "what was in view stays in view"


@pytest.mark.long
async def test_however_far_one_scrolls_few_turns_are_mounted_and_the_place_is_kept(tmp_path: Path) -> None:
    add_chats(tmp_path / "chats.db", MOST + WINDOW)
    last = MOST + WINDOW - 1
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("alt+pagedown")
        await until(pilot, lambda: f"an answer {last}" in screen_text(pilot))
        transcript = app.screen.query_one(Transcript)

        def numbers() -> list[int]:
            return [int(each) for each in re.findall(r"an answer (\d+)", screen_text(pilot))]

        def mounted() -> tuple[int, int]:
            return transcript._first, transcript._first + len(transcript._views)

        def moved(before: tuple[int, int]) -> bool:
            return mounted() != before and not transcript._loading

        async def scroll(there: Callable[..., None], end: int, side: int) -> None:
            while end not in numbers():
                before = mounted()
                there(animate=False)
                await until(pilot, lambda before=before: end in numbers() or moved(before))  # type: ignore[misc]
                assert len(transcript._views) == len(app.screen.query(AnswerView)) <= MOST
                if mounted() != before:
                    assert before[side] - side in numbers(), "what was in view stays in view"

        await scroll(transcript.scroll_home, 0, 0)
        await scroll(transcript.scroll_end, last, 1)
        await until(pilot, lambda: transcript.following)
        await say(pilot, app, "one more", "a last one")


async def test_the_context_counts_the_draft_and_refuses_what_is_too_long() -> None:
    app = new_app()
    app.engine.counts = True
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put("x" * 400)
        await until(pilot, lambda: "0/8.2k +100" in screen_text(pilot))
        prompt(pilot).put("x" * 40_000)
        await until(pilot, lambda: "too long to send" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "Not sent" in screen_text(pilot))
        assert len(prompt(pilot).draft) == 40_000 and not app.engine.generations


async def test_files_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("remember the milk\n")
    (tmp_path / "big.txt").write_text("x" * 600_000)
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        await write(pilot, "@no")
        await pilot.press("tab")
        await until(pilot, lambda: prompt(pilot).text == "@notes.txt")
        await until(pilot, lambda: "⎘ notes.txt  18 B" in screen_text(pilot))
        prompt(pilot).put("read @notes.txt, please @friend")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert "notes.txt:\n```\nremember the milk\n```" in asked(app).messages[0].content
        await until(pilot, lambda: "⎘ notes.txt · 18 B" in screen_text(pilot))
        app.engine.last.finish(tokens=1)
        await until(pilot, lambda: "TTFT" in note(pilot))
        prompt(pilot).put("read @big.txt")
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == "read @big.txt" and "larger than" in screen_text(pilot))


async def test_one_pane_at_a_time_on_a_narrow_screen() -> None:
    app = new_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await say(pilot, app, "what is it", "a tower")
        await pilot.press("ctrl+b")
        await until(pilot, lambda: app.screen.query_one(ChatList).has_focus)
        await until(pilot, lambda: "a tower" not in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "a tower" in screen_text(pilot) and prompt(pilot).has_focus)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "a tower" not in screen_text(pilot) and "system" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "a tower" in screen_text(pilot))


@pytest.mark.parametrize("editor", ["no-such-editor", "no-such-editor '"])
async def test_an_editor_that_cannot_be_used_is_no_end(editor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", editor)
    monkeypatch.delenv("VISUAL", raising=False)
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put("draft")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "no-such-editor" in screen_text(pilot))
        assert prompt(pilot).text == "draft"


async def test_tags_are_written_in_the_list_and_narrow_it(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "tides", "The Moon.")
        prompt(pilot).put("/tag #Sea physics")
        await pilot.press("enter")
        await until(pilot, lambda: "#physics #sea" in screen_text(pilot))
        await pilot.press("ctrl+n")
        await say(pilot, app, "cats", "Black ones.")
        await pilot.press("ctrl+b", "f")
        await until(pilot, lambda: "#physics" in screen_text(pilot) and "all chats" in screen_text(pilot))
        await write(pilot, "se")
        await pilot.press("enter")
        await until(pilot, lambda: "Chats #sea" in screen_text(pilot))
        rows = app.screen.query_one(ChatList)
        assert rows.option_count == 1 and rows.has_focus, "the keys are for the list that was narrowed"
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, LineScreen))
        assert app.screen.query_one(Input).value == "physics sea"
        app.screen.query_one(Input).value = "sea"
        await pilot.press("enter")
        await until(pilot, lambda: app.chats.tags() == {"sea": 1})

        await pilot.press("escape", "ctrl+n")
        await say(pilot, app, "gulls", "They cry.")
        assert app.chats.tags() == {"sea": 2}, "a chat that is begun in a narrowed list stays in it"
        await until(pilot, lambda: app.screen.query_one(ChatList).option_count == 2)

        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen))
        await write(pilot, "#sea moon")
        await until(pilot, lambda: "The Moon." in screen_text(pilot))
        assert app.screen.query_one(OptionList).option_count == 1


async def test_an_answer_that_ended_unseen_is_marked_as_news_or_failed_until_its_chat_is_opened(tmp_path: Path) -> None:
    kept = tmp_path / "chats.db"
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=kept)
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "one")
        first = app.engine.last
        await pilot.press("ctrl+n")
        await ask(pilot, "two")
        second = app.engine.last
        await pilot.press("ctrl+n", "ctrl+b")
        await until(pilot, lambda: bool(app.screen.query(ChatList)) and "(2 live)" in screen_text(pilot))
        first.say("An answer.")
        first.finish()
        second.fail(EngineError("The worker died."))
        await until(pilot, lambda: "● one" in screen_text(pilot) and "✕ two" in screen_text(pilot))

    again = ScriptedApp(*MODELS, model=SMOL.id, chats=kept)
    async with again.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "● one" in screen_text(pilot) and "✕ two" in screen_text(pilot))
        await pilot.press("up")
        await until(pilot, lambda: "✕ two" not in screen_text(pilot) and "● one" in screen_text(pilot))

    assert [(each.title, each.unread) for each in again.chats.recent()] == [("two", ""), ("one", "news")]


async def test_an_answer_that_quitting_cut_off_is_news_where_another_chat_was_shown(tmp_path: Path) -> None:
    kept = tmp_path / "chats.db"
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=kept)
    async with app.run_test(size=WIDE) as pilot:
        await ask(pilot, "behind")
        app.engine.last.say("The first half")
        await pilot.press("ctrl+n")
        await ask(pilot, "in view")
        app.engine.last.say("Seen")
        await until(pilot, lambda: "Seen" in screen_text(pilot))

    again = ScriptedApp(*MODELS, model=SMOL.id, chats=kept)
    async with again.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "● behind" in screen_text(pilot))
        assert "● in view" not in screen_text(pilot), "its end was seen"


@pytest.mark.parametrize("place", [(4, 1), (4, 15)])
async def test_words_typed_after_a_click_into_the_list_of_chats_are_for_the_prompt(place: tuple[int, int]) -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "one", "First.")
        await pilot.press("ctrl+b")  # the list has the focus, as its key gives it
        await until(pilot, lambda: app.screen.query_one(ChatList).has_focus)
        await pilot.click(ChatList, offset=place)
        app.post_message(Key("d", "d"))  # at once: the focus may not have moved yet
        await write(pilot, "elay yes")
        await until(pilot, lambda: prompt(pilot).text == "delay yes")
        assert [each.title for each in app.chats.recent()] == ["one"]


async def test_words_typed_while_the_list_of_chats_has_the_focus_lose_nothing() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await say(pilot, app, "one", "First.")
        await pilot.press("ctrl+b")
        await until(pilot, lambda: app.screen.query_one(ChatList).has_focus)
        await write(pilot, "great")
        await until(pilot, lambda: prompt(pilot).text == "great")
        await pilot.press("ctrl+u", "ctrl+b")
        await until(pilot, lambda: app.screen.query_one(ChatList).has_focus)
        await write(pilot, "delay")  # d asks, which e declines
        await until(pilot, lambda: prompt(pilot).text == "lay")
        assert [each.title for each in app.chats.recent()] == ["one"]


async def test_a_new_chat_says_that_its_model_works_for_another_one() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        await loaded(pilot)
        ready_state = app.engine.states[SMOL.id]
        app.engine.states[SMOL.id] = replace(ready_state, running=1)
        await until(pilot, lambda: "▶ busy" in screen_text(pilot))
        app.engine.states[SMOL.id] = replace(ready_state, running=1, waiting=2)
        await until(pilot, lambda: "▶ busy, 2 queued" in screen_text(pilot))
        title = RequestStatus(1, TITLE, SMOL.id, 1, "writing", 64, 9, 0.3, 48.0, 4.0, None)
        app.engine.requests, app.engine.states[SMOL.id] = [title], replace(ready_state, running=1)
        await until(pilot, lambda: "● ready" in screen_text(pilot))  # nobody waits for a title


async def test_the_list_is_as_wide_as_its_place_from_its_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squish.tui.screens.chat.TICK", 3600)  # after it the list would be right in any case
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await say(pilot, app, "a question of some length", "yes")
        await pilot.press("ctrl+b")
        await until(pilot, lambda: re.search("╭─ Chats.*\n.*a question of some length", screen_text(pilot)) is not None)


async def test_what_has_the_keys_is_in_view_on_a_narrow_screen() -> None:
    app = new_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await say(pilot, app, "what is it", "a tower")
        await pilot.press("ctrl+b", "ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen))
        await write(pilot, "tower")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: " a tower" in screen_text(pilot) and "Chats" not in screen_text(pilot))
        assert "more below" not in screen_text(pilot)
        await pilot.press("ctrl+b", "alt+up")
        await until(pilot, lambda: "a tower" in screen_text(pilot))

        await pilot.resize_terminal(80, 24)
        await pilot.press("ctrl+b", "tab")  # beside each other there
        await until(pilot, lambda: "a tower" in screen_text(pilot) and "╭─ Chats" in screen_text(pilot))
        prompt(pilot).focus()
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "a tower" in screen_text(pilot) and "╭─ Chats" not in screen_text(pilot))


async def test_the_mark_stays_in_its_place_where_its_chat_has_gone() -> None:
    app = new_app()
    async with app.run_test(size=WIDE) as pilot:
        for name in ("one", "two", "three", "four"):
            await pilot.press("ctrl+n")
            await say(pilot, app, name, "yes")
        await pilot.press("ctrl+b")
        rows = app.screen.query_one(ChatList)
        await until(pilot, lambda: rows.has_focus and rows.option_count == 4)
        await pilot.press("down", "a")
        await until(pilot, lambda: rows.option_count == 3)
        assert app.chats.get(rows.marked or 0).title == "two"  # what a second key acts on is beside it
        await pilot.press("end", "d")
        await until(pilot, lambda: "Delete “one”" in screen_text(pilot))
        await pilot.press("y")
        await until(pilot, lambda: rows.option_count == 2)
        assert app.chats.get(rows.marked or 0).title == "two"

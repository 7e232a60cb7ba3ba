"""The app does not end by itself; when it must, the terminal is as before and one line says why."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual import events
from textual.css.query import NoMatches
from textual.geometry import Size
from textual.screen import ModalScreen, Screen
from textual.widgets import OptionList
from textual.worker import WorkerFailed

from squish.tui import app as app_module
from squish.tui import download_words
from squish.tui.app import SquishApp
from squish.tui.background import Background
from squish.tui.downloads import Transfer
from squish.tui.fitted_screen import FittedScreen
from squish.tui.memory_readings import Memory
from squish.tui.palette import PaletteEntry
from squish.tui.terminal.guard import guarded_stderr, previous
from squish.tui.widgets.chat.params import ParamsPanel
from squish.tui.widgets.places import Places
from squish.tui.widgets.row_list import RowList
from squish.tui.widgets.status import StatusStrip, StripFacts
from squish.tui.windows.command_palette import CommandPalette
from squish.tui.windows.confirm import ConfirmScreen
from squish.tui.windows.help import HelpScreen
from squish.tui.windows.line_input import LineScreen
from squish.tui.windows.window import MOST
from tests.tui.scenes import ask, prompt, ready, said, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

WINDOWS = ("ctrl+t", "ctrl+l", "ctrl+s", "f1", "ctrl+p", "f2", "f3", "f4", "f5", "ctrl+b", "ctrl+o")
SOURCES = sorted((Path(app_module.__file__).parent).rglob("*.py"))


def subclasses(of: type[Any]) -> list[type[Any]]:
    below: list[type[Any]] = of.__subclasses__()
    return [*below, *(found for each in below for found in subclasses(each))]


def new_app() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


@pytest.mark.parametrize(
    ("size", "steps"), [((60, 20), (0, 2, 20)), pytest.param((120, 36), (1, 2, 5), marks=pytest.mark.long)]
)
async def test_windows_may_be_opened_and_closed_as_fast_as_keys_come(
    size: tuple[int, int], steps: tuple[int, ...]
) -> None:
    app = new_app()
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        for turns in steps:  # a different number of steps of the loop between opening and closing
            for key in WINDOWS:
                app.post_message(events.Key(key, None))
                for _ in range(turns):
                    await pilot.pause(0)
                app.post_message(events.Key("escape", None))
                if turns == 2:
                    await pilot.resize_terminal(size[0] - turns, size[1])
        await pilot.press("f2")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        assert app.is_running and not app.fault


@pytest.mark.parametrize(
    "size", [(20, 24), *(pytest.param(each, marks=pytest.mark.long) for each in ((40, 5), (9, 3)))]
)
async def test_every_screen_and_window_may_be_opened_where_it_has_no_room(size: tuple[int, int]) -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.resize_terminal(*size)
        for key in (*WINDOWS, "f8"):
            await pilot.press(key)
            await pilot.press("pagedown", "pageup", "down")
            await pilot.resize_terminal(size[0] + 1, size[1])
            await pilot.press("escape")
            await pilot.resize_terminal(*size)
        assert app.is_running and not app.fault


async def test_a_window_closes_once_and_itself_alone() -> None:
    app, answers = new_app(), list[bool | None]()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        below, above = ConfirmScreen("Delete", "This?", "Delete"), ConfirmScreen("Delete", "That?", "Delete")
        app.push_screen(below, answers.append)
        await app.push_screen(above, answers.append)
        below.action_answer(True)
        assert app.screen is above
        above.action_answer(True)
        above.action_answer(True)
        assert app.screen is below
        below.action_answer(False)
        below.action_answer(True)
        await until(pilot, lambda: len(answers) == 2)
        assert answers == [True, False] and app.screen.query("#prompt")


async def test_windows_do_not_pile_up() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for _ in range(3):
            for key in ("f1", "ctrl+t", "ctrl+p"):
                await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        assert len(app.screen_stack) == 4
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert len(app.screen_stack) == 2, "what lay over the keys is closed"


@pytest.mark.parametrize("missed", [NoMatches("a list"), WorkerFailed(NoMatches("a list")), WorkerFailed(KeyError(1))])
async def test_work_for_a_window_that_goes_with_the_program_is_no_fault(missed: Exception) -> None:
    app = new_app()
    with suppress(WorkerFailed):
        async with app.run_test() as pilot:
            await ready(pilot)
            app.exit()
            try:
                raise missed
            except (NoMatches, WorkerFailed) as error:
                app._handle_exception(error)
    assert bool(app.fault) == ("KeyError" in str(missed))


async def test_a_click_on_what_was_just_removed_and_is_still_drawn_is_no_fault() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        drawn = app.screen.query_one(Places)
        x, y = drawn.region.x + 2, drawn.region.y
        assert app.screen.get_widget_and_offset_at(x, y)[0] is drawn
        parent, drawn._parent = drawn._parent, None  # as its removal leaves it until the next layout
        for kind in (events.MouseDown, events.MouseMove, events.MouseUp):
            app.screen._forward_event(kind(drawn, x, y, 0, 0, 1, False, False, False, x, y))
        drawn._parent = parent
        await pilot.pause()
    assert not app.fault and app._exception is None


async def test_a_window_that_is_asked_for_again_and_again_is_opened_once() -> None:
    """Each that lies over others is drawn through all of them: forty are more than Python's stack holds."""
    app, answers = new_app(), list[bool | None]()

    async def ask_again() -> None:
        question: Screen[Any] = ConfirmScreen("Memory is short", "Load it?", "Load")
        answers.append(await app.push_screen_wait(question))

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for _ in range(60):
            app.push_screen(ConfirmScreen("Delete", "This?", "Delete"), answers.append)
            await app.push_screen(LineScreen("Rename chat", "a"))
            await app.push_screen(LineScreen("Tags", "a"))
            app.run_worker(ask_again(), exit_on_error=False)
        await until(pilot, lambda: len(answers) == 59)
        assert [type(each) for each in app.screen_stack[1:]] == [ConfirmScreen, LineScreen, LineScreen, ConfirmScreen]
        assert set(answers) == {None}, "a question that is not shown is not answered with yes"
        for number in range(60):
            app.push_screen(ConfirmScreen("Delete", f"{number}?", "Delete"))
        assert len(app.screen_stack) == 1 + MOST
        await until(pilot, lambda: "5?" in screen_text(pilot))
        for _ in range(MOST):
            await pilot.press("escape")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        assert len(app.screen_stack) == 1 and not app.fault


async def test_parameters_that_are_set_while_their_panel_is_being_made_are_shown_in_it() -> None:
    app = new_app()
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        panel = app.screen.query_one(ParamsPanel)
        opening = asyncio.create_task(app.run_action("screen.toggle_params"))
        while not panel.children:
            await asyncio.sleep(0)
        await app.run_action("screen.set('top_k 5')")
        await app.run_action("screen.parameter('top_k')")
        await opening
        await until(pilot, lambda: "• top_k  5" in screen_text(pilot))


@pytest.mark.parametrize("window", [None, "f1"])
async def test_two_sizes_that_follow_each_other_while_a_screen_changes_do_not_call_each_other_forth_for_ever(
    window: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, laid_out, lay_out = new_app(), list[Size](), Screen._refresh_layout

    def counted(screen: Screen[None], size: Size | None = None, scroll: bool = False) -> None:
        assert len(laid_out) < 100, "nothing else is done any more"
        laid_out.append(screen.size)
        lay_out(screen, size, scroll)

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        if window:
            await pilot.press(window)
            await until(pilot, lambda: len(app.screen_stack) == 2)
        monkeypatch.setattr(Screen, "_refresh_layout", counted)
        with app.batch_update():  # as while one goes from screen to screen
            for size in (Size(60, 20), app.size):
                for screen in app.screen_stack:
                    screen.post_message(events.Resize(size, size))
                    screen.post_message(events.Show())
            await pilot.pause()
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: all(screen.size == app.size == Size(60, 20) for screen in app.screen_stack))


def test_every_screen_is_laid_out_for_the_size_of_the_terminal_alone() -> None:
    for path in SOURCES:
        import_module(".".join(path.relative_to(SOURCES[0].parents[2]).with_suffix("").parts))
    ours = [each for each in subclasses(Screen) if each.__module__.startswith("squish.")]
    assert len(ours) > 15 and all(issubclass(each, FittedScreen) for each in ours)


async def test_a_page_of_a_list_without_room_is_no_page() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for action in ("app.command_palette", "app.change_theme", "app.downloads", "screen.toggle_chats"):
            await pilot.resize_terminal(100, 30)
            await app.run_action(action)
            await pilot.press("pagedown", "pageup")
            await pilot.resize_terminal(20, 3)
            await pilot.press("t", "pageup", "pagedown", "backspace", "pagedown", "pageup")
            await pilot.press("escape")
        rows = RowList("one", "two")
        rows.highlighted = 0
        await app.screen.mount(rows)
        rows.styles.height = 0
        await pilot.pause()
        await rows.run_action("page_down")
        await rows.run_action("page_up")
        assert rows.highlighted == 0 and app.is_running and not app.fault


async def test_the_search_for_themes_is_opened_once_and_the_palette_over_it_too() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for _ in range(2):
            await app.run_action("app.change_theme")
        await pilot.press("ctrl+p", "f1", "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        assert sum(isinstance(each, CommandPalette) for each in app.screen_stack) == 1


async def test_what_the_palette_found_is_done_once_however_often_enter_comes() -> None:
    app, done = new_app(), list[str]()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        palette = app.screen
        assert isinstance(palette, CommandPalette)
        palette._listed = [PaletteEntry("here", "", "", lambda: done.append(type(app.screen).__name__))]
        await write(pilot, "here")
        await until(pilot, lambda: str(palette.query_one(OptionList).options[0].prompt).startswith("here "))
        for _ in range(3):
            palette.call_later(palette.action_take)
        await until(pilot, lambda: bool(app.screen.query("#prompt")) and bool(done))
        await pilot.pause()
        assert done == ["ChatScreen"], "on the screen below, once"


def test_work_is_put_off_by_one_function_only() -> None:
    """`call_after_refresh` calls back also when the widget has gone; `after_refresh` looks first."""
    users = [path.name for path in SOURCES if "call_after_refresh(" in path.read_text(encoding="utf-8")]
    assert users == ["scheduling.py"]


async def test_a_fault_ends_the_app_with_its_kind_and_place_and_nothing_that_was_written(
    capfd: pytest.CaptureFixture[str],
) -> None:
    app = new_app()
    with pytest.raises(ZeroDivisionError):
        async with app.run_test() as pilot:
            await ready(pilot)
            prompt(pilot).put("my secret")

            def broken() -> None:
                raise ZeroDivisionError("my secret")

            app.call_later(broken)
            while not app.fault:
                await pilot.pause()
    assert re.fullmatch(r"ZeroDivisionError in \w+\.py:\d+", app.fault)
    assert "my secret" in capfd.readouterr().err, "the traceback is for the log, to which descriptor 2 leads"


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "tui.log"
    for text in (b"first", b"second"):
        with guarded_stderr(log):
            os.write(2, text)
    assert (previous(log).read_text(), log.read_text()) == ("first", "second")


async def test_ctrl_c_stops_the_answer_and_says_how_to_quit_once() -> None:
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ask(pilot, "one")
        await write(pilot, "draft")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.engine.last.cancelled)
        await until(pilot, lambda: "stopped" in screen_text(pilot))
        await pilot.press("ctrl+c", "ctrl+c", "ctrl+c")
        await until(pilot, lambda: "ctrl+q quits" in screen_text(pilot))
        assert screen_text(pilot).count("ctrl+q quits") == 1
        assert prompt(pilot).text == "draft"


async def test_ctrl_c_closes_every_window_as_escape_does() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await said(pilot, "Hi", "Hello.")
        app.chats.keep_prompt("greet", "Hi")
        for opens in ("ctrl+t", "ctrl+l", "ctrl+s", "f1", "ctrl+p", "f8", "/rename", "/template", "/tag"):
            if opens.startswith("/"):
                prompt(pilot).put(opens)
            await pilot.press("enter" if opens.startswith("/") else opens)
            await until(pilot, lambda: isinstance(app.screen, ModalScreen))
            await pilot.press("ctrl+c")
            await until(pilot, lambda: not isinstance(app.screen, ModalScreen))
            assert not app._notifications, opens


async def test_ctrl_c_in_a_window_copies_what_is_selected_and_answers_a_question_with_no(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, copied, answers = new_app(), list[str](), list[bool | None]()
    monkeypatch.setattr(SquishApp, "copy_to_clipboard", lambda self, text: copied.append(text))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "Keys and commands" in screen_text(pilot))
        app.screen.text_select_all()
        await pilot.press("ctrl+c")
        await until(pilot, lambda: bool(copied))
        assert isinstance(app.screen, ModalScreen)
        await pilot.press("escape")
        app.push_screen(ConfirmScreen("Delete", "Really?", "Delete"), answers.append)
        await until(pilot, lambda: "Really?" in screen_text(pilot))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: bool(answers))
        assert not answers[0]


async def test_leaving_while_a_download_runs_asks() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        app.downloads._transfers.append(Transfer("qwen3:8b", "qwen3:8b", "running", "download", 1, 2))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "qwen3:8b: not complete" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        assert app.is_running and isinstance(app, SquishApp)
        await pilot.press("ctrl+q", "y")
    assert app.return_code == 0


async def test_the_strip_below_a_window_goes_on() -> None:
    app = new_app()
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, ModalScreen))
        app.downloads._transfers.append(Transfer("qwen3:8b", "qwen3:8b", "running", "download", 1, 2))
        strip = app.screen_stack[0].query_one(StatusStrip)
        await until(pilot, lambda: "⇣1 50 %" in map(str, strip.background_work))
        app.downloads._transfers.clear()


async def test_of_a_server_that_has_gone_nothing_is_said_to_be_loaded_or_not() -> None:
    async with ScriptedApp(*MODELS, model=SMOL.id).run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        strip = pilot.app.screen.query_one(StatusStrip)
        for state in ("not loaded", "no model loaded"):
            strip.facts = StripFacts(model=SMOL.id, state=state)
            strip.background_work = (Background("✕ mac:11435", lost=True),)
            assert "○ not connected" in strip.render().plain and "loaded" not in strip.render().plain
            strip.background_work = (Background("⇄ mac:11435"),)
            assert state in strip.render().plain


async def test_the_strip_is_drawn_again_where_it_says_something_else() -> None:
    async with ScriptedApp(*MODELS, model=SMOL.id).run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        strip = pilot.app.screen.query_one(StatusStrip)
        strip.facts = facts = replace(strip.facts, memory=Memory(10**10, 3 * 10**10))
        strip.render()
        strip._repaint_required = False
        strip.facts = replace(facts, memory=Memory(10**10 + 1, 3 * 10**10))
        assert not strip._repaint_required
        strip.facts = replace(facts, memory=Memory(2 * 10**10, 3 * 10**10))
        assert strip._repaint_required


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        (Background("⇄ 127.0.0.1:11435"), "⇄ 127.0.0.1:11435"),
        (Background("✕ an.address.longer.than.the.strip:11435"), "✕ an.address.longer.tha…"),
        (download_words.one_line([Transfer("a", "a", "failed", "download", 1, 2)]), "⇣1 failed"),
        (download_words.one_line([Transfer("a", "a", "paused", "download", 1, 2)]), "⇣1 paused"),
        (download_words.one_line([Transfer("a", "a", "running", "download", 1, 2, 7.0, 90.0)]), "⇣1"),
    ],
)
async def test_what_a_narrow_strip_leaves_of_work_behind_it_is_true(work: Background, shown: str) -> None:
    """Not a lone ⇄ for a server, nor `⇣1`, which is a download that runs, for one that failed."""
    async with ScriptedApp(*MODELS, model=SMOL.id).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        strip = pilot.app.screen.query_one(StatusStrip)
        strip.facts = replace(strip.facts, state="connected", speed=42.0)
        strip.background_work = (Background(), work)
        assert strip.render().plain.rstrip().endswith(f"  {shown}"), strip.render().plain


def test_a_terminal_that_has_gone_is_not_an_error(tmp_path: Path) -> None:
    program = (
        "import os, pty, sys\n"
        "from pathlib import Path\n"
        "from squish.tui.terminal.guard import guarded_stderr\n"
        "own, theirs = pty.openpty()\n"
        "os.dup2(theirs, 2)\n"
        "os.close(theirs)\n"
        f"with guarded_stderr(Path({str(tmp_path / 'log')!r})):\n"
        "    print('drawn', file=sys.__stderr__)\n"
        "    os.close(own)\n"
        "    sys.__stderr__.write('last words')\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Keys: what the row at the bottom says of them, and that none is taken for another one when many come at once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, TextArea

from squish.generation import ChatPrompt, Message
from squish.tui.screens.hub import HubScreen
from squish.tui.widgets.chat.hints import Hints
from squish.tui.widgets.keys import Keys
from squish.tui.windows.chat_search import ChatSearchScreen
from squish.tui.windows.chooser import Chooser
from squish.tui.windows.model_picker import ModelPicker
from tests.tui.scenes import answer, ask, first_run, prompt, ready, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp
from tests.tui.test_faults import SOURCES


def new_app() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


def burst(app: ScriptedApp, *keys: str) -> None:
    """Keys that the program gets all at once, as when it was busy."""
    characters = {"slash": "/", "space": " ", "full_stop": "."}
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else characters.get(key)))


def written(app: ScriptedApp, field: str = "Input") -> str:
    return next((each.value for each in app.screen.query(field).results(Input)), "")


def bottom(pilot: Pilot[None]) -> str:
    return screen_text(pilot).splitlines()[-1]


async def test_keys_that_arrive_in_one_burst_keep_their_order() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        burst(app, *"one", "ctrl+j", *"two", "enter", *"next")
        await until(pilot, lambda: bool(app.engine.generations) and prompt(pilot).text == "next")
        (only,) = app.engine.last.request.prompts
        assert isinstance(only, ChatPrompt) and only.messages == (Message("user", "one\ntwo"),)


async def test_a_letter_right_behind_a_key_that_moves_the_focus_is_for_the_new_place() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "ok")
        burst(app, "alt+up", "alt+up", "e", *"yi")
        await until(pilot, lambda: prompt(pilot).text == "oneyi")
        burst(app, "escape", "alt+up", "escape", *"rye")
        await until(pilot, lambda: prompt(pilot).text == "rye")
        burst(app, "ctrl+s", *"moon")
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen) and written(app) == "moon")
        burst(app, "escape", "ctrl+l", *"qwen")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and written(app) == "qwen")
        burst(app, "escape", "ctrl+o", *"03")
        await until(pilot, lambda: written(app, "#field-temperature") == "03")
        burst(app, "ctrl+o", *"g")
        await until(pilot, lambda: prompt(pilot).text == "ryeg")
        burst(app, "ctrl+b", "enter", *"rd")
        await until(pilot, lambda: prompt(pilot).text == "ryegrd")


async def test_what_is_written_behind_the_key_of_the_search_is_searched() -> None:
    app = ScriptedApp()
    async with app.run_test() as pilot:
        await first_run(pilot)
        burst(app, "slash", *"fpbs", "slash")
        await until(pilot, lambda: written(app) == "fpbs/")
        assert isinstance(app.screen, HubScreen)


async def test_the_keys_at_the_bottom_say_what_they_do_now() -> None:
    app = new_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(pilot, "one")
        await until(pilot, lambda: "esc stop" in bottom(pilot))
        await answer(pilot, "ok")
        await pilot.press("alt+up")
        await until(pilot, lambda: "e edit" in bottom(pilot) and "versions" not in bottom(pilot))
        await pilot.press("r")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        await answer(pilot, "yes")
        await pilot.press("alt+up")
        await until(pilot, lambda: "[ ] versions" in bottom(pilot) and "help" in bottom(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "esc leave edit" in bottom(pilot) and "stop" not in bottom(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "esc" not in bottom(pilot))


async def test_a_command_takes_one_row_also_beside_the_parameters() -> None:
    app = new_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        app.screen.set_focus(prompt(pilot))
        await write(pilot, "/")
        await until(pilot, lambda: "… and" in screen_text(pilot))
        assert app.screen.query_one(Hints).size.height == 8


async def test_a_click_on_a_key_at_the_bottom_is_that_key() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.click(Keys, offset=(bottom(pilot).index("model"), 0))
        await until(pilot, lambda: isinstance(app.screen, ModelPicker))
        await pilot.press("escape")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        await pilot.click(Keys, offset=(bottom(pilot).index("find"), 0))
        await until(pilot, lambda: isinstance(app.screen, ChatSearchScreen))


_KEY_NAMES = re.compile(r"(?<![\w/.])(?:(?:ctrl|alt|shift)\+\w+|F\d\d?|esc|enter|pgdn|pgup|tab)(?![\w/.])|alt\+[↑↓]")
# Windows whose keys are their own, so that [keys] cannot set others, say them themselves; the registry sets the others.
_REGISTRY = ("actions.py", "key_hints.py")
_TERMINAL = ("keyboard.py", "connecting.py")  # ctrl+c there is what ends every program
_LISTS = ("calls.py",)  # of Textual: enter is their own


def _said(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that can be shown: no docstrings, nothing that goes into a binding."""
    silent = {
        id(each)
        for node in ast.walk(tree)
        for each in (
            ast.walk(node)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Binding"
            else [node.value]
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            else ()
        )
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value


def test_no_text_names_a_key_that_config_may_change() -> None:
    """`key_hints.key` knows the key that is set."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        own_keys = "Binding(" in text or "(Chooser[" in text
        if path.name not in (*_REGISTRY, *_TERMINAL, *_LISTS) and not own_keys:
            found += [f"{path.name}: {said}" for said in _said(ast.parse(text)) if _KEY_NAMES.search(said)]
    assert found == []


@pytest.mark.parametrize(("keys", "model"), [("ctrl+l 30b enter", 1), ("ctrl+l llama enter", 0)])
async def test_what_is_written_before_enter_counts_for_it_also_in_one_burst(keys: str, model: int) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        opens, text, takes = keys.split()
        burst(app, opens, *text, takes, "h")
        await until(pilot, lambda: MODELS[model].id in app.engine.loads)
        await until(pilot, lambda: not isinstance(app.screen, ModelPicker) and prompt(pilot).text == "h")


async def test_a_row_that_is_chosen_while_the_list_changes_is_not_another_one() -> None:
    """The tools of a server come when they come; a click on what was there before is for nothing else."""
    app, taken = ScriptedApp(*MODELS, model=SMOL.id), list[int]()

    class Rows(Chooser[None]):
        CSS_PATH = str(SOURCES[0].parent / "windows" / "chooser.tcss")

        def compose(self) -> ComposeResult:
            yield from self.window("models", "Rows", "choose", "", "Filter")

        def taken(self, at: int) -> None:
            taken.append(at)

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        rows = Rows()
        app.push_screen(rows)
        await until(pilot, lambda: app.screen is rows and rows.is_mounted)
        rows.fill([Content("a"), Content("b")], 1, "none")
        rows.query_one(OptionList).action_select()
        rows.fill([Content("c")], 0, "none")
        await pilot.pause()
        assert not taken
        await pilot.press("enter")
        assert taken == [0]


async def test_no_cursor_blinks_where_nothing_is_to_move() -> None:
    app = new_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        fields = [app.focused]
        for key in ("ctrl+s", "ctrl+p", "ctrl+o"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.focused, Input))
            fields.append(app.focused)
            await pilot.press("escape")
            await until(pilot, lambda: app.focused is prompt(pilot))
        assert [each.cursor_blink for each in fields if isinstance(each, Input | TextArea)] == [False] * 4
    assert [path.name for path in SOURCES if "cursor_blink" in path.read_text(encoding="utf-8")] == ["app.py"]

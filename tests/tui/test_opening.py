"""What the first picture, a window and a screen cost to open: counted, since seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.tui.opening import SCREENS, WINDOWS

NOT_AT_THE_START = {
    "squish.tui.screens.hub", "squish.tui.screens.library", "squish.tui.screens.server", "squish.tui.windows.help",
    "squish.tui.windows.model_picker", "squish.tui.windows.chat_search", "squish.pull.pull", "squish.hub.client",
    "squish.tui.screens.compare_commands", "squish.tui.screens.template_commands", "squish.tui.screens.tool_commands",
    "squish.tui.chat.comparison", "squish.tui.chat.parameter_commands", "squish.tui.widgets.chat.turns",
    "squish.tui.widgets.markdown.live", "squish.tui.widgets.transfer_list", "squish.tui.windows.confirm",
    "squish.chats.export", "squish.chats.templates", "squish.attachments.folders", "squish.attachments.documents",
    "squish.pull.events", "squish.pull.repository", "squish.hub.rows", "squish.commands.answers.run",
    "rich.markdown", "markdown_it", "pygments", "textual.widgets._data_table", "textual.widgets._markdown",
    "sanic", "numpy", "mlx", "mlx_lm", "transformers", "huggingface_hub", "aiohttp", "httpx",
}  # fmt: skip
# Key: widgets on the screen; modules of Squish and Textual that nothing before has imported; and how often a widget,
# or a part of one, is styled, which is most of the work.
MOST = {
    "ctrl+p": (4, 5, 38),
    "f1": (3, 2, 32),
    "ctrl+l": (4, 1, 20),
    "ctrl+s": (4, 3, 38),
    "ctrl+t": (4, 5, 35),
    "f3": (9, 28, 60),
    "f4": (8, 4, 46),
    "f5": (8, 5, 46),
    "ctrl+o": (33, 1, 60),
}


def output_of(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output_of("-m", "tests.tui.opening"))
    return found


def test_the_first_picture_imports_and_makes_only_what_it_shows(counts: dict[str, Any]) -> None:
    start = counts["start"]
    assert start["widgets"] <= 12
    assert start["styled"] <= 60
    assert len(start["modules"]) <= 640
    assert not NOT_AT_THE_START & set(start["modules"])


def test_the_first_picture_is_drawn_once(counts: dict[str, Any]) -> None:
    assert counts["start"]["whole"] == 1
    assert counts["start"]["layouts"] <= 5  # three are of Textual's empty screen; one for the size, one with its rows


@pytest.mark.parametrize("key", MOST)
def test_opening_is_a_handful_of_widgets_and_modules(counts: dict[str, Any], key: str) -> None:
    found, (widgets, modules, styled) = counts[key], MOST[key]
    assert found["widgets"] <= widgets
    assert len(found["modules"]) <= modules, found["modules"]
    assert found["styled"] <= styled
    if key in SCREENS:
        # Textual parses the three lines of Static again for the first class that is two steps below it.
        assert found["parsed again"] <= 1, "style sheets"


@pytest.mark.parametrize("key", WINDOWS)
def test_a_window_is_laid_out_once_for_its_size_and_what_lies_below_it_not_again(
    counts: dict[str, Any], key: str
) -> None:
    assert counts[key]["told"] == [counts[key]["screen"]]


@pytest.mark.parametrize(("key", "layouts"), [("f3", 4), ("f4", 2), ("f5", 2)])
def test_a_screen_that_is_left_is_not_laid_out_again(counts: dict[str, Any], key: str, layouts: int) -> None:
    assert counts[key]["told"] == [counts[key]["screen"]]
    assert counts[key]["layouts"] <= layouts


@pytest.mark.parametrize("key", WINDOWS)
def test_what_is_laid_out_is_drawn_with_that_and_not_once_more(counts: dict[str, Any], key: str) -> None:
    assert counts[key]["drawn in a tick"] == 1


@pytest.mark.parametrize("key", WINDOWS)
def test_the_screen_below_a_window_is_dimmed_once_and_not_laid_out_when_that_has_closed(
    counts: dict[str, Any], key: str
) -> None:
    height, changed = 24, 4  # the strip may have another figure by then
    assert height <= counts[key]["dimmed"] <= height + changed
    assert counts[key]["layouts to close"] == 0


def test_a_picker_has_its_rows_before_it_is_laid_out_again(counts: dict[str, Any]) -> None:
    assert counts["ctrl+l"]["layouts"] <= 3  # for its size; with its rows; with the list's scrollbar


def test_the_lines_of_the_help_are_broken_once(counts: dict[str, Any]) -> None:
    assert counts["f1"]["lines looked at"] <= 30  # of about 150, six times


def test_the_palette_looks_for_servers_when_a_letter_is_written(counts: dict[str, Any]) -> None:
    assert counts["looked at"] == 0


def test_nothing_is_collected_before_the_first_picture_and_what_was_there_by_then_never(counts: dict[str, Any]) -> None:
    assert counts["collected before the first picture"] == 0
    assert {"StatusStrip", "PromptInput", "Keys"} <= set(counts["drawn"])
    assert counts["collecting"]
    assert counts["frozen"] > 10_000


@pytest.mark.parametrize("door", ["here(None)", pytest.param("there('127.0.0.1:9', None)", marks=pytest.mark.long)])
def test_the_collector_waits_while_the_screens_are_imported(door: str) -> None:
    program = (
        "import gc, sys\n"
        "from squish.commands import full_screen\n"
        "from squish.errors import InvalidInput\n"
        "collections = []\n"
        "gc.callbacks.append(lambda phase, info: collections.append(phase))\n"
        "try:\n"
        f"    full_screen.{door}\n"
        "except InvalidInput as error:\n"
        "    assert 'needs a terminal' in error.message\n"
        "    assert 'squish.tui.screens.chat' in sys.modules\n"
        "    print(len(collections), gc.isenabled())"
    )
    assert output_of("-c", program).split() == ["0", "False"]

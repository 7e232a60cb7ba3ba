"""ctrl+p: what is found, in which order, how its rows look, and what a mark does when more is found."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import OptionList

from squish.remote.nearby import NearbyServer
from squish.tui import fuzzy
from squish.tui.palette import PaletteEntry, found
from squish.tui.windows.command_palette import CommandPalette, ThemePicker
from tests.tui.scenes import ready, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def titles(written: str, *names: str) -> list[str]:
    entries = [PaletteEntry(name, "", "", lambda: None) for name in names]
    return [each.entry.title for each in found(written, entries)]


def rows(pilot: Pilot[None]) -> list[str]:
    return (
        [str(each.prompt) for each in pilot.app.screen.query_one(OptionList).options]
        if pilot.app.screen.query(OptionList)
        else []
    )


async def opened(pilot: Pilot[None]) -> OptionList:
    await ready(pilot)
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette) and len(rows(pilot)) > 30)
    return pilot.app.screen.query_one(OptionList)


@pytest.mark.parametrize(
    ("written", "name", "places"),
    [
        ("new", "New chat", (0, 1, 2)),
        ("chat", "Archive chat", (8, 9, 10, 11)),
        ("chat", "Chats: unchatty", (0, 1, 2, 3)),
        ("nc", "New chat", (0, 4)),
        ("pgd", "Page down", (0, 2, 5)),
        ("at", "a cat, another thing", (3, 4)),
        ("cth", "a cat, another thing", (2, 15, 16)),
        ("tahc", "chat", ()),
        ("x", "", ()),
        ("", "chat", ()),
        ("i", "İstanbul", ()),
    ],
)
def test_letters_are_found_together_and_where_words_begin(written: str, name: str, places: tuple[int, ...]) -> None:
    score, where = fuzzy.match(written, name)
    assert (where, score > 0) == (places, bool(places))


def test_the_best_fit_comes_first_and_what_fits_alike_as_it_is_listed() -> None:
    assert titles("chat", "catch a thing", "Archive chat", "Chat", "Chats") == [
        "Chat",
        "Chats",
        "Archive chat",
        "catch a thing",
    ]
    assert titles("chat", "Pin chat", "New chat", "Model") == ["Pin chat", "New chat"]


def test_letters_that_could_be_spread_in_a_million_ways_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, name, written = [0], "et" * 40, "te" * 10 + "ee" + "tt" * 4

    class Counted(str):
        def lower(self) -> Counted:
            return self

        def __iter__(self):  # type: ignore[no-untyped-def]
            for each in str(self):
                looked[0] += 1
                yield each

    _, places = fuzzy.match(written, Counted(name))
    assert "".join(name[at] for at in places) == written
    assert looked[0] <= (len(written) + 1) * len(name)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_an_entry_is_one_line_with_its_key_at_the_end(size: tuple[int, int]) -> None:
    async with ScriptedApp(*MODELS, model=SMOL.id).run_test(size=size) as pilot:
        options = await opened(pilot)
        width = options.scrollable_content_region.width - 2
        assert all(Content(row).cell_length == width and "\n" not in row for row in rows(pilot))
        assert re.fullmatch(r"Choose model +Choose the model .*ctrl\+l", rows(pilot)[3])
        assert options.virtual_size.height == len(rows(pilot))
        assert options.size.height >= size[1] // 2


async def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        palette = app.screen
        assert isinstance(palette, CommandPalette)
        palette._listed = [PaletteEntry("[red]a[/] [/1]", "[b]c[/b] [/2]", "", lambda: None)]
        await write(pilot, "a")
        await until(pilot, lambda: "[red]a[/] [/1]" in screen_text(pilot) and "[b]c[/b] [/2]" in screen_text(pilot))


async def test_what_matches_nothing_is_said_and_enter_does_nothing() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await write(pilot, "zzqzz")
        await until(pilot, lambda: "matches “zzqzz”." in screen_text(pilot))
        await pilot.press("enter", "down", "pagedown", "ctrl+end")
        assert isinstance(app.screen, CommandPalette)
        await pilot.press(*["backspace"] * 5)
        await until(pilot, lambda: len(rows(pilot)) > 30)


async def test_the_mark_goes_by_pages_and_to_the_ends_and_a_click_takes_a_row() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24)) as pilot:
        options = await opened(pilot)
        await pilot.press("pagedown")
        assert (options.highlighted or 0) >= options.size.height - 1
        await pilot.press("ctrl+end")
        assert options.highlighted == len(rows(pilot)) - 1
        await pilot.press("pageup", "ctrl+home", "up")
        assert options.highlighted == len(rows(pilot)) - 1
        await write(pilot, "hub")
        await until(pilot, lambda: rows(pilot)[0].startswith("Hub"))
        await pilot.click(options, offset=(3, 0))
        await until(pilot, lambda: app.current_mode == "hub")


async def test_servers_that_are_found_late_move_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asyncio.Event()

    async def late(home: Path, key: str) -> list[NearbyServer]:
        await answers.wait()
        return [NearbyServer(f"http://127.0.0.1:{8080 + number}", "a") for number in range(9)]

    monkeypatch.setattr("squish.remote.nearby.nearby", late)
    async with ScriptedApp(*MODELS, model=SMOL.id).run_test(size=(80, 24)) as pilot:
        options = await opened(pilot)
        await write(pilot, "c")
        await until(pilot, lambda: bool(rows(pilot)) and not any(row.startswith("Export") for row in rows(pilot)))
        await pilot.press(*["down"] * 20)
        at = options.highlighted or 0
        marked, line, many = rows(pilot)[at], at - options.scroll_offset.y, len(rows(pilot))
        assert options.scroll_offset.y > 0
        answers.set()
        await until(pilot, lambda: len(rows(pilot)) == many + 9)
        at = options.highlighted or 0
        assert at > 20 and (rows(pilot)[at], at - options.scroll_offset.y) == (marked, line)


async def test_among_the_themes_the_one_in_use_is_marked() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await app.run_action("app.change_theme")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker) and bool(rows(pilot)))
        options = app.screen.query_one(OptionList)
        assert rows(pilot)[options.highlighted or 0].strip() == app.theme
        await write(pilot, "nord")
        await until(pilot, lambda: rows(pilot)[0].strip() == "nord")
        await pilot.press("enter")
        await until(pilot, lambda: app.theme == "nord" and not isinstance(app.screen, ThemePicker))

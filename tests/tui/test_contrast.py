"""Whether what is written can be read, in every theme: on what the style sheets say, and on screens as they are drawn.

`ansi` themes have the terminal's own colors, which only the terminal knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual import constants
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES

from squish.tui import theme
from squish.tui.contrast import Light, contrast, ground_of, light_in
from tests.tui.at_rest import drawn_lines
from tests.tui.colors import unreadable
from tests.tui.scenes import _with_models, loaded, no_package, settled
from tests.tui.scripted import ScriptedApp
from tests.tui.test_snapshots import ALL

THEMES = (theme.NAME, *sorted(name for name in BUILTIN_THEMES if "ansi" not in name))
TERMINALS = {"all colors": ("truecolor", False), "256 colors": ("256", False), "NO_COLOR": ("truecolor", True)}
DENSE = (
    *("failed", "chats", "params", "downloads", "searching", "confirm", "find", "tool-question", "template", "palette"),
)
"""Scenes that have, together, all texts on all their grounds. Each is drawn in some of the themes."""
SOME = 9


def given(name: str) -> dict[str, str]:
    """What a theme's makers chose, and ours of it unchanged."""
    own = theme.squish() if name == theme.NAME else BUILTIN_THEMES[name]
    return theme.with_ours(own.to_color_system().generate() | own.variables)


def faults_of(variables: dict[str, str], light: Light) -> list[str]:
    return [
        f"{pair.text} on {layers}: {found:.2f}"
        for pair in theme.PAIRS
        for layers, least in pair.on()
        if (found := contrast(variables[pair.text], ground_of(layers, variables), light)) < least
    ]


@pytest.mark.parametrize("terminal", TERMINALS)
def test_every_text_that_the_style_sheets_name_can_be_read_in_every_theme(terminal: str) -> None:
    light = light_in(*TERMINALS[terminal])
    before = {name: faults_of(given(name), light) for name in THEMES}
    assert sum(map(len, before.values())) > 400, "there is something to do"
    after = {name: faults_of(theme.readable(given(name), light), light) for name in THEMES}
    assert {name: found for name, found in after.items() if found} == {}


def test_a_theme_that_can_be_read_is_left_as_it_was_drawn() -> None:
    light = light_in("truecolor", False)
    untouched = {name for name in THEMES if not faults_of(given(name), light)}
    assert {theme.NAME, "rose-pine"} <= untouched
    for name in untouched:
        changed = {key for key, value in theme.readable(given(name), light).items() if value != given(name)[key]}
        assert changed <= {"screen-selection-foreground"}, name


@pytest.mark.parametrize("name", sorted(name for name in BUILTIN_THEMES if "ansi" in name))
def test_the_colors_of_the_terminal_are_left_to_it(name: str) -> None:
    own, app = BUILTIN_THEMES[name], ScriptedApp()
    app.theme = name
    used = app.get_css_variables()
    assert (own.to_color_system().generate() | own.variables).items() <= used.items()


@pytest.mark.parametrize(("scene", "row"), [("chats", "#code"), ("hub", "qwen3-embedding:4b")])
async def test_the_marked_row_has_no_color_of_the_terminal_for_its_ground(
    scene: str, row: str, as_in: Callable[[str], Light]
) -> None:
    """Whatever the sixteen are: what is written in one of them cannot be read on each of the others."""
    as_in("all colors")
    make, play = ALL[scene]
    app = make()
    async with app.run_test(size=(100, 30)) as pilot:
        app.theme = "ansi-light"
        await play(pilot)
        await settled(pilot)
        marked = [piece for line in drawn_lines(app) for piece in line if row in piece.text]
        style = next(piece.style for piece in marked if piece.style and (piece.style.reverse or piece.style.underline))
        assert style.bgcolor is None or style.bgcolor.is_default


async def faults_on(scene: str, themes: tuple[str, ...], light: Light) -> list[str]:
    make, play = ALL[scene]
    app, found = make(), list[str]()
    async with app.run_test(size=(120, 36)) as pilot:
        await play(pilot)
        for name in themes:
            app.theme = name
            await settled(pilot)
            found += [f"{name}: {each}" for each in unreadable(pilot, light)]
    return found


@pytest.fixture
def as_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Light]:
    def terminal(name: str) -> Light:
        system, no_color = TERMINALS[name]
        monkeypatch.setattr(constants, "COLOR_SYSTEM", system)
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        return light_in(system, no_color)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("squish.hub.search.packaged_file", no_package)
    return terminal


@pytest.mark.parametrize(
    ("scene", "at"),
    [
        pytest.param(scene, at, marks=() if scene in DENSE else pytest.mark.long)
        for at, scene in enumerate((*DENSE, *sorted(set(ALL) - set(DENSE))))
    ],
)
async def test_what_is_drawn_can_be_read(scene: str, at: int, as_in: Callable[[str], Light]) -> None:
    assert await faults_on(scene, THEMES[at % SOME :: SOME], as_in("all colors")) == []


@pytest.mark.long
@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("scene", DENSE)
async def test_what_is_drawn_can_be_read_in_every_theme_and_terminal(
    scene: str, terminal: str, as_in: Callable[[str], Light]
) -> None:
    assert await faults_on(scene, THEMES, as_in(terminal)) == []


async def test_a_row_takes_the_colors_of_a_theme_that_is_chosen(as_in: Callable[[str], Light]) -> None:
    """To Rich, a text in another color is the same text."""
    light, (make, play) = as_in("all colors"), ALL["server"]
    app = make()
    async with app.run_test(size=(120, 36)) as pilot:
        await play(pilot)
        app.theme = "textual-light"
        await settled(pilot)
        assert unreadable(pilot, light) == []


async def test_a_theme_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out = list[str]()
    readable = theme.readable

    def counted(variables: dict[str, str], light: Light) -> dict[str, str]:
        worked_out.append(variables["background"])
        return readable(variables, light)

    monkeypatch.setattr(theme, "readable", counted)
    app = _with_models()
    async with app.run_test() as pilot:
        await loaded(pilot)
        assert len(worked_out) <= 2  # Textual's own, before ours is there
        await _chosen(pilot, "nord", "dracula", "nord")
        assert len(worked_out) <= 4


async def _chosen(pilot: Pilot[None], *names: str) -> None:
    for name in names:
        pilot.app.theme = name
        await settled(pilot)

"""Nothing that others wrote controls the terminal, whoever stored it: all that the app writes to its driver is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.color import Color
from textual.driver import Driver
from textual.drivers.headless_driver import HeadlessDriver

from squish.chats.chats import Chats
from squish.chats.messages import Attachment, Figures
from squish.tui.terminal.guard import CleanFilter
from tests.tui.scenes import note, ready, screen_text, shown, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

CLIPBOARD = "\x1b]52;c;cHduZWQ=\x07"
TITLE = "\x1b]0;pwned\x1b\\"
CLEAR = "\x9b2J"
ATTACK = f"{CLIPBOARD}{TITLE}{CLEAR}\u202e"

# What Textual itself sends: colors, cursor, modes, the shape of the mouse pointer.
_BY_TEXTUAL = re.compile(
    r"\x1b\[[0-9;:]*m|\x1b\[[0-9]+;[0-9]+H|\x1b\[[?<>=]?[0-9;$]*[a-zA-Z]|\x1b[78]|\x1b\]22;[a-z-]*\x07|\r\n|\n|\x07"
)


class Recorder(HeadlessDriver):
    """A terminal that keeps what it is sent."""

    sent: list[str]

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        self.sent.append(data)


class RecordedApp(ScriptedApp):
    def _build_driver(self, headless: bool, inline: bool, mouse: bool, size: tuple[int, int] | None) -> Driver:
        driver = Recorder(self, debug=False, mouse=mouse, size=size)
        self.sent = driver.sent = []
        return driver


def poisoned(path: Path) -> None:
    """A chat in which every place that is shown holds escape sequences."""
    chats = Chats(path)
    answer = "\n\n".join(
        f"{before}{ATTACK}SEEN{after}"
        for before, after in (
            ("# ", ""), ("- ", ""), ("> ", ""), ("", ""), ("`", "`"), ("**", "**"), ("[", "](http://a.example/)"),
            ("[link](http://a.example/", ")"), ("```py\n", "\n```"), ("``` ", "\ncode\n```"),
            ("| a |\n|---|\n| ", " |"),
        )
    )  # fmt: skip
    chat = chats.create(SMOL.id, title=f"title {ATTACK}")
    _, saved = chats.ask(chat, None, f"question {ATTACK}", SMOL.id, (Attachment(f"file {ATTACK}.txt", ATTACK),))
    chats.finish(saved, answer, f"thoughts {ATTACK}", "failed", Figures(error=f"error {ATTACK}"))
    chats._write("UPDATE chats SET title = ?, draft = ?", (f"title {ATTACK}", f"draft {ATTACK}"))
    chats.keep_preset(f"preset {ATTACK}", chats.get(chat).settings)
    chats.close()


@pytest.mark.parametrize("size", [(60, 20), pytest.param((120, 50), marks=pytest.mark.long)])
async def test_a_saved_chat_cannot_control_the_terminal(size: tuple[int, int], tmp_path: Path) -> None:
    poisoned(tmp_path / "chats.db")
    app = RecordedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        await until(pilot, lambda: "error" in note(pilot) and "draft" in screen_text(pilot))
        await pilot.press("alt+up", "t", "ctrl+o")
        await until(pilot, lambda: "temp" in screen_text(pilot))
        await pilot.press("escape", "ctrl+s", *"SEEN")
        await until(pilot, lambda: "title" in screen_text(pilot))
        picture = app.export_screenshot()
    written = _BY_TEXTUAL.sub("", "".join(app.sent))
    assert "SEEN" in written
    assert not re.search(r"\x1b\]|\x9b|\x9d|pwned|cHduZWQ|\u202e", written)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)
    assert "pwned" not in picture and "cHduZWQ" not in picture


async def test_a_stream_of_a_model_cannot_control_the_terminal() -> None:
    app = RecordedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press(*"hi", "enter")
        await until(pilot, lambda: bool(app.engine.generations))
        for character in f"- a {ATTACK} SEEN\n":
            app.engine.last.say(character)
        await until(pilot, lambda: "SEEN" in shown(pilot))
    written = _BY_TEXTUAL.sub("", "".join(app.sent))
    assert "SEEN" in written and not re.search(r"\x1b\]|\x9b|pwned|cHduZWQ|\u202e", written)


def test_the_last_border_takes_out_what_a_widget_let_through() -> None:
    segments = [Segment("fine ü 漢"), Segment(f"bad{ATTACK}\x07")]
    assert [each.text for each in CleanFilter().apply(segments, Color(0, 0, 0))] == ["fine ü 漢", "bad"]

"""Writing a chat to a file: what is in it, what is said while it is written, and where it cannot be."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot

from squish import files
from squish.tui.leaving import cut_short
from squish.tui.windows.confirm import ConfirmScreen
from tests.tui.scenes import ask, note, prompt, screen_text, shown, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def new_app() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


def said(app: ScriptedApp) -> str:
    """All that stands in the corner of the screen."""
    return " | ".join(each.message for each in app._notifications)


async def say(pilot: Pilot[None], app: ScriptedApp, question: str, answer: str) -> None:
    await ask(pilot, question)
    app.engine.last.say(answer)
    app.engine.last.finish()
    await until(pilot, lambda: "TTFT" in note(pilot) and shown(pilot) == answer)


@pytest.mark.parametrize("form", ["md", "json", "jsonl"])
async def test_export(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"chat.{form}"
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, app, "what is it", "a **tower**")
        prompt(pilot).put(f"/export {path}")
        await pilot.press("enter")
        await until(pilot, lambda: path.exists() and "Written" in screen_text(pilot))
        text = path.read_text()
        prompt(pilot).put(f"/export {path}")
        await pilot.press("enter")
        await until(pilot, lambda: "already exists; it was not touched" in said(app))
    if form == "md":
        assert "## You\n\nwhat is it\n\n## smollm2:135m\n\na **tower**\n" in text
    else:
        messages = json.loads(text)["messages"]
        assert [(each["role"], each["content"]) for each in messages] == [
            ("user", "what is it"),
            ("assistant", "a **tower**"),
        ]


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [
        (errno.ENOSPC, "a.md", ("The disk of", "is full; nothing was written. Free some space.", "/export FILE")),
        (
            errno.EROFS,
            "a.md",
            (
                "Nothing can be written in",
                "Read-only file system. Choose another place",
            ),
        ),
        (errno.EACCES, "a.md", ("Nothing can be written in", "Permission denied. Choose another place")),
        (errno.EIO, "a.md", ("a.md cannot be written: Input/output error. Choose another place",)),
        (0, "none/a.md", ("The folder", "none does not exist. Choose another place: /export FILE.")),
        (0, "a.txt", ("a.txt does not say which format to write. End it in .md, .json or .jsonl.",)),
    ],
)
async def test_what_cannot_be_written_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str, words: tuple[str, ...]
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, app, "what is it", "a tower")
        if number:
            monkeypatch.setattr(files, "flush", refuse)
        prompt(pilot).put(f"/export {tmp_path / name}")
        await pilot.press("enter")
        await until(pilot, lambda: all(each in said(app) for each in words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stays", [True, False])
async def test_a_disk_that_is_slow_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """The wait is shown with its seconds, quitting asks first, and of an export that is cut short no file is left."""
    flushing, go_on, flush = threading.Event(), threading.Event(), files.flush

    def slow(descriptor: int) -> None:
        flushing.set()
        go_on.wait()
        flush(descriptor)

    app = new_app()
    try:
        async with app.run_test(size=(120, 36), notifications=True) as pilot:
            await say(pilot, app, "what is it", "a tower")
            monkeypatch.setattr(files, "flush", slow)
            prompt(pilot).put(f"/export {tmp_path / 'a.md'}")
            await pilot.press("enter")
            await until(pilot, flushing.is_set)
            app.seconds.now += 7
            await until(pilot, lambda: "exporting 7 s a.md" in screen_text(pilot))
            await say(pilot, app, "and what else", "a light")  # meanwhile
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen) and "a.md: not" in screen_text(pilot))
            await pilot.press("n" if stays else "y")
            if stays:
                go_on.set()
                await until(pilot, lambda: "Written to" in said(app) and "exporting" not in screen_text(pilot))
    finally:
        go_on.set()
    while any(each.name.startswith(".") for each in tmp_path.iterdir()):
        await asyncio.sleep(0)
    assert [each.name for each in tmp_path.iterdir()] == (["a.md"] if stays else [])


def test_exports_that_are_cut_short_are_named() -> None:
    found = cut_short(0, [], 0, str, ["a.md", "b.json"])
    assert found and found.title == "2 chats are being exported"
    assert found.text == "a.md, b.json: not complete. No file is left of it."

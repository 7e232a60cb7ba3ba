"""Documents, folders and pages of the web that go along with a message, as a user meets them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from httpx2 import URL

from squish.attachments import documents, web
from squish.attachments.web import PageAddress
from squish.config.settings import Settings
from squish.tui.chat import outgoing
from squish.tui.short_names import tail
from squish.tui.widgets.chat.chat_view import ChatView
from squish.tui.windows.choice import ChoiceScreen
from tests.attachments import made
from tests.tui.scenes import answer, prompt, ready, screen_text, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp, asked_text


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_a_document_goes_along_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(made.pdf("Sales went up"))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put("what is in @photo.png?")
        await pilot.press("enter")
        await until(pilot, lambda: "Not sent. photo.png: an image" in screen_text(pilot))
        assert prompt(pilot).text == "what is in @photo.png?"
        prompt(pilot).put("sum up @report.pdf")
        await until(pilot, lambda: "⎘ report.pdf" in screen_text(pilot) and "its text" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert asked_text(app) == "sum up @report.pdf\n\nreport.pdf:\n```\n[page 1]\nSales went up\n```"


async def test_a_folder_is_shown_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("print(1)\n")
    (tmp_path / "src" / "b.bin").write_bytes(b"\0")
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.engine.counts = True
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put("explain @src")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceScreen))
        shown = screen_text(pilot)
        for each in ("1 file · 9 B", "10 tokens", "src/a.py", "1 not text"):
            assert each in shown
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "explain @src")
        assert not app.engine.generations

        (tmp_path / "src" / "long.txt").write_text("word " * 20_000)
        await pilot.press("enter")
        await until(pilot, lambda: "Too long to send." in screen_text(pilot))
        assert "Send 2 files" not in screen_text(pilot), "what cannot be sent is not offered"
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "explain @src")
        (tmp_path / "src" / "long.txt").unlink()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceScreen))
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert asked_text(app) == "explain @src\n\nsrc/a.py:\n```\nprint(1)\n```"


async def test_the_seconds_of_reading_stand_still_while_the_user_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("one\n")
    monkeypatch.chdir(tmp_path)
    now = [0.0]
    monkeypatch.setattr(outgoing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("explain @notes")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceScreen))
        reading = app.screen_stack[0].query_one(ChatView).dialogue.outgoing
        before, now[0] = reading.waited, 60.0
        assert reading.waited == before
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "explain @notes")
        assert reading.waited == before


async def test_a_page_is_fetched_only_after_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    async def look_up(address: str) -> PageAddress:
        return PageAddress(URL(address), ("10.0.0.1",) if "intern" in address else ("8.8.8.8",), "intern" in address)

    async def fetch(address: PageAddress, *, may_be_private: bool) -> str:
        fetched.append(str(address.url))
        return f"the page of {address.host}"

    monkeypatch.setattr(web, "look_up", look_up)
    monkeypatch.setattr(web, "fetch", fetch)
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=Settings(home=tmp_path, cache_dir=tmp_path))
    async with app.run_test() as pilot:
        await ready(pilot)
        for keys, count in ((("down", "enter"), 1), ((), 2)):  # for this chat; then nobody is asked
            prompt(pilot).put("read @https://a.example/x.")
            await pilot.press("enter")
            if keys:
                await until(pilot, lambda: isinstance(app.screen, ChoiceScreen))
                assert fetched == []
                await pilot.press(*keys)
            await until(pilot, lambda count=count: len(app.engine.generations) == count)  # type: ignore[misc]
            assert asked_text(app).endswith("https://a.example/x:\n```\nthe page of a.example\n```")
            await answer(pilot, "ok")
        prompt(pilot).put("read @http://intern/")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceScreen))
        assert "private address" in screen_text(pilot) and "in this chat" not in screen_text(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(app.engine.generations) == 3)
        assert asked_text(app) == "read @http://intern/"
        assert fetched == ["https://a.example/x"] * 2


async def test_esc_ends_the_reading_and_gives_the_message_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.pdf").write_bytes(made.pdf("x"))

    async def never(*_: object) -> str:
        return str(await asyncio.get_running_loop().create_future())

    monkeypatch.setattr(documents, "text_of", never)
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("sum up @slow.pdf")
        await pilot.press("enter")
        await until(pilot, lambda: "esc cancels" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: prompt(pilot).text == "sum up @slow.pdf")
        assert "esc cancels" not in screen_text(pilot) and not app.engine.generations


async def test_a_long_path_leaves_room_for_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a" / "very" / "long" / "way" / "down" / "page.html"
    file.parent.mkdir(parents=True)
    file.write_text("<p>text</p>")
    free, text_of = asyncio.Event(), documents.text_of

    async def slowly(*args: Any) -> str:
        await free.wait()
        return await text_of(*args)

    monkeypatch.setattr(documents, "text_of", slowly)
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        prompt(pilot).put(f"sum up @{file}")
        await until(pilot, lambda: "/page.html  11 B · its text (@! sends its source)" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "/page.html … 0 s · esc cancels" in screen_text(pilot))
        free.set()
        await until(pilot, lambda: bool(app.engine.generations))


@pytest.mark.parametrize(
    ("name", "cells", "shown"),
    [("src/a.py", 8, "src/a.py"), ("src/a.py", 5, "…a.py"), ("日本語/b", 6, "…語/b"), ("a\x1b[31mb", 9, "ab")],
)
def test_of_a_name_that_is_too_long_the_end_is_shown(name: str, cells: int, shown: str) -> None:
    assert tail(name, cells) == shown


async def test_in_a_folder_that_was_deleted_nothing_is_found_and_the_chat_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    (folder := tmp_path / "gone").mkdir()
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        monkeypatch.chdir(folder)
        folder.rmdir()
        prompt(pilot).put("sum up @report.pdf")
        await until(pilot, lambda: "not found" in screen_text(pilot))
        prompt(pilot).put("hello")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert asked_text(app) == "hello"

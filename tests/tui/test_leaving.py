"""Leaving the app: what goes on is mentioned, whatever was written is kept, and the terminal is as it was before."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.errors import RemoteError
from squish.generation import TITLE
from squish.remote.nearby import NearbyServer
from squish.sessions.activity import RequestStatus
from squish.tui import leaving, preferences, program
from squish.tui.app import SquishApp
from squish.tui.downloads import Transfer
from squish.tui.leaving import cut_short
from squish.tui.messages import UseModel
from squish.tui.windows.confirm import ConfirmScreen
from tests.tui.scenes import answer, ask, prompt, ready, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def request(client: str) -> RequestStatus:
    return RequestStatus(1, client, SMOL.id, 1, "writing", 64, 9, 0.3, 48.0, 4.0, None)


def new_app(chats: Path | None = None) -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id, chats=chats)


async def test_leaving_while_an_answer_is_written_asks_and_keeps_it(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("Half an")
        await until(pilot, lambda: shown(pilot) == "Half an")
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "what is written so far is kept" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        assert app.is_running and not app.engine.last.cancelled
        prompt(pilot).put("and then?")
        await pilot.press("enter")
        await write(pilot, "draft")
        app.engine.last.say(" answer")
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("ctrl+q")  # the second time, whatever goes on
    assert app.engine.last.left and app.return_code == 0
    chats = Chats(tmp_path / "chats.db")
    (chat,) = chats.recent()
    answer = chats.tree(chat.id).branch[-1]
    assert (answer.text, answer.state) == ("Half an answer", "stopped")
    assert chats.get(chat.id).draft == "and then?\n\ndraft", "what was to be asked next is not lost"
    chats.close()


@pytest.mark.parametrize("steps", [0, 2, 20])
async def test_leaving_while_the_chat_of_a_first_download_opens_is_no_fault(steps: int) -> None:
    app = ScriptedApp()
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.current_mode == "hub")
        app.post_message(UseModel("gone"))  # what says that it cannot be used would stand in the chat
        for _ in range(steps):  # of the loop
            await asyncio.sleep(0)
        app.exit()
    assert (app.return_code, app.fault) == (0, "")


async def test_screens_that_are_busy_keep_nobody_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "PATIENCE", 0.05)
    settings = Settings(home=tmp_path, cache_dir=tmp_path, offline=True)
    app, begun, broken = ScriptedApp(*MODELS, model=SMOL.id, settings=settings), list[str](), list[str]()

    async def busy(mode: str) -> None:
        begun.append(mode)
        try:
            await asyncio.Event().wait()
        finally:
            broken.append(mode)

    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("a long thought")
        for mode in ("hub", "library", "server", "chat"):
            await app.action_open(mode)
            app.screen.call_later(busy, mode)
        await until(pilot, lambda: len(begun) == 4)
        app.exit()
    assert sorted(broken) == sorted(begun)
    assert preferences.unsent(settings) == "a long thought"


async def test_what_runs_in_the_background_ends_at_the_same_time(tmp_path: Path) -> None:
    app, together = new_app(tmp_path / "chats.db"), asyncio.Barrier(3)

    async def running() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await together.wait()

    async with app.run_test() as pilot:
        await ready(pilot)
        for name in ("one", "two"):
            transfer = Transfer(name, name, "running", task=asyncio.create_task(running()))
            app.downloads._transfers.append(transfer)
        await asyncio.sleep(0)
        app.server.close = together.wait  # type: ignore[method-assign,assignment]
    assert not together.n_waiting and all(not each.task for each in app.downloads.transfers)


async def test_nothing_is_asked_where_nothing_goes_on() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "done")
        app.engine.requests = [request(TITLE)]  # a title, which nobody waits for
        await pilot.press("ctrl+q")
    assert app.return_code == 0


async def test_other_programs_are_mentioned_and_the_question_stands_above_another_one() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        app.engine.requests = [request("/v1/chat/completions 127.0.0.1")]
        app.push_screen(ConfirmScreen("Delete model", "Delete it?", "Delete"))
        await until(pilot, lambda: "Delete it?" in screen_text(pilot))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "Another program is being answered" in screen_text(pilot))
        await pilot.press("f1", "ctrl+q")  # the same question, which is to be seen again
        await until(pilot, lambda: len(app.screen_stack) == 3 and app.screen is app._leaving)
        await pilot.press("y")
    assert app.return_code == 0


def test_several_kinds_of_work_are_one_question() -> None:
    transfer = Transfer("qwen3:8b", "qwen3:8b", "running", "download", 1, 2)
    found = cut_short(2, [transfer], 3, lambda id: id)
    assert found is not None and found.title == "Work in progress"
    assert [line.partition(".")[0] for line in found.text.splitlines()] == [
        "2 answers are being written",
        "A download is running",
        "3 requests are being answered",
    ]
    assert cut_short(0, [], 0, lambda id: id) is None


async def test_a_declined_connection_is_not_made_at_the_next_leave() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.connect(NearbyServer("http://127.0.0.1:1", "other"))
        await until(pilot, lambda: "Connect (y)" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        await pilot.press("ctrl+q", "y")
    assert app.connect_to is None


async def test_the_draft_of_a_chat_without_a_message_is_there_the_next_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path, offline=True)
    for written, found in (("a long thought", ""), ("", "a long thought"), ("", "")):
        app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
        async with app.run_test() as pilot:
            await ready(pilot)
            assert prompt(pilot).text == found
            prompt(pilot).put(written)
            await pilot.press("ctrl+q")


async def test_a_server_that_dies_when_it_is_chosen_leads_back_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    async def run(app: SquishApp, settings: Settings) -> SquishApp:
        async with app.run_test(notifications=True) as pilot:
            await until(pilot, lambda: bool(app.screen.query("StatusStrip")))
            said.append(" ".join(each.message for each in app._notifications))
            if len(said) == 1:
                app.connect(NearbyServer("http://127.0.0.1:1", "dying"))
            else:
                await pilot.press("ctrl+q")
        return app

    monkeypatch.setattr(program, "_shown", run)
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models", offline=True)
    assert await program._run(settings, None, None, None) == (0, "")
    assert said[0] == "" and "These are the models of this machine" in said[1] and len(said) == 2
    with pytest.raises(RemoteError):  # the one on the command line is the user's choice alone
        await program._run(settings, None, None, ("http://127.0.0.1:1", ""))


_WRITING = """
import asyncio, sys
from pathlib import Path
from squish.tui import leaving, preferences, program
from squish.tui.terminal.guard import guarded_stderr, own_driver_parts
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

home = Path(sys.argv[1])

async def main():
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=home / "chats.db")

    async def write():
        while not app.is_running or not app.screen.query("#prompt"):
            await asyncio.sleep(0.01)
        app.screen.query_one("#prompt").put("one")
        app.simulate_key("enter")
        while not app.engine.generations:
            await asyncio.sleep(0.01)
        app.engine.last.say("Half an")
        while not (turns := app.screen._shown.turns) or not turns[0].answer.text:
            await asyncio.sleep(0.01)
        app.engine.last.say(" answer")
        while turns[0].answer.text != "Half an answer":
            await asyncio.sleep(0.001)
        if leaving.PATIENCE < 1:
            app.call_later(busy)
        else:
            (home / "written").touch()

    writing = asyncio.create_task(write())
    shown = await program._shown(app, app.runtime.settings)
    return shown.return_code

with guarded_stderr(home / "log"), own_driver_parts():
    code = asyncio.run(main())
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("number", "patience"),
    [(signal.SIGTERM, 600), (signal.SIGTERM, 0.05), pytest.param(signal.SIGHUP, 600, marks=pytest.mark.long)],
)
def test_a_signal_ends_it_in_good_order(number: signal.Signals, patience: float, tmp_path: Path) -> None:
    """SIGHUP comes when the terminal is closed: then nothing can be drawn any more.

    With little patience the app is busy with something that does not end.
    """
    terminal, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITING, str(tmp_path), str(patience)],
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    seen = b""
    while not (tmp_path / "written").exists():
        assert child.poll() is None, seen.decode(errors="replace")
        if select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 65536)
    if number == signal.SIGHUP:
        os.close(terminal)
    child.send_signal(number)
    if number == signal.SIGTERM:
        while child.poll() is None or select.select([terminal], [], [], 0)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # all of it has been read
                break
        os.close(terminal)
        for off, on in (
            (b"\x1b[?1049l", b"\x1b[?1049h"),
            (b"\x1b[?25h", b"\x1b[?25l"),
            (b"\x1b[?1003l", b"\x1b[?1003h"),
        ):
            assert seen.rindex(off) > seen.rindex(on)
    # The driver may see before the signal comes that its terminal has gone.
    assert child.wait() in ((143,) if number == signal.SIGTERM else (129, 1))
    chats = Chats(tmp_path / "chats.db")
    (chat,) = chats.recent()
    answer = chats.tree(chat.id).branch[-1]
    assert (answer.text, answer.state) == ("Half an answer", "stopped")
    chats.close()


async def test_a_draft_outlives_a_program_that_is_killed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path)
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("half a thought")
        await until(pilot, lambda: preferences.unsent(settings) == "half a thought")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations) and not preferences.unsent(settings))
        prompt(pilot).put("and another")
        await until(pilot, lambda: [each.draft for each in app.chats.recent(1)] == ["and another"])
        prompt(pilot).put("")
        await until(pilot, lambda: [each.draft for each in app.chats.recent(1)] == [""])

"""The TUI's parts that need no screen."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from textual.content import Content

from squish.errors import InvalidInput
from squish.hub.search import Found
from squish.pull.events import Progress
from squish.system import clipboard
from squish.tui import actions, advice
from squish.tui.downloads import Transfer
from squish.tui.memory_readings import MemoryReadings
from squish.tui.screens.elsewhere import _how
from squish.tui.terminal.guard import guarded_stderr
from squish.tui.widgets.chat.prompt import History
from squish.tui.widgets.markdown.pacing import COST_FACTOR, MIN_INTERVAL, FlushPacer
from squish.tui.widgets.model_card import fit_lines
from squish.tui.widgets.transfer_list import row as transfer_row
from tests.tui.scripted import SMOL, FrozenMachine, ScriptedApp

TUI = Path(actions.__file__).parent


def test_a_cheap_flush_may_follow_after_the_shortest_interval() -> None:
    pacer = FlushPacer()
    assert pacer.delay(now=10.0) == 0
    pacer.flushed(start=10.0, end=10.001)
    assert pacer.delay(now=10.0) == pytest.approx(MIN_INTERVAL)
    assert pacer.delay(now=11.0) == 0


def test_a_dear_flush_makes_the_next_one_wait() -> None:
    pacer = FlushPacer()
    pacer.flushed(start=10.0, end=10.1)
    assert pacer.delay(now=10.1) == pytest.approx(COST_FACTOR * 0.1 - 0.1)


def test_history_gives_the_draft_back() -> None:
    history = History()
    assert history.older("draft") is None
    history.add("one")
    history.add("two")
    history.add("two")
    assert [history.older("draft"), history.older("two"), history.older("one")] == ["two", "one", None]
    assert [history.newer(), history.newer(), history.newer()] == ["two", "draft", None]


@pytest.mark.parametrize(
    ("text", "name", "argument", "id"),
    [
        ("/new", "new", "", "chat.new"),
        ("/system  Be brief\nand kind", "system", "Be brief\nand kind", "chat.system"),
        ("/nonsense", "nonsense", "", None),
        ("/", "", "", None),
    ],
)
def test_slash_commands_are_taken_apart(text: str, name: str, argument: str, id: str | None) -> None:
    command = actions.parse_slash(text)
    assert command is not None
    assert (command.name, command.argument, command.action.id if command.action else None) == (name, argument, id)


@pytest.mark.parametrize("text", ["hello", "/etc/hosts", " /new", "/New"])
def test_messages_that_only_look_like_commands(text: str) -> None:
    assert actions.parse_slash(text) is None


def test_native_libraries_do_not_reach_the_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, log = sys.__stderr__, tmp_path / "logs" / "tui.log"
    with guarded_stderr(log):
        os.write(2, b"noise from a library\n")
        assert sys.__stderr__ is not None
        sys.__stderr__.write("the screen\n")
    os.write(2, b"after\n")
    assert log.read_text() == "noise from a library\n"
    assert capfd.readouterr().err == "the screen\nafter\n"
    assert sys.__stderr__ is before


def test_a_log_that_cannot_be_written_is_no_obstacle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with guarded_stderr(tmp_path / "file" / "tui.log"):
        os.write(2, b"noise")
    assert capfd.readouterr().err == ""


def test_the_clipboard_program_fits_where_the_user_sits(tmp_path: Path) -> None:
    program = tmp_path / "xclip"
    program.write_text('#!/bin/sh\ncat > "$0.out"\n')
    program.chmod(0o755)
    here = {"PATH": str(tmp_path), "DISPLAY": ":0"}
    assert clipboard.program(here, "copy") == (str(program), "-selection", "clipboard")
    assert clipboard.program(here | {"SSH_TTY": "/dev/pts/0"}, "copy") is None
    assert clipboard.program({"PATH": str(tmp_path)}, "copy") is None, "no display to put it on"


async def test_nobody_waits_for_a_clipboard_program_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for one that it has left behind."""
    pid = tmp_path / "pid"
    command = ("sh", "-c", f"sleep 1000 & echo $! $$ > {pid}; wait")
    reading = asyncio.create_task(clipboard._run(command, None))
    while not (pid.exists() and len(pid.read_text().split()) == 2):
        await asyncio.sleep(0.005)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    behind, own = map(int, pid.read_text().split())
    assert not psutil.pid_exists(own)
    monkeypatch.setattr(clipboard, "_TIMEOUT", 0.0)
    assert await clipboard._run(("sleep", "1000"), None) is None
    os.kill(behind, signal.SIGKILL)


async def test_text_reaches_the_clipboard_program(tmp_path: Path) -> None:
    program = tmp_path / "pbcopy"
    program.write_text('#!/bin/sh\n/bin/cat > "$0.out"\n')
    program.chmod(0o755)
    assert await clipboard.fill((str(program),), "naïve")
    assert (tmp_path / "pbcopy.out").read_text() == "naïve"
    assert not await clipboard.fill((str(tmp_path / "missing"),), "text")


def test_readings_of_this_machine() -> None:
    machine = MemoryReadings()
    memory = machine.memory()
    assert memory is not None
    assert 0 < memory.used < memory.total
    assert (machine.process_memory(os.getpid()) or 0) > 1_000_000
    assert machine.process_memory(2**31 - 1) is None


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (
            "Run: squish pull qwen3:8b",
            "F3 downloads models, ctrl+l chooses another; or run in another terminal: squish pull qwen3:8b",
        ),
        ("Pull the model again with --force.", "Delete it (F4 delete) and download it again (F3)."),
        ("Leave --bits out.", ""),
        (
            "`squish list` shows what is installed; `squish search` finds more.",
            "F4 shows what is installed; F3 finds more.",
        ),
        ("`squish list` shows which models do.", "F4 shows which models do."),
        ("Run: squish chats list", "ctrl+b lists them."),
        ("Connect the disk that it is on. To forget it: squish rm a", "Connect the disk that it is on."),
        (
            "Pull it (squish pull a:1b), or start without it: --draft, or [draft] in config.toml.",
            "Pull it (squish pull a:1b), or start without it: [draft] in config.toml.",
        ),
        (
            "Put it into SQUISH_API_KEY, or name the variable that has it: --key-env VAR.",
            "Put it into SQUISH_API_KEY.",
        ),
        ("Run: squish rm a+x a+y a. To delete it alone: squish rm --force a", "Delete a+x a+y first."),
        ("Close something.\x1b[2J", "Close something."),
        (None, ""),
    ],
)
def test_hints_name_what_can_be_done_before_the_screens(hint: str | None, shown: str) -> None:
    assert advice.hint(InvalidInput("x", hint=hint), ScriptedApp()) == shown


def test_a_wait_without_a_measure_has_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    app, transfer = ScriptedApp(), Transfer("a", "a", "running")
    monkeypatch.setattr("squish.tui.downloads.time.monotonic", lambda: 100.0)
    transfer.apply(Progress("import", 0, 1000))
    monkeypatch.setattr("squish.tui.downloads.time.monotonic", lambda: 112.4)
    transfer.apply(Progress("import", 0, 1000))
    transfer.read()
    assert "importing" in str(transfer_row(transfer, 60, app)) and "1 kB · 12 s" in str(transfer_row(transfer, 60, app))
    transfer.apply(Progress("import", 500, 1000))
    transfer.read()
    assert "50 % · 500 B of 1 kB · 12 s" in str(transfer_row(transfer, 60, app))
    transfer.apply(Progress("measure", 0, 2))
    transfer.read()
    assert "measuring" in str(transfer_row(transfer, 60, app)) and " B" not in str(transfer_row(transfer, 60, app))
    transfer.apply(Progress("measure", 1, 2))
    transfer.read()
    assert "50 % · 1 of 2 steps" in str(transfer_row(transfer, 60, app))


def test_the_card_of_a_model_goes_no_further_than_its_context() -> None:
    machine = FrozenMachine().for_models()
    found = Found("a/b", "a/b", "a", "mlx", 10**9, 4.5, 562_000_000, 0, None, context_length=8192)
    assert "fits up to 8.2k tokens" in str(Content("\n").join(fit_lines(found, 8192, machine)))


def test_every_style_sheet_is_for_a_class_that_exists() -> None:
    """A renamed screen whose sheet was forgotten is drawn without it, and nothing else says so."""
    sheets = "\n".join(path.read_text() for path in TUI.rglob("*.tcss"))
    named = set(re.findall(r"^([A-Z]\w+)", sheets, re.MULTILINE))
    code = "\n".join(path.read_text() for path in TUI.rglob("*.py"))
    classes = set(re.findall(r"^class (\w+)", code, re.MULTILINE)) | {"Screen", "Toast", "ToastRack"}
    assert named <= classes


def test_the_card_of_an_embedding_model_says_what_it_reads() -> None:
    machine = FrozenMachine().for_models()
    found = Found("a/b", "a/b", "a", "embedding", 10**8, 16, 200_000_000, 0, None, context_length=512)
    card = str(Content("\n").join(fit_lines(found, 8192, machine)))
    assert "texts of up to 512 tokens each" in card and "0k" not in card and "fits up to" not in card
    short = str(Content("\n").join(fit_lines(replace(found, kind="mlx"), 8192, machine)))
    assert "this model's context is 512 tokens" in short and "0k" not in short
    unknown = str(Content("\n").join(fit_lines(replace(found, context_length=None), 8192, machine)))
    assert "does not chat" in unknown and "up to" not in unknown


def test_a_load_has_seconds_on_every_screen() -> None:
    app = ScriptedApp()
    for now in (5.0, 12.0):
        app.seconds.now = now
        app.engine.be(SMOL.id, "loading")
        app.load_history.read(app._runtime.sessions, FrozenMachine())
    assert app.load_history.loading_for(SMOL.id) == 7
    app.engine.be(SMOL.id, "ready")
    app.load_history.read(app._runtime.sessions, FrozenMachine())
    assert app.load_history.loading_for(SMOL.id) is None


@pytest.mark.parametrize(
    ("program", "says"),
    [("Squish 0.2.0", "squish pull NAME"), ("Ollama 0.9", "ollama pull NAME"), ("OpenAI's API", "a moment later.")],
)
def test_how_a_server_gets_another_model_depends_on_its_program(program: str, says: str) -> None:
    assert says in "".join(each if isinstance(each, str) else each[0] for each in ("a moment later", *_how(program)))

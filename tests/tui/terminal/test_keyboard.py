"""An escape is a key by itself as soon as it can be told from the beginning of another one. Nothing here takes time."""

from __future__ import annotations

import asyncio
import os
import pty
import threading
import tty
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from textual import constants
from textual.app import App
from textual.message import Message

from squish.tui.terminal.keyboard import InputReader, QuickDriver, silence

SILENCE = 0.025
NOTHING = b"-"


class Terminal:
    """Sends pieces one after the other; for NOTHING it lets the reader wait in vain. waited: seconds it was to wait."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.waited = deque(pieces), list[float]()
        self.reader = InputReader(self.ready, self.pieces.popleft, SILENCE)

    def ready(self, seconds: float) -> bool:
        self.waited.append(seconds)
        if self.pieces[0] == NOTHING:
            self.pieces.popleft()
            return False
        return True

    def keys(self) -> list[str]:
        found = list[Message]()
        while self.pieces:
            found += self.reader.messages()
        return [getattr(each, "key", type(each).__name__) for each in found]


def test_an_escape_is_a_key_after_one_short_silence() -> None:
    terminal = Terminal(b"\x1b", NOTHING, NOTHING, b"x", NOTHING)
    assert terminal.keys() == ["escape", "x"]
    assert terminal.waited == [0.1, SILENCE, 0, 0.1, 0.1]  # and the rest of the time ten times a second, not more


@pytest.mark.parametrize("data", [b"\x1b[A", b"\x1b[1;3A", b"\x1bx", b"\x1b[200~two words\x1b[201~", b"\x1b[<35;4;5M"])
def test_a_key_that_comes_byte_by_byte_is_that_key(data: bytes) -> None:
    whole = Terminal(data, NOTHING, NOTHING).keys()
    assert len(whole) == 1
    assert Terminal(*(bytes([each]) for each in data), NOTHING, NOTHING).keys() == whole


def test_what_is_there_once_the_silence_is_over_counts_also_when_the_thread_had_no_turn_for_long() -> None:
    assert Terminal(b"\x1b", NOTHING, b"[A").keys() == ["up"]


@pytest.mark.parametrize(
    ("late", "key"), [(b"[A", "up"), (b"[3~", "delete"), (b"[<35;4;5M", "MouseMove"), (b"[200~a\x1b[201~", "Paste")]
)
def test_what_comes_too_late_after_its_escape_is_never_letters(late: bytes, key: str) -> None:
    assert Terminal(b"\x1b", NOTHING, NOTHING, late).keys() == ["escape", key]


@pytest.mark.parametrize("typed", [b"[", b"[]", b"[x]", b"A", b"OK"])
def test_what_is_typed_after_an_escape_is_letters(typed: bytes) -> None:
    assert len(Terminal(b"\x1b", NOTHING, NOTHING, typed).keys()) == 1 + len(typed)
    assert len(Terminal(b"\x1b", NOTHING, NOTHING, b"a", b"[A").keys()) == 4


def test_bytes_that_are_no_text_end_nothing() -> None:
    assert Terminal(b"\xff", b"a").keys()[-1] == "a"
    assert Terminal(b"\xc3", b"\xa9").keys() == ["é"]


@pytest.mark.parametrize("variable", ["SSH_CONNECTION", "SSH_TTY", "ESCDELAY"])
def test_over_a_connection_and_where_the_user_says_so_it_is_waited_for_longer(variable: str) -> None:
    assert silence({variable: "1"}) == constants.ESCAPE_DELAY > silence({"TERM": "xterm"}) == SILENCE


@pytest.mark.parametrize("typed", [b"a\x1b", b"\x1b[A" * 1000])
async def test_the_driver_reads_a_terminal_until_the_app_ends_and_wakes_the_loop_once_for_what_came_at_once(
    typed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, side = pty.openpty()
    loop, ended, found = asyncio.get_running_loop(), threading.Event(), list[str]()
    woken = Mock(side_effect=loop.call_soon_threadsafe)
    monkeypatch.setattr(loop, "call_soon_threadsafe", woken)
    tty.setraw(side)
    driver = object.__new__(QuickDriver)
    driver.fileno, driver.exit_event, driver._debug, driver.cursor_origin = side, ended, False, None
    driver._loop = loop

    def take(message: Message) -> None:
        found.append(getattr(message, "key", ""))
        if len(found) == len(typed.replace(b"[A", b"")):
            ended.set()

    driver._app = cast(App[Any], SimpleNamespace(post_message=take))
    os.write(terminal, typed)
    try:
        await asyncio.to_thread(driver.run_input_thread)
    finally:
        os.close(terminal)
        os.close(side)
    assert found == (["a", "escape"] if b"a" in typed else ["up"] * 1000)
    assert woken.call_count < 10, "for each piece that was read, and for the thread that ends"


LINES = b"a line that is pasted\r" * 20


@pytest.mark.parametrize("before", [b"", b"x", b"\x1b[A", b"\x1b[200~a\x1b[201~"])
def test_many_lines_at_once_are_a_paste_though_the_terminal_does_not_say_so(before: bytes) -> None:
    terminal = Terminal(*filter(None, [before]), LINES, LINES, b"and the end", NOTHING, b"\r")
    assert terminal.keys()[-2:] == ["Paste", "enter"]


def test_lines_of_a_paste_that_is_marked_are_a_part_of_it() -> None:
    assert Terminal(b"\x1b[20", b"0~" + LINES, LINES, LINES + b"\x1b[201~", b"x").keys() == ["Paste", "x"]


@pytest.mark.parametrize("data", [b"hello\r", b"1\r2\r3\r", b"x" * 300 + b"\r", b"\r" * 5])
def test_a_few_lines_are_keys(data: bytes) -> None:
    assert Terminal(data, NOTHING).keys().count("enter") == data.count(b"\r")


def gone() -> bytes:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("read", [bytes, gone], ids=["nothing", "an error"])
def test_a_terminal_that_has_gone_is_read_no_more(read: Callable[[], bytes]) -> None:
    reader = InputReader(lambda seconds: True, read, SILENCE)
    assert list(reader.messages()) == [] and reader.ended


def test_a_letter_that_has_come_in_part_is_not_the_end() -> None:
    reader = InputReader(lambda seconds: True, deque([b"\xc3", b"\xa9"]).popleft, SILENCE)
    assert list(reader.messages()) == [] and not reader.ended


def test_the_driver_reads_no_terminal_that_was_closed() -> None:
    terminal, side = pty.openpty()
    tty.setraw(side)
    os.close(terminal)
    driver = SimpleNamespace(fileno=side, exit_event=threading.Event(), _debug=False, process_message=None)
    QuickDriver.run_input_thread(driver)  # type: ignore[arg-type]
    os.close(side)

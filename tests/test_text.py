"""What we did not write never reaches a terminal as anything but text."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squish.errors import InvalidInput
from squish.text import StreamCleaner, clean, is_plain, is_utf8, require_utf8, whole

PACKAGE = Path(__file__).parent.parent / "squish"

ATTACKS = {
    "clipboard": "a\x1b]52;c;ZWNobyBwd25lZA==\x07b",
    "clipboard, string terminator": "a\x1b]52;c;ZWNobyBwd25lZA==\x1b\\b",
    "cursor": "a\x1b[2J\x1b[1;1Hb",
    "color": "a\x1b[31mb\x1b[0m",
    "title": "a\x1b]0;title\x07b",
    "device control": "a\x1bPq#0;2;0;0;0\x1b\\b",
    "8-bit": "a\x9b31mb\x9d52;c;eA==\x9c",
    "bidirectional override": "a\u202eb\u202c",
    "bell and backspace": "a\x07\x08b",
    "delete": "a\x7fb",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_taken_out(attack: str) -> None:
    assert clean(attack) == "ab"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_cut_anywhere_are_taken_out(attack: str) -> None:
    for cut in range(len(attack) + 1):
        cleaner = StreamCleaner()
        assert cleaner.feed(attack[:cut]) + cleaner.feed(attack[cut:]) + cleaner.flush() == "ab"


def test_whatever_is_taken_out_is_nothing_that_python_calls_printable() -> None:
    """Text of printable characters alone is not looked at by the patterns."""
    taken_out = [code for code in range(sys.maxunicode + 1) if clean(f"{chr(code)}\x07") not in (chr(code), "\n")]
    assert len(taken_out) > 2000 and not any(chr(code).isprintable() for code in taken_out)
    assert not any(map(str.isprintable, "\x1b\x90\x98\x9b\x9d\x9e\x9f"))


@pytest.mark.parametrize("text", ["plain", "naïve café 日本語 😀", "a\tb\nc", "👩‍👩‍👧‍👦 family", "[/not markup]", ""])
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_there_is_one_kind_of_line_break() -> None:
    assert clean("a\r\nb\rc\nd") == "a\nb\nc\nd"


def test_what_cannot_be_written_in_utf8_is_refused() -> None:
    assert is_utf8("é😀") and not is_utf8("caf\udce9")
    require_utf8("é😀", "The path")
    with pytest.raises(InvalidInput) as caught:
        require_utf8(100 * "\udce9", "The path")
    assert str(caught.value) == f"The path '{80 * '?'}' has bytes that are not UTF-8."
    assert re.fullmatch(r"Write it in UTF-8; .* folder\.", caught.value.hint or "")


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    assert all(ch in "\t\n" or (ch >= " " and not "\x7f" <= ch <= "\x9f") for ch in clean(text))


HARD = st.text(st.sampled_from("\x1b\r\n[]\\\x9b\x9c\x07\x90Pma;0"), max_size=4) | st.text(max_size=6)


@given(st.lists(HARD, max_size=6))
def test_a_stream_gives_the_same_as_the_whole(pieces: list[str]) -> None:
    cleaner = StreamCleaner()
    assert "".join(map(cleaner.feed, pieces)) + cleaner.flush() == clean("".join(pieces))


def test_an_unfinished_sequence_is_held_back_up_to_a_limit() -> None:
    cleaner = StreamCleaner()
    unfinished = "\x1b]".ljust(StreamCleaner.limit, "x")
    assert [cleaner.feed(piece) for piece in (f"word{unfinished}", "y", "z")] == ["word", "", "z"]


NO_NUMBERS = ("", " ", "²", "٣", "1_0", "+1", "-1", "0x1", "1.0", "1e3", "½", "①", "9" * 19, "9" * 5000, "1 0", "1\x00")


@pytest.mark.parametrize("text", NO_NUMBERS, ids=lambda text: ascii(text[:20]))
def test_what_is_no_number_is_none(text: str) -> None:
    assert whole(text) is None


@given(st.integers(0, 10**18 - 1))
def test_a_number_is_read(number: int) -> None:
    assert whole(f" {number}\n") == number


@given(st.text())
def test_no_text_is_too_strange_to_be_looked_at(text: str) -> None:
    assert whole(text) is None or text.strip().isdigit()


NUMBERS_OF_OTHERS = re.compile(r"\.is(?:digit|decimal|numeric)\(")


def test_nobody_else_asks_whether_a_text_is_a_number() -> None:
    """`isdigit` and its like take more than `int` does."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if NUMBERS_OF_OTHERS.search(path.read_text(encoding="utf-8"))
    }
    ascii_of_our_own = {"models/recipes.py", "worker/structured/alternatives.py"}
    assert found - ascii_of_our_own == {"text.py"}


def test_a_plain_name_has_one_line_and_nothing_that_a_terminal_would_obey() -> None:
    plain = {"a b": True, "ünï": True, "": True, "a\nb": False, "a\rb": False, "\x1b[1ma": False, "a\x07": False}
    assert {name: is_plain(name) for name in plain} == plain

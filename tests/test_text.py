"""What we did not write never reaches a terminal as anything but text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squish.text import StreamCleaner, clean

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


@pytest.mark.parametrize("text", ["plain", "naïve café 日本語 😀", "a\tb\nc", "👩‍👩‍👧‍👦 family", "[/not markup]", ""])
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    assert all(ch in "\t\n" or (ch >= " " and not "\x7f" <= ch <= "\x9f") for ch in clean(text))


HARD = st.text(st.sampled_from("\x1b\r\n[]\\\x9b\x9c\x07\x90Pma;0"), max_size=4) | st.text(max_size=6)


@given(st.lists(HARD, max_size=6))
def test_a_stream_gives_the_same_as_the_whole(pieces: list[str]) -> None:
    cleaner = StreamCleaner()
    assert "".join(map(cleaner.feed, pieces)) + cleaner.flush() == clean("".join(pieces))

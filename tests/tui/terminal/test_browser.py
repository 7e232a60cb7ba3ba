"""A page of `squish web` sends whole keys and pastes, so that an escape is a key at once."""

from __future__ import annotations

import pytest
from textual.events import Key, Paste

from squish.tui.terminal.browser import PacketReader


def keys(*packets: bytes) -> list[str]:
    reader = PacketReader()
    return [getattr(each, "key", type(each).__name__) for packet in packets for each in reader.read(packet)]


@pytest.mark.parametrize(
    ("packets", "expected"),
    [
        ((b"\x1b",), ["escape"]),
        ((b"\x1b", b"\x1b", b"x"), ["escape", "escape", "x"]),
        ((b"\x1b[A", b"\x1b[1;3A", b"\x1bx"), ["up", "alt+up", "alt+x"]),
        ((b"\x1b", b"[A"), ["escape", "left_square_bracket", "A"]),
        ((b"\xc3", b"\xa9"), ["é"]),
        ((b"\x1b[<35;4;5M", b"q"), ["MouseMove", "q"]),
    ],
)
def test_a_packet_is_whole(packets: tuple[bytes, ...], expected: list[str]) -> None:
    assert keys(*packets) == expected


def test_a_paste_is_one_text_whatever_is_in_it() -> None:
    (paste, after) = PacketReader().read(b"\x1b[200~one\x1b[31m\r" + b"line\r" * 5000 + b"\x1b[201~\x1b")
    assert isinstance(paste, Paste) and paste.text.startswith("one\x1b[31m\rline\r") and len(paste.text) > 25_000
    assert isinstance(after, Key) and after.key == "escape"

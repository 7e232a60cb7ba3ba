"""What goes on behind the screen, in the words that the status strip has for it. Knows no widget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Background:
    """short: what stays where there is little room, and is true without the rest; empty: nothing goes on."""

    short: str = ""
    more: str = ""

    def __str__(self) -> str:
        return f"{self.short} {self.more}" if self.more else self.short

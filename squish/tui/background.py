"""What goes on behind the screen, in the words that the status strip has for it. Knows no widget."""

from __future__ import annotations

import msgspec


class Background(msgspec.Struct, frozen=True):
    """short: what stays where there is little room, and is true without the rest; empty: nothing goes on.

    lost: it is a server that is not connected now, so that nobody knows what is loaded there.
    """

    short: str = ""
    more: str = ""
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.short} {self.more}" if self.more else self.short

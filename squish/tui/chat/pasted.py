"""Large texts that were pasted: folded to one line each in the draft, written out in full where it is sent or kept."""

from __future__ import annotations

import re

LINES = 12
CHARACTERS = 2000
_LABEL = re.compile(r"\[pasted (?:\d+ lines|\d+ characters) #(\d+)\]")


class Pasted:
    """Remembers what its labels stand for."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def fold(self, text: str) -> str:
        """The text, or a label in its place when it is large: `[pasted 5000 lines #1]`."""
        lines = text.count("\n") + (not text.endswith("\n"))
        if lines <= LINES and len(text) <= CHARACTERS:
            return text
        self._texts.append(text)
        size = f"{lines} lines" if lines > 1 else f"{len(text)} characters"
        return f"[pasted {size} #{len(self._texts)}]"

    def unfold(self, text: str) -> str:
        """The text with what every label stands for; a label that was only written stays."""
        return _LABEL.sub(self._meant, text)

    def _meant(self, label: re.Match[str]) -> str:
        number = int(label[1])
        return self._texts[number - 1] if 0 < number <= len(self._texts) else label[0]

"""Text that we did not write: made safe to show on a terminal, and read as a number.

A model's answer, a hub card or a client's header can carry escape sequences that write the clipboard (OSC 52), move the
cursor or reorder what is read (bidirectional overrides). `clean` takes them out in one place for every front door.

Python's own `isdigit` takes ², for which `int` raises, and `int` takes 1_0 and ٣. `whole` reads numbers for everybody.
"""

from __future__ import annotations

import re

from squish.errors import InvalidInput

# Complete sequences first, so that their parameters go with them; then any control character that is left.
_ESCAPES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC … BEL or ST
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"  # DCS, SOS, PM, APC … ST
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|\x1b[ -/]*[0-~]?"  # two-character escapes
)
# Of the characters without a width, the joiners stay: families of emoji and words in Persian are made with them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_LINE_BREAKS = re.compile("\r\n|[\r\u2028\u2029]")

_SURROGATES = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """The same text without escape sequences, control characters (tab and newline stay), bidirectional overrides and
    spaces without a width."""
    if text.replace("\n", "").replace("\t", "").isprintable():  # ten times as fast as the patterns
        return text
    return _plain(_ESCAPES.sub("", text))


def _plain(text: str) -> str:
    """A text without escape sequences, with one kind of line break and no control characters."""
    return _CONTROLS.sub("", _LINE_BREAKS.sub("\n", text))


def visible(text: str) -> str:
    """The same text with what `clean` would take out written as an escape: `\\u001b[31m`. It loses nothing."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n").replace("\r", "\\r"))


def is_plain(name: str) -> bool:
    """Whether a name of one line can be shown as it is: `clean` changes nothing, and no line break is in it."""
    return clean(name) == name and "\n" not in name


def is_utf8(text: str) -> bool:
    """Whether a text can be written in UTF-8.

    Python keeps bytes of arguments, variables and paths that are not UTF-8 as lone surrogates, which no manifest, frame
    or database takes.
    """
    return not _SURROGATES.search(text)


def require_utf8(text: str, what: str) -> None:
    """Raises InvalidInput where an argument or a path has bytes that are not UTF-8. what: "The argument"."""
    if not is_utf8(text):
        shown = _SURROGATES.sub("?", text)[:80]
        hint = "Write it in UTF-8; if it is a path, rename the file or the folder."
        raise InvalidInput(f"{what} {shown!r} has bytes that are not UTF-8.", hint=hint)


def whole(text: str) -> int | None:
    """The number that ASCII digits write, spaces around them aside; None for any other text, and beyond 18 digits."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class StreamCleaner:
    """`clean` for text that arrives in pieces: an escape sequence cut in two is still taken out.

    Text behind an unfinished sequence is held back for at most `limit` characters.
    """

    limit = 4096

    def __init__(self) -> None:
        self._held = ""
        self._return = ""  # a carriage return that came last: a line feed may follow

    def feed(self, text: str) -> str:
        text = self._held + text
        start = self._open_sequence(text)
        if start is None or len(text) - start > self.limit:
            start = len(text)
        self._held = text[start:]
        without = self._return + _ESCAPES.sub("", text[:start])
        self._return = "\r" if without.endswith("\r") else ""
        return _plain(without.removesuffix("\r"))

    def flush(self) -> str:
        """What was held back, cleaned."""
        held, self._held = self._return + self._held, ""
        self._return = ""
        return clean(held)

    @staticmethod
    def _open_sequence(text: str) -> int | None:
        """Where a sequence begins that reaches the end of the text, and so may go on in the next piece."""
        if "\x1b" not in text and not any(c in text for c in "\x90\x98\x9b\x9d\x9e\x9f"):
            return None
        for match in _ESCAPES.finditer(text):
            if match.end() == len(text):
                return match.start()
        return None

"""A model's card as it is written on the Hub, made readable in a terminal. Pure text."""

from __future__ import annotations

import re

from squish.text import clean

MOST = 24_000

_FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_UNREAD = re.compile(r"<(style|script)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")


def readable(text: str) -> str:
    """The Markdown without escape sequences, pictures and HTML; code stays as it is; what is too long is cut."""
    text = clean(text)
    shown, cut = text[:MOST], len(text) > MOST
    pieces = [each if at % 2 else _plain(each) for at, each in enumerate(_FENCE.split(shown))]
    return "".join(pieces).strip() + ("\n\n…" if cut else "")


def _plain(text: str) -> str:
    for pattern, instead in ((_COMMENT, ""), (_UNREAD, ""), (_PICTURE, r"\1"), (_TAG, "")):
        text = pattern.sub(instead, text)
    # A line that HTML had set in would be a block of code now.
    return re.sub(r"^[ \t]{4,}(?=\S)(?![-*+0-9])", "", text, flags=re.MULTILINE)

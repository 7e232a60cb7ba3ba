"""How Markdown is read in a chat and on a model's card. Pure text.

Raw HTML is text, since a model that explains `<div>` means to show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from squish.tui.widgets.markdown.math_text import math

References = dict[str, dict[str, Any]]
"""What markdown-it knows of `[label]: address` lines."""

SAMPLE_ROWS = 32
SAMPLE_CHARACTERS = 1500


@cache
def parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False}).use(math)


def code_blocks(text: str) -> list[str]:
    """The code of every fence in a text, in the order of the numbers that are shown with them."""
    return [token.content.removesuffix("\n") for token in parser().parse(text) if token.type == "fence"]


def sample_rows(tokens: Sequence[Token], at: int) -> int:
    """How many rows below its head decide how wide the columns of a table are: later ones would move those that are
    read already, and nobody can look at all of them for each that comes.

    at: of the table's first token.
    """
    rows, size, below_head = 0, 0, False
    for token in tokens[at:]:
        if token.type == "table_close" or rows == SAMPLE_ROWS:
            break
        below_head |= token.type == "tbody_open"
        if token.type == "inline" and below_head:
            size += len(token.content)
        elif token.type == "tr_close" and below_head:
            if rows and size > SAMPLE_CHARACTERS:
                break
            rows += 1
    return rows

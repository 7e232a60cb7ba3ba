"""Messages are found again by their words, and by the tags of their chats."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from squish.chats.database import connect, sqlite_errors
from squish.chats.messages import Hit
from squish.chats.tags import taken_out

TAGGED = "id IN (SELECT chat FROM tags WHERE tag = ?)"
_SNIPPET_WORDS = 12
_FOUND = (
    "SELECT m.chat, c.title, m.id, m.role, snippet(words, 0, char(2), char(3), '…', ?), m.created, c.archived"
    " FROM words JOIN messages m ON m.id = words.rowid JOIN chats c ON c.id = m.chat WHERE words MATCH ?"
)
_BEST = "ORDER BY rank, m.id DESC LIMIT ?"
_LATEST = (
    "SELECT c.id, c.title, m.id, m.role, substr(m.text, 1, 160), m.created, c.archived"
    " FROM chats c JOIN messages m ON m.id = c.head WHERE true"
)
_NEWEST = "ORDER BY c.updated DESC, c.id DESC LIMIT ?"


def find(path: Path, words: str, limit: int) -> list[Hit]:
    """As `Chats.find` has it, over a connection of its own, so that it may be called from any thread."""
    words, tags = taken_out(words)
    query = _query(words)
    if not query and not tags:
        return []
    tagged = "".join(f" AND c.{TAGGED}" for _ in tags)
    with sqlite_errors(path), closing(connect(path)) as connection:
        if query:
            rows = connection.execute(f"{_FOUND}{tagged} {_BEST}", (_SNIPPET_WORDS, query, *tags, limit)).fetchall()
        else:
            rows = connection.execute(f"{_LATEST}{tagged} {_NEWEST}", (*tags, limit)).fetchall()
    return [Hit(*row) for row in rows]


def _query(words: str) -> str:
    """The words as FTS5 takes them: each quoted, so that none is an operator, and the last one a beginning."""
    found = re.findall(r"\w+", words)
    return " ".join(f'"{word}"' for word in found) + "*" if found else ""

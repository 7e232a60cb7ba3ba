"""Conversations, kept in one sqlite file: a tree of messages each, saved while they grow, found again by their words.

All methods are quick enough for an event loop, but `find`, which may be called from a thread.
It knows no screen and no engine.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squish.chats import search
from squish.chats.database import connect, sqlite_errors, transaction
from squish.chats.messages import (
    Attachment,
    Chat,
    ChatSettings,
    ChatTools,
    Figures,
    Hit,
    Role,
    Saved,
    State,
    ToolStep,
    Tree,
    Unread,
    title_of,
)
from squish.chats.rows import CHATS, MESSAGES, chat_of, decoded, dump, message_of
from squish.chats.tags import TagChange
from squish.errors import InvalidInput, StoreError
from squish.system.sqlite_files import can_write


class Chats:
    """The conversations in the file at path, which is opened when it is first needed. Errors are StoreErrors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = connect(self.path)
            if can_write(self.path):
                self._end_orphans()
        return self._opened

    def close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened = None

    # ---- chats

    def create(self, model: str, settings: ChatSettings | None = None, title: str = "", preset: str = "") -> int:
        """A new chat without messages; its id."""
        now = time.time()
        row = (title_of(title), model, dump(settings or ChatSettings()), preset, now, now)
        return self._write(
            "INSERT INTO chats (title, model, settings, preset, created, updated, titled)"
            " VALUES (?, ?, ?, ?, ?, ?, 'question')",
            row,
        )

    def recent(
        self, limit: int = -1, *, pinned_first: bool = False, archived: bool = False, tags: Sequence[str] = ()
    ) -> list[Chat]:
        """Chats, the one that was used last first. archived: those that were put away too. tags: with all of them."""
        where = " AND ".join(["1" if archived else "archived = 0", *(search.TAGGED for _ in tags)])
        order = f"{'pinned DESC, ' if pinned_first else ''}updated DESC, id DESC"
        rows = self._read(f"{CHATS} WHERE {where} ORDER BY {order} LIMIT ?", (*tags, limit))
        return [chat_of(row) for row in rows]

    def get(self, chat: int) -> Chat:
        """Raises InvalidInput for a chat that is not there."""
        rows = self._read(f"{CHATS} WHERE id = ?", (chat,))
        if not rows:
            raise InvalidInput(f"Chat {chat} does not exist.", hint="Run: squish chats list", param="chat")
        return chat_of(rows[0])

    def rename(self, chat: int, title: str) -> None:
        """Give a chat the user's title, which no other takes the place of."""
        self._write("UPDATE chats SET title = ?, titled = 'user' WHERE id = ?", (title_of(title), chat))

    def give_title(self, chat: int, title: str) -> bool:
        """Set the title that a model wrote, where the chat still has its question for one; whether it had.

        An empty one leaves the question, and no other is written.
        """
        with sqlite_errors(self.path):
            return (
                self._connection.execute(
                    "UPDATE chats SET title = coalesce(nullif(?, ''), title), titled = 'model'"
                    " WHERE id = ? AND titled = 'question'",
                    (title_of(title), chat),
                ).rowcount
                > 0
            )

    def pin(self, chat: int, pinned: bool) -> None:
        """Let a chat stay at the top of the list, or not."""
        self._write("UPDATE chats SET pinned = ? WHERE id = ?", (pinned, chat))

    def archive(self, chat: int, archived: bool) -> None:
        """Take a chat out of the list, or bring it back; it is found in either case."""
        self._write("UPDATE chats SET archived = ? WHERE id = ?", (archived, chat))

    def tag(self, chat: int, change: TagChange) -> None:
        """Give a chat tags, and take others away. One that is not there gets none."""
        with sqlite_errors(self.path), transaction(self._connection):
            self._connection.executemany("DELETE FROM tags WHERE chat = ? AND tag = ?", _pairs(chat, change.removed))
            self._connection.executemany(
                "INSERT OR IGNORE INTO tags SELECT id, ?2 FROM chats WHERE id = ?1", _pairs(chat, change.added)
            )

    def tags(self) -> dict[str, int]:
        """Every tag, and how many chats of the list have it."""
        rows = self._read(
            "SELECT tag, sum(archived = 0) FROM tags JOIN chats ON id = chat GROUP BY tag ORDER BY tag", ()
        )
        return {str(tag): int(count) for tag, count in rows}

    def configure(self, chat: int, model: str, settings: ChatSettings, preset: str = "") -> None:
        """Set which model the chat asks, and how. preset: which was used last; empty leaves it."""
        self._write(
            "UPDATE chats SET model = ?, settings = ?, preset = coalesce(nullif(?, ''), preset) WHERE id = ?",
            (model, dump(settings), preset, chat),
        )

    def mark(self, chat: int, unread: Unread) -> None:
        """Keep that an answer has ended unseen, or that it was seen."""
        self._write("UPDATE chats SET unread = ? WHERE id = ?", (unread, chat))

    def use_tools(self, chat: int, tools: ChatTools) -> None:
        """Set which tools the chat may use."""
        self._write("UPDATE chats SET tools = ? WHERE id = ?", (dump(tools), chat))

    def keep_draft(self, chat: int, draft: str) -> None:
        self._write("UPDATE chats SET draft = ? WHERE id = ?", (draft, chat))

    def used_at(self, chat: int, seconds: float) -> None:
        """Set when a chat was used last, as a file that it comes from says. seconds since 1970."""
        self._write("UPDATE chats SET updated = ? WHERE id = ?", (seconds, chat))

    def remove(self, chat: int) -> None:
        """Delete a chat and all its messages; one that is not there is not an error."""
        with sqlite_errors(self.path), transaction(self._connection):
            # The newest first: sqlite follows a message to those below it at most a thousand times.
            rows = self._read("SELECT id FROM messages WHERE chat = ? ORDER BY id DESC", (chat,))
            self._connection.executemany("DELETE FROM messages WHERE id = ?", rows)
            self._connection.execute("DELETE FROM chats WHERE id = ?", (chat,))

    # ---- messages

    def ask(
        self, chat: int, parent: int | None, text: str, model: str, attachments: tuple[Attachment, ...] = ()
    ) -> tuple[int, int]:
        """Add a question below parent and an empty answer below it, in one step; the ids of both."""
        with sqlite_errors(self.path), transaction(self._connection):
            question = self._insert(chat, parent, "user", text, "", "done", attachments)
            return question, self._insert(chat, question, "assistant", "", model, "writing")

    def answer_again(self, chat: int, question: int, model: str) -> int:
        """Add another version of the answer to a question, empty as yet; its id."""
        with sqlite_errors(self.path), transaction(self._connection):
            return self._insert(chat, question, "assistant", "", model, "writing")

    def grow(self, answer: int, text: str, reasoning: str = "", steps: tuple[ToolStep, ...] = ()) -> None:
        """Save an answer as far as it is written."""
        self._write(
            "UPDATE messages SET text = ?, reasoning = ?, steps = ?, state = 'writing', writer = ? WHERE id = ?",
            (text, reasoning, dump(steps), os.getpid(), answer),
        )

    def finish(
        self,
        answer: int,
        text: str,
        reasoning: str = "",
        state: State = "done",
        figures: Figures | None = None,
        steps: tuple[ToolStep, ...] = (),
    ) -> None:
        """Save an answer that will not grow any more."""
        with sqlite_errors(self.path), transaction(self._connection):
            self._connection.execute(
                "UPDATE messages SET text = ?, reasoning = ?, steps = ?, state = ?, figures = ?, writer = NULL"
                " WHERE id = ?",
                (text, reasoning, dump(steps), state, dump(figures or Figures()), answer),
            )
            self._connection.execute(
                "UPDATE chats SET updated = ? WHERE id = (SELECT chat FROM messages WHERE id = ?)",
                (time.time(), answer),
            )

    def tree(self, chat: int) -> Tree:
        """All messages of a chat."""
        rows = self._read(f"{MESSAGES} WHERE chat = ? ORDER BY id", (chat,))
        return Tree((message_of(row) for row in rows), self.get(chat).head)

    def branch(self, chat: int) -> list[Saved]:
        """The messages of a chat from the first to its head."""
        return self.tree(chat).branch

    def show(self, chat: int, message: int) -> None:
        """Make the branch through this message the one that is shown, down to its newest leaf."""
        head = self.tree(chat).newest_below(message)
        self._write("UPDATE chats SET head = ? WHERE id = ?", (head, chat))

    def recent_questions(self, limit: int) -> list[str]:
        """What was asked last, over all chats, the oldest first and nothing twice in a row."""
        rows = self._read("SELECT text FROM messages WHERE role = 'user' ORDER BY id DESC LIMIT ?", (limit,))
        texts = [str(row[0]) for row in reversed(rows)]
        return [text for at, text in enumerate(texts) if at == 0 or texts[at - 1] != text]

    def speeds(self, server: str = "") -> dict[str, float]:
        """Tokens per second of the last complete answer of each model, of those of one server: as in Figures.

        A quote inside of a JSON text has a backslash before it, so that no text looks like the field.
        """
        field = f'"server":{dump(server) if server else ""}'
        rows = self._read(
            "SELECT model, figures FROM messages WHERE id IN (SELECT max(id) FROM messages"
            " WHERE role = 'assistant' AND state = 'done' AND (instr(figures, ?) > 0) = ? GROUP BY model)",
            (field, bool(server)),
        )
        found = ((str(model), decoded(figures, Figures, Figures())) for model, figures in rows)
        return {model: (each.completion_tokens - 1) / each.decode for model, each in found if each.decode > 0}

    def find(self, words: str, limit: int = 100) -> list[Hit]:
        """Messages with all these words, the last one perhaps only begun; the best first.

        `#work` among them: only in chats with that tag; alone, the latest message of each.
        """
        return search.find(self.path, words, limit)

    # ---- presets

    def presets(self) -> dict[str, ChatSettings]:
        """The user's own, by name. One that is damaged is left out: with the defaults in its place it would mislead."""
        rows = self._read("SELECT name, settings FROM presets ORDER BY name", ())
        known = {str(name): decoded(settings, ChatSettings, None) for name, settings in rows}
        return {name: settings for name, settings in known.items() if settings is not None}

    def keep_preset(self, name: str, settings: ChatSettings) -> None:
        self._write("INSERT OR REPLACE INTO presets VALUES (?, ?)", (name, dump(settings)))

    def remove_preset(self, name: str) -> None:
        self._write("DELETE FROM presets WHERE name = ?", (name,))

    # ---- prompt templates

    def prompts(self) -> dict[str, str]:
        """Templates of messages, by name."""
        rows = self._read("SELECT name, text FROM prompts ORDER BY name", ())
        return {str(name): str(text) for name, text in rows}

    def keep_prompt(self, name: str, text: str) -> None:
        self._write("INSERT OR REPLACE INTO prompts VALUES (?, ?)", (name, text))

    def remove_prompt(self, name: str) -> None:
        self._write("DELETE FROM prompts WHERE name = ?", (name,))

    # ---- rows

    def _insert(
        self,
        chat: int,
        parent: int | None,
        role: Role,
        text: str,
        model: str,
        state: State,
        attachments: tuple[Attachment, ...] = (),
    ) -> int:
        if not self._connection.execute("SELECT 1 FROM chats WHERE id = ?", (chat,)).fetchone():
            raise StoreError("This chat has been deleted in the meantime.", hint="Begin a new chat.")
        now = time.time()
        writer = os.getpid() if state == "writing" else None
        added = self._connection.execute(
            "INSERT INTO messages (chat, parent, role, text, model, attachments, state, writer, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (chat, parent, role, text, model, dump(attachments), state, writer, now),
        ).lastrowid
        assert added is not None
        self._connection.execute(
            "UPDATE chats SET head = ?, updated = ?, archived = 0 WHERE id = ?", (added, now, chat)
        )
        return added

    def _end_orphans(self) -> None:
        """Answers whose process was killed in mid-word end here, with all that was saved of them."""
        for (writer,) in self._read("SELECT DISTINCT writer FROM messages WHERE state = 'writing'", ()):
            if writer is None or writer == os.getpid() or not _lives(writer):
                self._write(
                    "UPDATE messages SET state = 'stopped', writer = NULL WHERE state = 'writing' AND writer IS ?",
                    (writer,),
                )

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with sqlite_errors(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        """Run a statement by itself; the id of the row it added, if it added one."""
        with sqlite_errors(self.path):
            return self._connection.execute(statement, values).lastrowid or 0


def _pairs(chat: int, tags: Sequence[str]) -> list[tuple[int, str]]:
    return [(chat, tag) for tag in tags]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

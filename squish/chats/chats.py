"""Conversations, kept in one sqlite file: a tree of messages each, saved while they grow, found again by their words.

A message's versions are the messages with the same parent and role; a chat's head is the leaf of the branch that is
shown. All methods are quick enough for an event loop, but `find`, which may be called from a thread.
It knows no screen and no engine.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from squish.chats.database import connect, told, transaction
from squish.errors import InvalidInput
from squish.generation import SamplingParams

MAX_TITLE = 60
_SNIPPET_WORDS = 12

Role = Literal["user", "assistant"]
State = Literal["writing", "done", "stopped", "failed"]


class ChatSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a chat asks: sampling, system prompt, and whether the model is to think (None: as it likes)."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 2048
    seed: int | None = None
    stop: tuple[str, ...] = ()
    system: str = ""
    thinking: bool | None = None

    def sampling(self) -> SamplingParams:
        """Raises InvalidInput naming the field that is out of its range."""
        return SamplingParams(
            self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, self.seed, self.stop
        )


class Attachment(msgspec.Struct, frozen=True):
    """A text file that goes with a message."""

    name: str
    text: str


class Figures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer took. ttft, decode and thought in seconds; error: why it has no end."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    ttft: float = 0.0
    decode: float = 0.0
    thought: float = 0.0
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """One message. model: who wrote an answer. created in seconds since 1970."""

    id: int
    chat: int
    parent: int | None
    role: Role
    text: str
    reasoning: str
    model: str
    attachments: tuple[Attachment, ...]
    state: State
    figures: Figures
    created: float

    @property
    def full_text(self) -> str:
        """What the model reads: the text, and the attached files behind it."""
        return with_files(self.text, self.attachments)


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation without its messages. head: the last message of the branch that is shown."""

    id: int
    title: str
    model: str
    settings: ChatSettings
    draft: str
    head: int | None
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found; snippet shows the place, with the words between \\x02 and \\x03."""

    chat: int
    title: str
    message: int
    role: Role
    snippet: str
    created: float


class Tree:
    """All messages of a chat, and the branch that leads to its head."""

    def __init__(self, messages: Iterable[Saved], head: int | None) -> None:
        self._by_id = {each.id: each for each in messages}
        self._below: dict[int | None, list[Saved]] = {}
        for each in self._by_id.values():
            self._below.setdefault(each.parent, []).append(each)
        self.branch = self._up_from(head)

    def versions(self, message: int) -> list[int]:
        """The versions of a message, the oldest first, itself among them."""
        this = self._by_id[message]
        return [each.id for each in self._below[this.parent] if each.role == this.role]

    def newest_below(self, message: int) -> int:
        """The leaf one comes to from a message by taking the newest version each time."""
        while below := self._below.get(message):
            message = below[-1].id
        return message

    def _up_from(self, message: int | None) -> list[Saved]:
        branch: list[Saved] = []
        while message is not None and (each := self._by_id.get(message)):
            branch.append(each)
            message = each.parent
        return branch[::-1]


class Chats:
    """The conversations in the file at path, which is opened when it is first needed. Errors are StoreErrors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = connect(self.path)
            self._end_orphans()
        return self._opened

    def close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened = None

    # ---- chats

    def create(self, model: str, settings: ChatSettings | None = None, title: str = "") -> int:
        """A new chat without messages; its id."""
        now = time.time()
        row = (title_of(title), model, _dump(settings or ChatSettings()), now, now)
        return self._write("INSERT INTO chats (title, model, settings, created, updated) VALUES (?, ?, ?, ?, ?)", row)

    def recent(self, limit: int = -1) -> list[Chat]:
        """Chats, the one that was used last first."""
        return [_chat(row) for row in self._read(f"{_CHATS} ORDER BY updated DESC, id DESC LIMIT ?", (limit,))]

    def get(self, chat: int) -> Chat:
        """Raises InvalidInput for a chat that is not there."""
        rows = self._read(f"{_CHATS} WHERE id = ?", (chat,))
        if not rows:
            raise InvalidInput(f"There is no chat {chat}.", hint="Run: squish chats list", param="chat")
        return _chat(rows[0])

    def rename(self, chat: int, title: str) -> None:
        self._write("UPDATE chats SET title = ? WHERE id = ?", (title_of(title), chat))

    def configure(self, chat: int, model: str, settings: ChatSettings) -> None:
        """Set which model the chat asks, and how."""
        self._write("UPDATE chats SET model = ?, settings = ? WHERE id = ?", (model, _dump(settings), chat))

    def keep_draft(self, chat: int, draft: str) -> None:
        self._write("UPDATE chats SET draft = ? WHERE id = ?", (draft, chat))

    def remove(self, chat: int) -> None:
        """Delete a chat and all its messages; one that is not there is no error."""
        self._write("DELETE FROM chats WHERE id = ?", (chat,))

    # ---- messages

    def ask(
        self, chat: int, parent: int | None, text: str, model: str, attachments: tuple[Attachment, ...] = ()
    ) -> tuple[int, int]:
        """Add a question below parent and an empty answer below it, in one step; the ids of both."""
        with told(self.path), transaction(self._connection):
            question = self._insert(chat, parent, "user", text, "", "done", attachments)
            return question, self._insert(chat, question, "assistant", "", model, "writing")

    def answer_again(self, chat: int, question: int, model: str) -> int:
        """Add another version of the answer to a question, empty as yet; its id."""
        with told(self.path), transaction(self._connection):
            return self._insert(chat, question, "assistant", "", model, "writing")

    def grow(self, answer: int, text: str, reasoning: str = "") -> None:
        """Save an answer as far as it is written."""
        self._write(
            "UPDATE messages SET text = ?, reasoning = ?, state = 'writing', writer = ? WHERE id = ?",
            (text, reasoning, os.getpid(), answer),
        )

    def finish(
        self, answer: int, text: str, reasoning: str = "", state: State = "done", figures: Figures | None = None
    ) -> None:
        """Save an answer that will not grow any more."""
        with told(self.path), transaction(self._connection):
            self._connection.execute(
                "UPDATE messages SET text = ?, reasoning = ?, state = ?, figures = ?, writer = NULL WHERE id = ?",
                (text, reasoning, state, _dump(figures or Figures()), answer),
            )
            self._connection.execute(
                "UPDATE chats SET updated = ? WHERE id = (SELECT chat FROM messages WHERE id = ?)",
                (time.time(), answer),
            )

    def tree(self, chat: int) -> Tree:
        """All messages of a chat."""
        rows = self._read(f"{_MESSAGES} WHERE chat = ? ORDER BY id", (chat,))
        return Tree((_message(row) for row in rows), self.get(chat).head)

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

    def speeds(self) -> dict[str, float]:
        """Tokens per second of the last complete answer of each model."""
        rows = self._read(
            "SELECT model, figures FROM messages WHERE id IN"
            " (SELECT max(id) FROM messages WHERE role = 'assistant' AND state = 'done' GROUP BY model)",
            (),
        )
        told = ((str(model), msgspec.json.decode(figures, type=Figures)) for model, figures in rows)
        return {model: (each.completion_tokens - 1) / each.decode for model, each in told if each.decode > 0}

    def find(self, words: str, limit: int = 100) -> list[Hit]:
        """Messages with all these words, the last one perhaps only begun; the best first."""
        query = _query(words)
        if not query:
            return []
        with told(self.path), closing(connect(self.path)) as connection:
            rows = connection.execute(
                "SELECT m.chat, c.title, m.id, m.role, snippet(words, 0, char(2), char(3), '…', ?), m.created"
                " FROM words JOIN messages m ON m.id = words.rowid JOIN chats c ON c.id = m.chat"
                " WHERE words MATCH ? ORDER BY rank, m.id DESC LIMIT ?",
                (_SNIPPET_WORDS, query, limit),
            ).fetchall()
        return [Hit(*row) for row in rows]

    # ---- presets

    def presets(self) -> dict[str, ChatSettings]:
        """The user's own, by name."""
        rows = self._read("SELECT name, settings FROM presets ORDER BY name", ())
        return {str(name): msgspec.json.decode(settings, type=ChatSettings) for name, settings in rows}

    def keep_preset(self, name: str, settings: ChatSettings) -> None:
        self._write("INSERT OR REPLACE INTO presets VALUES (?, ?)", (name, _dump(settings)))

    def remove_preset(self, name: str) -> None:
        self._write("DELETE FROM presets WHERE name = ?", (name,))

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
        now = time.time()
        writer = os.getpid() if state == "writing" else None
        added = self._connection.execute(
            "INSERT INTO messages (chat, parent, role, text, model, attachments, state, writer, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (chat, parent, role, text, model, _dump(attachments), state, writer, now),
        ).lastrowid
        assert added is not None
        self._connection.execute("UPDATE chats SET head = ?, updated = ? WHERE id = ?", (added, now, chat))
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
        with told(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        """Run a statement by itself; the id of the row it added, if it added one."""
        with told(self.path):
            return self._connection.execute(statement, values).lastrowid or 0


def title_of(text: str) -> str:
    """The first words of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rsplit(" ", 1)[0] + "…"


def with_files(text: str, attachments: Iterable[Attachment]) -> str:
    """A message with its files behind it, each in a fence that none of its own lines closes."""
    parts = [text]
    for each in attachments:
        longest = max((len(run) for run in re.findall("`{3,}", each.text)), default=2)
        fence = "`" * (longest + 1)
        parts.append(f"{each.name}:\n{fence}\n{each.text.rstrip()}\n{fence}")
    return "\n\n".join(part for part in parts if part)


_CHATS = "SELECT id, title, model, settings, draft, head, created, updated FROM chats"
_MESSAGES = "SELECT id, chat, parent, role, text, reasoning, model, attachments, state, figures, created FROM messages"


def _chat(row: tuple[Any, ...]) -> Chat:
    id, title, model, settings, *rest = row
    return Chat(id, title, model, msgspec.json.decode(settings, type=ChatSettings), *rest)


def _message(row: tuple[Any, ...]) -> Saved:
    id, chat, parent, role, text, reasoning, model, attachments, state, figures, created = row
    files = msgspec.json.decode(attachments, type=tuple[Attachment, ...])
    return Saved(
        id, chat, parent, role, text, reasoning, model, files, state,
        msgspec.json.decode(figures, type=Figures), created,
    )  # fmt: skip


def _dump(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _query(words: str) -> str:
    """The words as FTS5 takes them: each quoted, so that none is an operator, and the last one a beginning."""
    found = re.findall(r"\w+", words)
    return " ".join(f'"{word}"' for word in found) + "*" if found else ""


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

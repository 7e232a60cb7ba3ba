"""The file that conversations lie in: its tables, numbered migrations, and how it is opened.

Migrations are append-only: a database knows the number of the last one it has seen, and gets the rest when it is
opened.
It knows no chat; what the rows mean is the business of chats.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from squish.errors import StoreError

_BUSY_SECONDS = 5.0

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE chats (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL,
            model TEXT NOT NULL,
            settings TEXT NOT NULL,
            draft TEXT NOT NULL DEFAULT '',
            head INTEGER,
            created REAL NOT NULL,
            updated REAL NOT NULL
        )""",
        """CREATE TABLE messages (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            chat INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
            parent INTEGER REFERENCES messages (id) ON DELETE CASCADE,
            role TEXT NOT NULL,
            text TEXT NOT NULL,
            reasoning TEXT NOT NULL DEFAULT '',
            model TEXT NOT NULL DEFAULT '',
            attachments TEXT NOT NULL DEFAULT '[]',
            state TEXT NOT NULL,
            figures TEXT NOT NULL DEFAULT '{}',
            writer INTEGER,
            created REAL NOT NULL
        )""",
        "CREATE INDEX messages_of_chat ON messages (chat)",
        "CREATE INDEX messages_by_parent ON messages (parent)",
        "CREATE INDEX chats_by_time ON chats (updated)",
        "CREATE INDEX messages_in_writing ON messages (writer) WHERE state = 'writing'",
        "CREATE TABLE presets (name TEXT PRIMARY KEY, settings TEXT NOT NULL)",
        # An answer is in the index from its end on: to index it anew with every piece would cost more than writing it.
        """CREATE VIRTUAL TABLE words USING fts5 (
            text, content = 'messages', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
        )""",
        """CREATE TRIGGER words_added AFTER INSERT ON messages WHEN new.state != 'writing' BEGIN
            INSERT INTO words (rowid, text) VALUES (new.id, new.text);
        END""",
        """CREATE TRIGGER words_left BEFORE UPDATE ON messages WHEN old.state != 'writing' BEGIN
            INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
        END""",
        """CREATE TRIGGER words_changed AFTER UPDATE ON messages WHEN new.state != 'writing' BEGIN
            INSERT INTO words (rowid, text) VALUES (new.id, new.text);
        END""",
        """CREATE TRIGGER words_removed AFTER DELETE ON messages WHEN old.state != 'writing' BEGIN
            INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
        END""",
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, made and brought up to date as needed. Raises StoreError."""
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            path.chmod(0o600)  # what people tell a model is theirs alone
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; a power cut the last
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What goes wrong with the file becomes a StoreError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        hint = "Another program may be holding it, or the disk is full." if "lock" in str(error) else None
        raise StoreError(f"The conversations in {path} cannot be used: {error}.", hint=hint) from error
    except OSError as error:
        raise StoreError(f"The conversations in {path} cannot be used: {error.strerror}.") from error


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == len(MIGRATIONS):
        return
    with transaction(connection):  # another process may be here as well: the second one finds the work done
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{path} was written by a newer Squish (format {version}; this one knows {len(MIGRATIONS)}).",
                hint="Update Squish.",
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])

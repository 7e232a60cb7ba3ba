"""The file that conversations lie in: its tables, numbered migrations, and how it is opened.

Migrations are append-only: a database knows the number of the last one it has seen, and gets the rest when it is
opened.
What the rows mean is the business of rows.py.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from squish.errors import StoreError
from squish.system.sqlite_files import can_write, open_to_read

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
        # An answer is in the index from its end on: to reindex it with every piece would cost more than writing it.
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
    (
        "ALTER TABLE messages ADD COLUMN steps TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE chats ADD COLUMN tools TEXT NOT NULL DEFAULT '{}'",
    ),
    (
        # Of chats that are there already nobody knows whether the user named them, so no model names them again.
        "ALTER TABLE chats ADD COLUMN titled TEXT NOT NULL DEFAULT 'user'",
        "ALTER TABLE chats ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE chats ADD COLUMN archived INTEGER NOT NULL DEFAULT 0",
    ),
    (
        """CREATE TABLE tags (
            chat INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
            tag TEXT NOT NULL,
            PRIMARY KEY (chat, tag)
        ) WITHOUT ROWID""",
        "CREATE INDEX tags_by_name ON tags (tag)",
    ),
    ("CREATE TABLE prompts (name TEXT PRIMARY KEY, text TEXT NOT NULL)",),
    (
        "ALTER TABLE chats ADD COLUMN preset TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE chats ADD COLUMN unread TEXT NOT NULL DEFAULT ''",
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, made and brought up to date as needed; only to be read where nothing can be written.

    Raises StoreError.
    """
    with sqlite_errors(path):
        if not can_write(path):
            return _connect_to_read(path)
        _create(path)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what was saved survives a power cut too
            connection.execute("PRAGMA fullfsync = ON")  # on macOS; elsewhere it changes nothing
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _create(path: Path) -> None:
    """Make an empty file for its owner alone: what people tell a model is theirs. One that is there keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the database as it is. What a killed writer left in the journal beside it is read where sqlite can do so."""
    for options in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None)
        try:
            version = _version(connection)
        except sqlite3.OperationalError:
            connection.close()
            continue
        if version != len(MIGRATIONS):
            connection.close()
            raise StoreError(
                f"{path} has format {version}, this Squish reads {len(MIGRATIONS)}, and it cannot be upgraded here.",
                hint="Open it once where it can be written.",
            )
        return connection
    raise StoreError(f"The conversations in {path} cannot be read.", hint="Check its permissions.")


def damage(path: Path) -> str:
    """What is damaged in the database, in sqlite's words; nothing where it is whole. What a kill left is undone."""
    try:
        with closing(open_to_read(path, _BUSY_SECONDS)) as connection:
            [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else str(found)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # on a full disk sqlite has undone it already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """What sqlite or the file system refuses becomes a StoreError that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        hint = "Another program may be holding it, or the disk is full." if "lock" in str(error) else None
        if "full" in str(error):
            hint = "Make room on its disk."
        if "malformed" in str(error) or "not a database" in str(error):
            hint = "squish doctor says how to go on."
        if "readonly" in str(error):
            hint = f"{path} or its directory cannot be written: check their permissions."
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

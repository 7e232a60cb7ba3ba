"""sqlite's files: which of them can be changed, and what is read of one whose writer was killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from squish.system.sqlite_files import can_write, open_to_read

_NOBODY = 65534


@contextmanager
def _as_a_user() -> Iterator[None]:
    """Root may write everything: where it runs the tests, it is someone else for a moment."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def _numbers(path: Path) -> list[int]:
    with closing(open_to_read(path, 0.0)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


def _make(path: Path, most: int) -> sqlite3.Connection:
    """A database with the numbers from 1."""
    connection = sqlite3.connect(path, isolation_level=None)
    counted = "WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < ?) SELECT n FROM up"
    connection.execute("CREATE TABLE numbers (number)")
    connection.execute(f"INSERT INTO numbers {counted}", (most,))
    return connection


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users may enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize(("file", "directory"), [(0o666, 0o777), (0o444, 0o777), (0o666, 0o555), (0o444, 0o555)])
def test_a_database_can_be_written_where_its_folder_can_too(folder: Path, file: int, directory: int) -> None:
    (place := folder / "home").mkdir()
    path = place / "chats.db"
    _make(path, 1).close()
    path.chmod(file)
    place.chmod(directory)
    with _as_a_user():
        assert can_write(path) == (file == 0o666 and directory == 0o777)
        assert _numbers(path) == [1]
        with closing(open_to_read(path, 0.0)) as connection:
            writes = "INSERT INTO numbers VALUES (2)"
            if can_write(path):
                connection.execute(writes)
            else:
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    connection.execute(writes)
    place.chmod(0o755)


def test_a_database_that_is_not_there_can_be_made_and_is_not_made_to_be_read(tmp_path: Path) -> None:
    assert can_write(tmp_path / "none.db")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_to_read(tmp_path / "none.db", 0.0)
    assert list(tmp_path.iterdir()) == []


def test_of_a_writer_that_was_killed_what_it_had_committed_is_read(tmp_path: Path) -> None:
    path, name = tmp_path / "killed.db", "a %41 ? & # name.db"
    with closing(_make(path, 20_000)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE numbers SET number = number + 20000")  # more than fits: it is in the file already
        assert (tmp_path / "killed.db-journal").stat().st_size
        shutil.copy(path, tmp_path / name)
        shutil.copy(tmp_path / "killed.db-journal", tmp_path / f"{name}-journal")
        connection.execute("ROLLBACK")
    assert path.read_bytes() != (tmp_path / name).read_bytes()
    assert _numbers(tmp_path / name) == list(range(1, 20_001))


def test_who_holds_a_database_is_waited_for_no_longer_than_is_said(tmp_path: Path) -> None:
    path = tmp_path / "held.db"
    with closing(_make(path, 1)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _numbers(path)
        connection.execute("ROLLBACK")
        assert _numbers(path) == [1]

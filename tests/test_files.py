"""Small files are written whole or not at all, and read only where they are files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from squish.config import state
from squish.errors import StoreError
from squish.files import NoLocks, lock, read_regular, write_new, write_whole
from squish.models.layout import Layout
from squish.models.store import Store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "ä")
    write_whole(tmp_path / "a", b"\x00new", durable=False)
    assert read_regular(tmp_path / "a", 4) == b"\x00new"
    write_whole(tmp_path / "a", "#!/bin/sh", mode=0o755)
    assert os.access(tmp_path / "a", os.X_OK)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_file_that_its_owner_closed_to_others_stays_closed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old", mode=0o640)
    path.chmod(0o600)
    write_whole(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Also on a file system without hard links; and nothing is written over."""

    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(os, "fsync", full)
        write_new(tmp_path / "a", "ä")
    assert list(tmp_path.iterdir()) == []
    write_new(tmp_path / "a", "ä")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", "new")
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [("a", "ä")]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device", "link"])
def test_what_is_not_a_regular_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "x"
    listening = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        listening.bind(path.name)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        (tmp_path / "there").write_bytes(b"1")
        path.symlink_to(tmp_path / "there")
    with listening, pytest.raises(OSError, match=r"not a regular file|symbolic link|directory"):
        read_regular(path, 10)
    if kind == "link":
        assert read_regular(path, 10, follow=True) == b"1"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "x", 4)


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems; a store there can be read, and a write to it says why it does not go on."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (tmp_path / "a").open("w") as file, pytest.raises(NoLocks, match="has no locks"):
        lock(file.fileno())
    (tmp_path / "models" / ".locks").mkdir(parents=True)
    (tmp_path / "models" / ".locks" / "swap").touch()
    store = Store(tmp_path / "models")
    assert store.list() == []
    layout = Layout(tmp_path / "models")
    with pytest.raises(StoreError, match="has no locks") as raised, layout.locked("a", "a:1b", wait=True):
        pass
    assert "a local disk" in str(raised.value.hint)
    state.keep(tmp_path, "table", {"a": 1})
    assert state.table(tmp_path, "table") == {"a": 1}


def test_on_macos_a_flush_reaches_the_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, operation: asked.append(operation))
    write_whole(tmp_path / "a", b"x")
    assert asked == [51, 51]  # the file, and the directory that names it


def test_where_a_file_system_knows_no_full_flush_a_plain_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    flushed: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", flushed.append)
    write_whole(tmp_path / "a", b"x")
    assert len(flushed) == 2

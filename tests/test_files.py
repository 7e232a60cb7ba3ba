"""Small files are written whole or not at all, and read only where they are files."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from squish.config import state
from squish.errors import StoreError
from squish.files import (
    NoLocks,
    alone_in,
    lock,
    make_same,
    move_whole,
    open_private,
    open_regular,
    read_regular,
    write_new,
    write_whole,
)
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


@pytest.mark.parametrize("write", [write_whole, write_new])
def test_a_file_that_cannot_even_be_begun_says_why(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError) as raised:
            write(tmp_path / "a", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.errno == errno.EMFILE
    assert list(tmp_path.iterdir()) == []


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


def test_what_is_private_is_made_for_its_owner_alone_and_stays_as_it_was(tmp_path: Path) -> None:
    with open_private(tmp_path / "new", "ab+") as file:
        file.write(b"1")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "old").touch(0o644)
    (tmp_path / "old").chmod(0o644)
    with open_private(tmp_path / "old", "wb") as file:
        file.write(b"2")
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o644
    with open_private(tmp_path / "new", "ab+") as file:
        file.write(b"3")
        file.seek(0)
        assert file.read() == b"13"
    with pytest.raises(FileNotFoundError):
        open_private(tmp_path / "none", "rb")


def test_a_name_may_be_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    for name, write in (("a" * 255, write_whole), ("b" * 255, write_new)):
        write(tmp_path / name, "x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a" * 255, "b" * 255]


def test_a_complete_file_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("scratch", "path"):
        (tmp_path / name).write_text(name)
    move_whole(tmp_path / "scratch", tmp_path / "path")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("path", "scratch")]
    (tmp_path / "other").write_text("other")
    with (tmp_path / "path").open() as before:
        make_same(tmp_path / "path", tmp_path / "other", tmp_path / "free")
        assert before.read() == "scratch"
    assert (tmp_path / "path").samefile(tmp_path / "other")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "path"]


def test_what_is_made_durable_is_flushed_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave the name of a file without its content."""
    seen: list[tuple[str, list[str]]] = []

    def fsync(descriptor: int) -> None:
        flushed = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((flushed, sorted(each.name for each in tmp_path.iterdir() if each.name == "a")))

    monkeypatch.setattr(os, "fsync", fsync)
    whole = [("file", []), ("folder", ["a"])]
    for write in (write_whole, write_new):
        write(tmp_path / "a", "x")
        assert seen == whole
        (tmp_path / "a").unlink()
        seen.clear()
    (tmp_path / "scratch").touch()
    move_whole(tmp_path / "scratch", tmp_path / "a")
    assert seen == whole
    seen.clear()
    write_whole(tmp_path / "a", "x", durable=False)
    assert seen == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_is_taken_alone_or_by_all_who_only_read(tmp_path: Path, shared: bool) -> None:
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("w") as second:
        lock(first.fileno(), shared=shared)
        if shared:
            lock(second.fileno(), shared=True, wait=False)
        else:
            with pytest.raises(BlockingIOError):
                lock(second.fileno(), shared=True, wait=False)
            with pytest.raises(BlockingIOError):
                lock(second.fileno(), wait=False)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_only_what_says_so_is_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (tmp_path / "a").open("w") as file, pytest.raises(OSError) as raised:
        lock(file.fileno())
    assert raised.value.errno == code
    assert isinstance(raised.value, NoLocks) == (code != errno.EIO)


def test_a_folder_is_one_processs_at_a_time_and_free_again_afterwards(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        with alone_in(tmp_path), pytest.raises(BlockingIOError):
            lock(other, wait=False)
        lock(other, wait=False)
    finally:
        os.close(other)


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass


def test_a_file_is_read_up_to_its_limit_and_by_a_link_only_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "x", 4) == b"1234"
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"1234"
        assert not os.get_inheritable(file.fileno())
    with pytest.raises(OSError, match="it is a symbolic link") as raised:
        read_regular(tmp_path / "link", 4)
    assert raised.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")

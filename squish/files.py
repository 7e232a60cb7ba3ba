"""Reading and writing small files safely: a write is there whole or not at all, a read never waits for a pipe.

It knows neither formats nor what a file is for. Errors are OSErrors; who calls knows what to say of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20


def _always() -> None:
    """Nobody can call this off."""


class NoLocks(OSError):
    """The file system has no locks, as some network file systems."""


def write_whole(path: Path, content: bytes | str, *, durable: bool = True, mode: int | None = None) -> None:
    """Put content into a file by writing another one and renaming it: readers see the old content or the new.

    durable: it is on the disk when this returns, also after a power cut. mode: its permissions; without it those of
    the file before it, or the umask's. The directory must exist.
    """
    scratch = _scratch_of(path)
    try:
        if mode is None:
            with suppress(FileNotFoundError):
                mode = stat.S_IMODE(path.stat().st_mode)
        _fill(scratch, content, durable, mode)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def write_new(path: Path, content: bytes | str, proceed: Callable[[], None] = _always) -> None:
    """Make a file whole and durably, or not at all. Raises FileExistsError where its name is taken.

    proceed: called between pieces of the content and before the file appears; what it raises calls everything off.
    """
    scratch = _scratch_of(path)
    try:
        _fill(scratch, content, True, None, proceed)
        proceed()
        try:
            path.hardlink_to(scratch)
        except FileExistsError:
            raise
        except OSError:  # a file system without links, such as that of a memory card; a kill can leave it empty there
            path.touch(exist_ok=False)
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(path.parent)


def _scratch_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")


def _fill(
    scratch: Path, content: bytes | str, durable: bool, mode: int | None, proceed: Callable[[], None] = _always
) -> None:
    whole = memoryview(content.encode() if isinstance(content, str) else content)
    with scratch.open("xb") as file:
        for start in range(0, len(whole), _PIECE):
            proceed()
            file.write(whole[start : start + _PIECE])
        if mode is not None and mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), mode)
        if durable:
            file.flush()
            flush(file.fileno())


def open_private(path: Path, mode: str) -> BinaryIO:
    """A binary file as open() opens it; one that is made is for its owner alone."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))  # type: ignore[return-value]


def move_whole(scratch: Path, path: Path) -> None:
    """Make a file that is complete the one at path, durably."""
    with scratch.open("rb") as file:
        flush(file.fileno())
    scratch.replace(path)
    sync_directory(path.parent)


def make_same(path: Path, source: Path, scratch: Path) -> None:
    """Make path another name of source, by one rename; whoever has the old file open keeps it.

    scratch: a name on the same file system that is free.
    """
    scratch.hardlink_to(source)
    scratch.replace(path)


def sync_directory(directory: Path) -> None:
    """Flush a directory's own entries to disk, and with it whatever the drive still held back."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Bring a file onto the medium. On macOS fsync ends at the drive's own cache; F_FULLFSYNC goes on from there."""
    if (full := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        try:
            fcntl.fcntl(descriptor, full)
            return
        except OSError:  # a network or foreign file system that has no such thing
            pass
    os.fsync(descriptor)


def lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Take the lock of an open file or directory among all processes, until it is closed.

    Raises BlockingIOError where it is taken and wait is False, and NoLocks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            raise NoLocks(error.errno, "its file system has no locks; a local disk has") from None
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process does this with a folder. Where there are no locks, nobody waits. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(NoLocks):
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """A regular file, open for reading. Of a pipe, a device or a socket nothing is waited for: it is an OSError.

    follow: whether a symbolic link may stand in its place.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.EINVAL, "it is a symbolic link", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.EINVAL, "it is not a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123  a descriptor, not a path


def read_regular(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """The content of a regular file of at most limit bytes. follow: as for open_regular."""
    with open_regular(path, follow=follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return content

"""This machine's disk: its free space, and long work on files that can be stopped.

Reading, copying and hashing happen in a thread, in slices, so that cancelling ends them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event
from typing import Concatenate, ParamSpec, TypeVar

from squish import figures
from squish.errors import StoreError
from squish.system.host import HOST

CHUNK = 1024 * 1024
SEEN = 16 * CHUNK
_RESERVE, _LEAST_RESERVE = 256 * 1024 * 1024, 16 * 1024 * 1024

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Stopped(Exception):
    """Work in a thread that was asked to end has ended."""


async def in_thread(
    work: Callable[Concatenate[Event, Given], Result], *args: Given.args, **kwargs: Given.kwargs
) -> Result:
    """What work(stop, …) gives, in a thread. Cancelling sets `stop`, upon which the work raises Stopped."""
    stop = Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({running})  # what it works on must not be closed under it
        if not running.cancelled():
            running.exception()  # looked at, so that nobody complains
        raise


def require_not(stop: Event) -> None:
    if stop.is_set():
        raise Stopped


def hash_file(stop: Event, path: Path, seen: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of a file. seen: gets how many bytes are read, now and then, in this thread.

    Raises OSError, Stopped.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for done in count(CHUNK, CHUNK):
            if not (data := file.read(CHUNK)):
                break
            require_not(stop)
            digest.update(data)
            if done % SEEN == 0:
                seen(done)
    return digest.hexdigest()


def copy_file(stop: Event, source: Path, target: Path, seen: Callable[[int], None] = lambda done: None) -> str:
    """Copy a file; its SHA-256. seen: as for `hash_file`. Raises StoreError, Stopped."""
    digest = hashlib.sha256()
    try:
        with source.open("rb") as here, target.open("wb") as there:
            for done in count(CHUNK, CHUNK):
                if not (data := here.read(CHUNK)):
                    break
                require_not(stop)
                digest.update(data)
                there.write(data)
                if done % SEEN == 0:
                    seen(done)
    except OSError as error:
        raise StoreError(f"{source} cannot be copied: {error.strerror or error}.") from error
    return digest.hexdigest()


def link_file(stop: Event, source: Path, target: Path, seen: Callable[[int], None] = lambda done: None) -> str:
    """Make target another name of a file, or a link to it from another file system; its SHA-256.

    seen: as for `hash_file`.
    Raises StoreError, Stopped.
    """
    try:
        try:
            target.hardlink_to(source)
        except OSError:  # another file system, one without links, or a file of somebody else
            target.symlink_to(source)
        return hash_file(stop, target, seen)
    except OSError as error:
        raise StoreError(f"{source} cannot be linked: {error.strerror or error}.") from error


def occupied(directory: Path) -> int:
    """Bytes of disk that the files below a directory take; a hole in one takes none."""
    found = [each.stat() for each in directory.rglob("*") if each.is_file()]
    return sum(min(each.st_size, each.st_blocks * 512) for each in found)


def require_space(directory: Path, size: int) -> None:
    """Raises StoreError when the disk under a directory has no room for size more bytes and a reserve.

    The reserve is a tenth of the size, from 16 to 256 MiB.
    """
    free = HOST.free_space(directory)
    needed = size + min(_RESERVE, max(_LEAST_RESERVE, size // 10))
    if size > 0 and needed > free:
        raise StoreError(
            f"The disk has {figures.size(free)} free; this needs {figures.size(needed)}.",
            hint="Free some space, or set SQUISH_CACHE_DIR to a directory on another disk.",
        )

"""Whether a model's files are what its manifest says, byte for byte; what was found out is not read again.

A file that has not changed since, by its inode, size and time, keeps the hash that it had. What is remembered is a
cache: without it files are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import msgspec

from squish.download.disk import hash_file, require_not
from squish.files import read_regular, write_whole
from squish.models.manifest import Installed, StoredFile

_LARGEST = 16 << 20

Seen = dict[str, tuple[int, int, int, str]]  # path → inode, size, time of change in ns, SHA-256


def first_changed(
    stop: Event,
    installed: Installed,
    files: Sequence[StoredFile],
    memory: Path,
    seen: Callable[[int], None] = lambda done: None,
) -> str | None:
    """The first of a model's files that is gone or has another hash than it should; None when all are right.

    memory: a directory for what is remembered. seen: gets the bytes done so far, in this thread. Raises Stopped.
    """
    place = memory / f"{installed.path.name}.json"
    known = _recall(place)
    found: Seen = {}
    done = 0
    try:
        for file in files:
            require_not(stop)
            path = installed.path / file.path
            try:
                about = path.stat()
                before = known.get(file.path)
                now = (about.st_ino, about.st_size, about.st_mtime_ns)
                if before is not None and before[:3] == now:
                    digest = before[3]
                else:
                    digest = hash_file(stop, path, lambda count, start=done: seen(start + count))  # type: ignore[misc]
            except OSError:
                return file.path
            found[file.path] = (*now, digest)
            if digest != file.sha256:
                return file.path
            done += file.size
            seen(done)
        return None
    finally:
        if found != known:
            _remember(place, known | found)


def _recall(place: Path) -> Seen:
    try:
        return msgspec.json.decode(read_regular(place, _LARGEST), type=Seen)
    except (OSError, msgspec.MsgspecError, ValueError):
        return {}


def _remember(place: Path, seen: Seen) -> None:
    with suppress(OSError):  # a disk that takes no files: they are read again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, msgspec.json.encode(seen), durable=False)

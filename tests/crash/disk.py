"""A disk as it is after a crash: what a journal of operations leaves there, if they end at any one of them.

Three ways of ending:

    killed    the process is gone; the system has everything that it was given
    ordered   the power is gone; names are as they were, but content that was not flushed is not there
    lazy      the power is gone; names are as at the last flush of anything, and content as it was flushed

The last two are what journaling file systems (ext4, XFS, APFS) leave: a flush of any file brings all earlier changes of
names with it, and nothing brings content but a flush of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Ending = Literal["killed", "ordered", "lazy"]
ENDINGS: tuple[Ending, ...] = ("killed", "ordered", "lazy")


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the journal. other: a second path, an offset or a length, by the operation."""

    name: str
    path: str
    other: str
    data: bytes


def read(journal: Path) -> list[Operation]:
    found = []
    with journal.open("rb") as file:
        while line := file.readline():
            name, path, other, length = line.decode().rstrip("\n").split("\t")
            found.append(Operation(name, path, other, file.read(int(length))))
    return found


@dataclass(slots=True, eq=False)
class Content:
    """A file's bytes as the system has them, and as they were when they were last flushed."""

    now: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""

    def write(self, at: int, data: bytes) -> None:
        self.now.extend(bytes(max(0, at - len(self.now))))
        self.now[at : at + len(data)] = data

    def truncate(self, length: int) -> None:
        del self.now[length:]
        self.now.extend(bytes(length - len(self.now)))


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, and where it leads."""

    target: str


class Disk:
    """Names below a root and what they name; None is a directory."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, Content | Link | None] = {}
        self._flushed_names: dict[str, Content | Link | None] = {}

    def apply(self, operation: Operation) -> None:
        path, other = operation.path, operation.other
        match operation.name:
            case "write":
                self._file(path).write(int(other), operation.data)
            case "create":
                self._file(path)
            case "truncate":
                self._file(path).truncate(int(other))
            case "mkdir":
                self._names[path] = None
            case "link":
                self._names[other] = self._file(path)
            case "symlink":
                self._names[path] = Link(other)
            case "remove":
                self._names.pop(path, None)
            case "rename":
                self._rename(path, other)
            case "sync":
                if isinstance(content := self._names.get(path), Content):
                    content.flushed = bytes(content.now)
                self._flushed_names = dict(self._names)

    def leave(self, ending: Ending, target: Path) -> None:
        """Write what is left below another root."""
        names = self._flushed_names if ending == "lazy" else self._names
        for path in sorted(names):
            place = target / path.removeprefix(self._root).lstrip("/")
            content = names[path]
            if content is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                place.symlink_to(content.target.replace(self._root, str(target), 1))
                continue
            place.write_bytes(content.now if ending == "killed" else content.flushed)

    def _file(self, path: str) -> Content:
        content = self._names.get(path)
        if not isinstance(content, Content):
            content = self._names[path] = Content()
        return content

    def _rename(self, old: str, new: str) -> None:
        for gone in [name for name in self._names if name == new or name.startswith(f"{new}/")]:
            del self._names[gone]
        for name in [name for name in self._names if name == old or name.startswith(f"{old}/")]:
            self._names[new + name.removeprefix(old)] = self._names.pop(name)


def crashes(journal: Path, root: str) -> Iterator[tuple[int, Operation, Disk]]:
    """The disk after each operation, to be looked at before the next is asked for."""
    disk = Disk(root)
    for number, operation in enumerate(read(journal), 1):
        disk.apply(operation)
        yield number, operation, disk

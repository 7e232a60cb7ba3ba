"""A folder that goes along with a message: its text files and documents, and what is left out of it and why. It
follows no link.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from squish.attachments import gitignore, mentions
from squish.attachments.gitignore import Pattern
from squish.attachments.limits import MAX_ALL, MAX_DOCUMENTS, MAX_ENTRIES, MAX_FILES, MAX_TEXT
from squish.attachments.mentions import Mention
from squish.attachments.text_files import NotText, decode
from squish.chats.messages import Attachment
from squish.errors import InvalidInput
from squish.files import read_regular
from squish.text import is_plain, is_utf8

_NAMED = 8


@dataclass(slots=True)
class Folder:
    """What would be sent of a folder, and how many names are left out by their reason, in words.

    documents: those that are still to be read. not_read: those that cannot be, by their names, and why.
    """

    name: str
    files: list[Attachment] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    size: int = 0
    documents: list[Mention] = field(default_factory=list)
    not_read: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def add(self, name: str, text: str) -> None:
        self.files.append(Attachment(name, text))
        self.size += len(text.encode())

    @property
    def without(self) -> str:
        """`2 hidden, 1 empty; not read: a.pdf (it has no text)`; empty where nothing is left out."""
        counted = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        names = [f"{name} ({reason})" for name, reason in self.not_read.items()]
        more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
        named = f"not read: {', '.join(names[:_NAMED] + more)}" if names else ""
        return "; ".join(part for part in (counted, named) if part)

    def require_files(self) -> None:
        """Raises InvalidInput where there is nothing to send."""
        if not self.files:
            why = f" ({self.without})" if self.without else ""
            raise InvalidInput(f"{self.name} has no text files or documents that can be read{why}.")


def read(path: Path, name: str) -> Folder:
    """The text files of a folder with everything below it, sorted, and the documents to be read. Hidden files, files
    that `.gitignore` names and files that are neither are left out.

    name: how the message names it; files are named behind it. Raises InvalidInput where it holds too much or nothing.
    """
    folder = Folder(name)
    repository = _repository(path)
    top = path.relative_to(repository).as_posix() + "/" if path != repository else ""
    try:
        _Walk(folder, top).into(path, top, _of_parents(path, repository))
    except RecursionError:
        raise InvalidInput(f"{name} has too many folders within each other.") from None
    if not folder.documents:
        folder.require_files()
    return folder


class _Walk:
    """top: where the folder is in its repository, as `a/b/` or empty; patterns are for paths from there."""

    def __init__(self, folder: Folder, top: str) -> None:
        self._folder, self._top, self._seen = folder, top, 0

    def into(self, directory: Path, at: str, known: tuple[Pattern, ...]) -> None:
        """at: where the directory is in the repository, as `a/b/` or empty."""
        known += _read_patterns(directory, at)
        try:
            entries = sorted(os.scandir(directory), key=lambda each: each.name)
        except OSError:
            self._folder.leave_out("unreadable")
            return
        for entry in entries:
            self._seen += 1
            if self._seen > MAX_ENTRIES:
                raise InvalidInput(f"{self._folder.name} holds more than {MAX_ENTRIES:,} names; name a smaller folder.")
            is_directory = entry.is_dir(follow_symlinks=False)
            path = at + entry.name
            if not is_utf8(entry.name):
                self._folder.leave_out("unreadable")
            elif not is_plain(entry.name):
                self._folder.leave_out("with control characters in their names")
            elif entry.name.startswith("."):
                self._folder.leave_out("hidden")
            elif gitignore.is_ignored(path, is_directory, known):
                self._folder.leave_out("ignored")
            elif entry.is_symlink():
                self._folder.leave_out("links")
            elif is_directory:
                self.into(Path(entry.path), f"{path}/", known)
            else:
                self._take(Path(entry.path), path.removeprefix(self._top))

    def _take(self, path: Path, name: str) -> None:
        folder = self._folder
        if found := mentions.document(f"{folder.name.rstrip('/')}/{name}", path):
            self._take_document(found)
            return
        try:
            text = decode(read_regular(path, MAX_TEXT))
        except NotText:
            folder.leave_out("not text")
            return
        except OSError:
            folder.leave_out("too large or unreadable")
            return
        if not text.strip():
            folder.leave_out("empty")
            return
        folder.add(f"{folder.name.rstrip('/')}/{name}", text)
        if len(folder.files) > MAX_FILES:
            raise InvalidInput(f"{folder.name} has more than {MAX_FILES} text files; name a smaller folder.")
        if folder.size > MAX_ALL:
            raise InvalidInput(f"{folder.name} has more than {MAX_ALL >> 10} KiB of text; name a smaller folder.")

    def _take_document(self, found: Mention) -> None:
        if found.problem:
            self._folder.not_read[found.name] = found.problem
        elif len(self._folder.documents) == MAX_DOCUMENTS:
            self._folder.not_read[found.name] = f"only {MAX_DOCUMENTS} documents of a folder are read"
        else:
            self._folder.documents.append(found)


def _repository(path: Path) -> Path:
    """The folder of the repository that this one is in; itself where there is none."""
    return next((each for each in (path, *path.parents) if (each / ".git").exists()), path)


def _of_parents(path: Path, repository: Path) -> tuple[Pattern, ...]:
    """The patterns of the folders between."""
    found: tuple[Pattern, ...] = ()
    between = [each for each in path.parents if each.is_relative_to(repository)] if path != repository else []
    for each in reversed(between):
        found += _read_patterns(each, each.relative_to(repository).as_posix() + "/" if each != repository else "")
    return found


def _read_patterns(directory: Path, at: str) -> tuple[Pattern, ...]:
    try:
        return gitignore.patterns(decode(read_regular(directory / ".gitignore", MAX_TEXT)), at)
    except (OSError, NotText):
        return ()

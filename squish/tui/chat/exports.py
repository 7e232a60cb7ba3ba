"""Writes the branch of a chat that is shown to a file, in a thread: a long one takes a while, a slow disk longer.

Knows no widget.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squish import figures
from squish.chats.chats import Chats
from squish.errors import InvalidInput, SquishError, StoreError
from squish.files import write_new
from squish.text import clean
from squish.tui.background import Background
from squish.tui.chat.stopwatch import Stopwatch

if TYPE_CHECKING:
    from squish.chats.messages import Chat, Saved

_ELSEWHERE = "Choose another place: /export FILE."


class _Stopped(Exception):
    """Nobody waits for the file any more."""


class _Export:
    """One file that is being written. format: of its name."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path, self.watch, self.stopped = path, Stopwatch(clock), False
        from squish.chats.export import format_of

        self._format = format_of(path)

    def proceed(self) -> None:
        """Called in the thread, between pieces."""
        if self.stopped:
            raise _Stopped

    def write(self, chat: Chat, branch: Sequence[Saved]) -> None:
        from squish.chats.export import export

        text = export(chat, branch, self._format)
        write_new(self.path, text, self.proceed)


class Exports:
    """The files that are being written. clock: gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: list[_Export] = []

    async def write(self, chats: Chats, id: int, name: str) -> Path:
        """Write to a file that is not there yet; its absolute path. name: empty takes one from the title.

        Whoever is cancelled leaves no file. Raises InvalidInput for an ending that is not known, StoreError.
        """
        from squish.chats.export import file_name

        chat = chats.get(id)
        begun = _Export(Path(name or file_name(chat)).expanduser().absolute(), self._clock)
        if begun.path.exists():
            raise _refused(begun.path, FileExistsError())
        self._running.append(begun)
        try:
            await asyncio.to_thread(begun.write, chat, chats.branch(id))
        except OSError as error:
            raise _refused(begun.path, error) from error
        finally:
            begun.stopped = True
            self._running.remove(begun)
        return begun.path

    @property
    def names(self) -> list[str]:
        """Of the files that are not complete yet, safe to show."""
        return [clean(each.path.name) for each in self._running]

    def one_line(self) -> Background:
        """What the status strip says: `exporting 3 s chat.md`."""
        if not self._running:
            return Background()
        longest = max(each.watch.seconds for each in self._running)
        return Background(f"exporting {figures.waited(longest)}", ", ".join(self.names))


def _refused(path: Path, error: OSError) -> SquishError:
    """What to say of a file that could not be written, and what to do."""
    if isinstance(error, FileExistsError):
        return InvalidInput(f"{path} already exists; it was not touched.", hint="Choose another name: /export FILE.")
    folder = path.parent
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if not folder.is_dir():
            return StoreError(f"The folder {folder} does not exist.", hint=_ELSEWHERE)
        case errno.ENOSPC | errno.EDQUOT:
            return StoreError(
                f"The disk of {folder} is full; nothing was written.", hint=f"Free some space. {_ELSEWHERE}"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreError(f"Nothing can be written in {folder}: {error.strerror}.", hint=_ELSEWHERE)
        case _:
            return StoreError(f"{path} cannot be written: {error.strerror}.", hint=_ELSEWHERE)

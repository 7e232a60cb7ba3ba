"""One file of the prefix cache on its way to the disk, on a thread of its own, no faster than the MLX thread allows.

While rows run, their steps hand out a number of bytes each; a disk that is slow, or hangs, keeps nobody waiting. The
thread sees bytes only: all of MLX has happened before, and the arrays go back to MLX's thread to be let go of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from squish.worker.cache.cache_file import CacheImage
from squish.worker.cache.disk import DiskTier, NewFile, Stored

PIECE = 1 << 20  # bytes that are hashed and written at once, and at most with each step while rows run


class _Abandoned(OSError):
    """The file is not wanted any more."""


class Saving:
    """new: which file; layout: its content. done: called on the other thread at the end, however it ends."""

    def __init__(self, disk: DiskTier, new: NewFile, layout: CacheImage, done: Callable[[], None]) -> None:
        self.new = new
        self.stored: Stored | None = None
        self._disk = disk
        self._layout = layout
        self._done = done
        self._change = threading.Condition()
        self._allowed: int | None = 0
        self._abandoned = False
        self.ended = False  # stored is then the file, None where there is none
        self._thread = threading.Thread(target=self._run, name="prefix cache", daemon=True)
        self._thread.start()

    def allow(self, nbytes: int | None) -> None:
        """How many bytes may be written from now on; None is as many as there are."""
        with self._change:
            self._allowed = nbytes
            self._change.notify()

    def abandon(self) -> None:
        """Leave nothing on the disk, as soon as the thread comes to it."""
        with self._change:
            self._abandoned = True
            self._change.notify()

    def wait(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))

    def _run(self) -> None:
        try:
            self.stored = self._disk.write(self.new, self._layout.nbytes, self._as_allowed())
        finally:
            self.ended = True
            self._done()

    def _as_allowed(self) -> Iterator[memoryview]:
        for piece in self._layout.pieces(PIECE):
            with self._change:
                while not self._abandoned and self._allowed is not None and self._allowed < len(piece):
                    self._change.wait()
                if self._abandoned:
                    raise _Abandoned
                if self._allowed is not None:
                    self._allowed -= len(piece)
            yield piece

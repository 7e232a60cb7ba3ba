"""Output to a terminal that has gone: whoever writes and ends does not wait for it."""

from __future__ import annotations

import errno
import io

import pytest

from squish.tui.terminal.guard import SteadyWriter


class Gone(io.StringIO):
    """A terminal that goes: so many writes and flushes still succeed."""

    def __init__(self, writes: int, flushes: int) -> None:
        super().__init__()
        self.writes, self.flushes = writes, flushes

    def write(self, text: str, /) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)

    def flush(self) -> None:
        self.flushes -= 1
        if self.flushes < 0:
            raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(("writes", "flushes"), [(0, 0), (1, 0), (1, 1), (9, 9)])
def test_the_writer_ends_wherever_its_terminal_goes(writes: int, flushes: int) -> None:
    writer = SteadyWriter(Gone(writes, flushes))
    writer.daemon = True
    writer.start()
    writer.write("something to show")
    writer.stop()  # which waits for its end
    assert not writer.is_alive()

"""What would be cut short if the program ended now, in words for the question whether it may; and that it does end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from squish.text import clean

if TYPE_CHECKING:
    from squish.tui.downloads import Transfer

PATIENCE = 12.0
"""Seconds for one thing to end: more than a server and its answers have."""
_TRIES = 8


class CutShort(NamedTuple):
    """A heading, and a sentence for each kind of work."""

    title: str
    text: str


def cut_short(
    answers: int,
    downloads: Sequence[Transfer],
    clients: int,
    key: Callable[[str], str],
    exports: Sequence[str] = (),
) -> CutShort | None:
    """answers: that are being written here; clients: requests of other programs; key: of an action; exports: files that
    chats are being written to. None: nothing."""
    found = list[CutShort]()
    if answers == 1:
        found.append(CutShort("An answer is being written", "It ends here; what is written so far is kept."))
    elif answers:
        title = f"{answers} answers are being written"
        found.append(CutShort(title, "They end here; what is written so far is kept."))
    imports = [each for each in downloads if each.is_import]
    fetched = [each for each in downloads if not each.is_import]
    if fetched:
        title = "A download is running" if len(fetched) == 1 else f"{len(fetched)} downloads are running"
        where = f"{key('app.downloads')} {key('downloads.resume')}"
        text = f"{_names(fetched)}: not complete. The part downloaded so far is kept; {where} resumes it next time."
        found.append(CutShort(title, text))
    if imports:
        title = "An import is running" if len(imports) == 1 else f"{len(imports)} imports are running"
        found.append(CutShort(title, f"{_names(imports)}: not complete. It has to be started again next time."))
    if exports:
        title = "A chat is being exported" if len(exports) == 1 else f"{len(exports)} chats are being exported"
        found.append(CutShort(title, f"{', '.join(exports)}: not complete. No file is left of it."))
    if clients:
        title = "Another program is being answered" if clients == 1 else f"{clients} requests are being answered"
        found.append(CutShort(title, "The server ends with this program, and other programs get an error."))
    if len(found) < 2:
        return found[0] if found else None
    return CutShort("Work in progress", "\n".join(f"{each.title}. {each.text}" for each in found))


async def insist(end: Callable[[], Awaitable[None]]) -> None:
    """End something; what that waits for is broken off after a while, and what it waits for then, and so on.

    A screen that is in the middle of something can keep the program for long; the terminal is in order by then.
    """
    for _ in range(_TRIES):
        with _breaking_off():
            await end()
            return


@contextmanager
def _breaking_off() -> Iterator[None]:
    loop, task, broken = asyncio.get_running_loop(), asyncio.current_task(), 0
    assert task is not None
    timer = loop.call_later(PATIENCE, lambda: break_off())

    def break_off() -> None:
        nonlocal broken, timer
        broken += task.cancel()
        timer = loop.call_later(PATIENCE, break_off)

    try:
        yield
    except asyncio.CancelledError:
        if not broken:
            raise
    finally:
        timer.cancel()
        for _ in range(broken):
            task.uncancel()


def _names(transfers: Sequence[Transfer]) -> str:
    return ", ".join(clean(each.id) for each in transfers)

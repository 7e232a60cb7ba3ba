"""Server-sent events, read from bytes as they arrive. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from squish.mcp.wire import LARGEST
from squish.text import whole

_LINE_END = re.compile(rb"\r\n|\r|\n")


class EventTooLarge(Exception):
    """An event has more than LARGEST bytes."""


@dataclass(frozen=True, slots=True)
class Event:
    """id: where a broken stream can be taken up again. retry: milliseconds that the server wants waited before that."""

    data: bytes
    id: str = ""
    retry: int | None = None


class EventReader:
    """Bytes in, events out. An event without data is one too: it may carry an id."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0  # bytes at the beginning of those that hold no end of a line
        self._data: list[bytes] = []
        self._size = 0
        self._id = ""
        self._retry: int | None = None
        self._named = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Raises EventTooLarge."""
        self._held += piece
        start = 0
        for match in _LINE_END.finditer(self._held, self._searched):
            if match[0] == b"\r" and match.end() == len(self._held):
                break  # a line feed may follow
            line, start = bytes(self._held[start : match.start()]), match.end()
            if line:
                self._take(line)
            elif self._named:
                yield self._event()
        del self._held[:start]
        self._searched = max(len(self._held) - 1, 0)  # the last byte may be half an end
        if self._size + len(self._held) > LARGEST:
            raise EventTooLarge

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        self._named = self._named or name in (b"data", b"id", b"retry")
        match name:
            case b"data":
                self._data.append(value)
                self._size += len(value)
            case b"id":
                self._id = value.decode(errors="replace")
            case b"retry":
                self._retry = whole(value.decode(errors="replace"))

    def _event(self) -> Event:
        event = Event(b"\n".join(self._data), self._id, self._retry)
        self._data, self._size, self._named, self._retry = [], 0, False, None
        return event

"""The server that the app is connected to, as the screens show it: whether it answers, and its machine's memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from squish.errors import SquishError
from squish.tui.background import Background
from squish.tui.memory_readings import Memory, MemoryReadings
from squish.tui.server.api_server import State

if TYPE_CHECKING:
    from squish.remote.connected import Connected


class ConnectedServer:
    """It is neither started nor stopped here, and its log is not ours to read."""

    ours = False
    host, port = "", 0

    def __init__(self, backend: Connected) -> None:
        self._backend = backend
        self.url = backend.url
        self.log, self.lines_seen = deque[str](), 0

    @property
    def state(self) -> State:
        return "lost" if self._backend.sessions.lost else "connected"

    @property
    def error(self) -> SquishError | None:
        return self._backend.sessions.lost

    @property
    def about(self) -> str:
        """What answers there, and what it would not do last."""
        failed = self._backend.sessions.failed
        return f"{self._backend.program} · {failed.message}" if failed else self._backend.program

    def one_line(self) -> Background:
        lost = self.error is not None
        return Background(f"{'✕' if lost else '⇄'} {self._backend.name}", lost=lost)

    def start(self) -> None:
        """Nothing of it is started here."""

    def stop(self) -> None:
        """Nothing of it is stopped here."""

    def next_port(self) -> None:
        """Its port is not chosen here."""

    async def close(self) -> None:
        """It goes on."""


class ServerReadings(MemoryReadings):
    """Memory of the server's machine, as it said last; the numbers of its processes mean nothing here."""

    def __init__(self, backend: Connected) -> None:
        self._sessions = backend.sessions

    def memory(self) -> Memory | None:
        found = self._sessions.memory
        return Memory(found.used, found.total) if found else None

    def process_memory(self, pid: int) -> int | None:
        return None

"""What a client needs of the way to a server, and the log that the way writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from squish.errors import McpError
from squish.text import clean

Receive = Callable[[bytes], None]
Ended = Callable[[McpError], None]

LOG_LIMIT = 1 << 20
"""Bytes that one connection may write into the log; what comes after them is not kept."""


class Transport(Protocol):
    """A way to one server. `start` comes first, `close` last."""

    async def start(self, receive: Receive, ended: Ended) -> None:
        """Reach the server. receive: gets every message that arrives. ended: once, when no more can arrive.

        Raises McpError, ConfigError.
        """

    async def send(self, message: bytes, headers: Mapping[str, str], *, asks: bool) -> None:
        """Put a message on its way. headers: what says the same again where the way has headers.

        asks: an answer is expected. Raises McpError where there is none to be expected any more.
        """

    def use_version(self, version: str, *, stateless: bool) -> None:
        """The version of the protocol that was agreed upon."""

    async def close(self, *, at_once: bool = False) -> None:
        """End the connection, and what runs for it. at_once: it gets no time to end by itself."""


class ServerLog:
    """What a server writes to stderr, and what went wrong with it, in a file that only its owner reads."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self._written = path, name, 0
        self._failed = False

    def write(self, text: str) -> None:
        """One or more lines; a file that cannot be written is done without."""
        if self._failed or self._written > LOG_LIMIT:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"{stamp} {self._name}: {clean(line)}\n" for line in text.splitlines() if line.strip())
        self._written += len(lines)
        if self._written > LOG_LIMIT:
            lines += f"{stamp} {self._name}: more than {LOG_LIMIT:,} bytes; the rest is left out\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.exists() and self._path.stat().st_size > 4 * LOG_LIMIT
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
            with os.fdopen(os.open(self._path, flags, 0o600), "w", encoding="utf-8", errors="replace") as file:
                file.write(lines)
        except OSError:
            self._failed = True

"""Ports for programs that cannot choose one by themselves."""

from __future__ import annotations

import random
import socket


def own_port() -> int:
    """A free port that no other test gets by chance: Linux hands out those from 32768 on, and macOS from 49152."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port

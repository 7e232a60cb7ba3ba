"""Ports for programs that cannot choose one by themselves."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack


def own_port() -> int:
    """A free port that no other test gets by chance: Linux hands out those from 32768 on, and macOS from 49152."""
    return own_ports(1)[0]


def own_ports(count: int) -> list[int]:
    """As many of them, each another."""
    ports = list[int]()
    with ExitStack() as taken:
        while len(ports) < count:
            port = random.SystemRandom().randrange(20_000, 32_000)
            try:
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports.append(port)
    return ports

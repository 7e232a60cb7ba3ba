"""What can be chosen about one server: its address, who may use it from a browser, how long it waits for whom."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. grace: in which an error of the engine still gets a status of its own, long enough for a small model to
    load; comments: silence after which one is sent. Proxies give up after 30 at the earliest."""

    grace: float = 10.0
    comments: float = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a slow client is borne with, in seconds, and how many connections are held.

    header: from its first byte to its last. body: without a byte; and on the whole `body` and a second for every
    `body_rate` bytes. send: without reading on. connections: more than these are refused at once.
    """

    header: float = 20.0
    body: float = 60.0
    body_rate: float = 1024.0
    send: float = 60.0
    connections: int = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """port 0 takes a free one. cors_origins: lower-case origins whose pages may use the server; "*" is any."""

    host: str = "127.0.0.1"
    port: int = 0
    cors_origins: tuple[str, ...] = ()
    timing: Timing = field(default_factory=Timing)
    patience: Patience = field(default_factory=Patience)

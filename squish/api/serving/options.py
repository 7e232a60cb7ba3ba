"""What can be chosen about one server: its address, who may use it from a browser, its timeouts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, for streams. grace: in which an error of the engine has a status of its own, once the model is loaded.
    loading: in which a failure to load it has one; proxies wait a minute for a header. comments: silence after which
    one is sent; within a stream proxies give up after 30 at the earliest."""

    grace: float = 10.0
    loading: float = 40.0
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
    """port 0 takes a free one. cors_origins: lower-case origins whose pages may use the server; "*" is any.

    allow_pull: whether clients may install, copy and delete models.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cors_origins: tuple[str, ...] = ()
    allow_pull: bool = False
    timing: Timing = field(default_factory=Timing)
    patience: Patience = field(default_factory=Patience)

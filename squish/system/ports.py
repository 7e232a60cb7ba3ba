"""Which addresses a server listens on, whether something listens there already, and how to listen no more."""

from __future__ import annotations

import asyncio
import socket

_SECONDS = 0.5
_TURNS = 3  # of the loop, from an accepted socket to a connection: two, and one to spare
_LOOPBACK = ("127.0.0.1", "::1")
_EVERY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that mean every address of a family, and the one that each machine has."""


def addresses(host: str) -> list[str]:
    """The addresses that are meant by a host: `localhost` is each loopback address that this machine has.

    The resolver is not asked: some know the one, some the other, and macOS names ::1 first.
    """
    if host.lower() != "localhost":
        return [host]
    return [each for each in _LOOPBACK if _can_bind(each, 0)]


def free_port(host: str) -> int:
    """A port that is free on all addresses of a host; with one address, 0: the system finds one as it binds."""
    several = addresses(host)
    while len(several) > 1:
        with socket.socket() as probe:
            probe.bind((several[0], 0))
            port: int = probe.getsockname()[1]
            if all(_can_bind(each, port) for each in several[1:]):
                return port
    return 0


def is_taken(host: str, port: int) -> bool:
    """Whether a program accepts connections there. Port 0 is never taken.

    Asked before binding: on BSD, and so on macOS, a bind with SO_REUSEADDR can succeed beside another program's
    listener, and clients would then reach the one or the other. Raises OSError for a host that does not exist.
    """
    if port == 0:
        return False
    return any(_answers(each, port) for address in addresses(host) for each in _asked(address))


def _asked(host: str) -> list[str]:
    """The addresses at which a program could listen that a server on this host would meet."""
    if (loopback := _EVERY.get(host)) is None:
        return [host]
    import psutil

    family = socket.AF_INET6 if ":" in loopback else socket.AF_INET
    own = [each.address for found in psutil.net_if_addrs().values() for each in found if each.family == family]
    return [loopback, *(each for each in own if each != loopback)]


def _answers(host: str, port: int) -> bool:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, kind, protocol) as client:
                client.bind((address[0], 0))  # fails for an address of another machine, which may well answer
                client.settimeout(_SECONDS)
                if client.connect_ex(address) == 0:
                    return True
        except OSError:
            continue
    return False


def can_bind(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        return not is_taken(host, port) and all(_can_bind(each, port) for each in addresses(host))
    except OSError:
        return False


async def stop_listening(server: asyncio.Server) -> None:
    """Take no more connections. Those that were being accepted have been made when this returns, as any other.

    asyncio's own `close` leaves them open, known to nobody (python/cpython#109564).
    """
    loop = asyncio.get_running_loop()
    for each in server.sockets:
        loop.remove_reader(each.fileno())
    try:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    finally:
        server.close()


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True

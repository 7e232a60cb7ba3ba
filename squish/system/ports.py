"""Whether something listens on a port of this machine already."""

from __future__ import annotations

import socket

_SECONDS = 0.5
_THIS_MACHINE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def is_taken(host: str, port: int) -> bool:
    """Whether a program accepts connections there. Port 0 is never taken.

    Asked before binding: on BSD, and so on macOS, a bind with SO_REUSEADDR can succeed beside another program's
    listener, and clients would then reach the one or the other. Raises OSError for a host that does not exist.
    """
    if port == 0:
        return False
    host = _THIS_MACHINE.get(host, host)
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if is_taken(host, port):
            return False
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True

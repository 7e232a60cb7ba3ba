"""Which hosts are this machine alone. It asks no resolver."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nothing that is bound to it can be reached from another one.

    host: a name or an address, of IPv6 also in brackets. Only `localhost` counts among the names.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

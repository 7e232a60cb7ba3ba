"""Which machine a request without a key comes from, as far as its address says so. Pure: it asks no resolver."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

_SITE = 64  # bits of an IPv6 address that a provider gives out; a machine makes up the others, as many as it likes


def machine(theirs: str, ours: str) -> str:
    """What takes turns as one client. theirs, ours: the addresses of a connection's two ends.

    Of IPv6 it is the network of 64 bits that an address lies in; but a neighbor in our own network, in which all
    machines share these bits, is its whole address.
    """
    network = _network(theirs)
    return theirs if network is None or network == _network(ours) else str(network)


def _network(address: str) -> IPv6Network | None:
    """None for what is not an address of IPv6, or is one of IPv4 in another spelling."""
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if not isinstance(found, IPv6Address) or found.ipv4_mapped:
        return None
    return IPv6Network((int(found), _SITE), strict=False)

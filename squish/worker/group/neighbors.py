"""Who MLX's ring is connected to: it takes whoever comes first, so the addresses are looked at once it is connected.

After that nobody else can come: the ring listens no more. It knows addresses, not what is sent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import psutil

from squish.errors import LoadFailed
from squish.ipc.group import Rank
from squish.worker.group.addresses import split


def require_neighbors(rank: Rank) -> None:
    """Raises LoadFailed where this process's ring has a connection from elsewhere than the ranks' addresses."""
    own = split(rank.addresses[rank.rank])
    try:
        found = psutil.Process().net_connections(kind="tcp4")
    except (psutil.Error, OSError):  # not to be known here
        return
    peers = [each.raddr.ip for each in found if each.raddr and (each.laddr.ip, each.laddr.port) == own]
    if strangers := foreign(peers, [split(address)[0] for address in rank.addresses]):
        raise LoadFailed(
            f"Rank {rank.rank} of the group was connected to by {', '.join(strangers)}, which is not one of its hosts.",
            hint="Use addresses of a private link in hosts.toml.",
        )


def foreign(peers: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """The peers that are not hosts. On loopback, a connection to one address comes from another."""
    known = set(hosts)
    loopback = all(ipaddress.ip_address(host).is_loopback for host in known)
    return [peer for peer in peers if peer not in known and not (loopback and ipaddress.ip_address(peer).is_loopback)]

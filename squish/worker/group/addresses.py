"""Addresses of ranks, as "ip:port"."""

from __future__ import annotations


def split(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)

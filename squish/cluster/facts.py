"""What is on this machine, as an agent reports it: versions, memory, addresses, disk and clock."""

from __future__ import annotations

import platform
import socket
import time
from pathlib import Path

import psutil

from squish import __version__
from squish.cluster.messages import Facts
from squish.config.settings import Settings
from squish.memory import machine
from squish.system import versions
from squish.system.host import HOST


def gather(settings: Settings, rank: int) -> Facts:
    """The facts of now; a few milliseconds, with a GPU of NVIDIA more."""
    found = {
        "Squish": __version__,
        "MLX": versions.version_of("mlx"),
        "mlx-lm": versions.version_of("mlx-lm"),
        "Python": platform.python_version(),
    }
    return Facts(
        rank=rank,
        versions=found,
        machine=machine.read(),
        addresses=own_addresses(),
        disk_free=_free(settings.cache_dir),
        clock=time.time(),
        backend=versions.backend(),
    )


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine."""
    try:
        networks = psutil.net_if_addrs()
    except OSError:  # not to be known, as in some sandboxes
        return ()
    return tuple(each.address for found in networks.values() for each in found if each.family == socket.AF_INET)


def _free(directory: Path) -> int:
    """Bytes free where a directory is, or would be made."""
    for each in (directory, *directory.parents):
        try:
            return HOST.free_space(each)
        except OSError:
            continue
    return 0

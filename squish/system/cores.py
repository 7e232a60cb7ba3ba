"""Owns how many cores this process may use: its affinity, and the CPU quotas of the control groups that it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MOUNTED = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores(mounted: Path = _MOUNTED, own: Path = _OWN) -> int:
    """At least one. own: which groups the process is in, as /proc says; mounted: where groups are folders."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(mounted, own):
        try:
            quota, period = _quota(group)
            if quota > 0:  # version 1 says -1 where there is none
                count = min(count, max(1, quota // period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # the top has none, and in a container the groups above its own are not there
    return count


def _quota(group: Path) -> tuple[int, int]:
    """Microseconds of each period that a group may use, and that period. Raises OSError and ValueError for none."""
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota), int(period)
    return int((group / "cpu.cfs_quota_us").read_text()), int((group / "cpu.cfs_period_us").read_text())


def _groups(mounted: Path, own: Path) -> Iterator[Path]:
    """The groups of this process and all above them, of both versions of control groups."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "none", "")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top in [mounted / controllers, mounted / "cpu"] if controllers else [mounted]:
            group = top / path.lstrip("/")
            yield from (group, *(parent for parent in group.parents if parent.is_relative_to(top)))

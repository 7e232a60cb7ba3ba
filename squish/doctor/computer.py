"""What is under Squish: the machine, its memory and disk, where files go, and the packages."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from squish.config.settings import Settings
from squish.doctor.finding import Finding, Status
from squish.figures import size
from squish.system import versions
from squish.system.cores import cores
from squish.system.host import HOST

_LITTLE_DISK = 5_000_000_000
_LITTLE_MEMORY = 2_000_000_000


def machine(settings: Settings) -> Iterator[Finding]:
    if (reason := HOST.unsuitable()) is not None:
        yield Finding("machine", "broken", reason)
    memory = HOST.memory()
    yield Finding("machine", "ok", f"{HOST.NAME} {HOST.version()}, {platform.machine()}, {_cores()}")
    free = f"{size(memory.available)} free of {size(memory.total)}"
    if memory.available < _LITTLE_MEMORY:
        yield Finding("memory", "warning", free, "Close other programs, or run: squish ps")
    else:
        yield Finding("memory", "ok", free)
    place = _nearest(settings.cache_dir)
    try:
        disk, there = HOST.free_space(place), shutil.disk_usage(place).total
    except OSError as error:
        yield Finding("disk", "broken", f"{place}: {error.strerror}", "squish config show")
        return
    free = f"{size(disk)} free of {size(there)} at {settings.cache_dir}"
    if disk < _LITTLE_DISK:
        yield Finding("disk", "warning", free, "squish list shows sizes; squish rm NAME frees space")
    else:
        yield Finding("disk", "ok", free)


def _cores() -> str:
    """How many the machine has, and how many of them the engine may use, where that is fewer."""
    all_of_them, usable = psutil.cpu_count() or 1, cores()
    if usable < all_of_them:
        return f"{usable} of {all_of_them} cores, because the affinity or a quota of this process allows no more"
    count = psutil.cpu_count(logical=False) or all_of_them
    return f"{count} core{'' if count == 1 else 's'}"


def places(settings: Settings) -> Iterator[Finding]:
    """Whether Squish can write where it keeps its files. Models that others installed can be used without."""
    looked_at: tuple[tuple[Path, Status], ...] = ((settings.home, "broken"), (settings.cache_dir, "warning"))
    for path, status in looked_at:
        place = _nearest(path)
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            fix = f"ls -ld {shlex.quote(str(place))} says whose it is; SQUISH_CACHE_DIR puts models elsewhere"
            yield Finding("files", status, f"{path}: nothing can be written there", fix)


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that we can see."""
    for each in (path, *path.parents):
        try:
            if each.exists():
                return each
        except OSError:  # what lies in a directory that is closed to us
            continue
    return path


def packages(settings: Settings) -> Iterator[Finding]:
    wrong = [package for package in versions.packages() if not package.fits]
    if not wrong:
        yield Finding("versions", "ok", versions.summary())
    for package in wrong:
        has = package.version or "not installed"
        reason = f"{package.name} is {has}; Squish needs {package.wanted}"
        fix = f"{sys.executable} -m pip install '{package.name}{package.wanted}'"
        yield Finding("versions", "broken", reason, fix)

"""Linux: /proc, systemd's user services, and a compiler that may be used where there is one."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from squish.system.host.contract import MemoryReading, Pressure, ServiceFile

NAME = "Linux"
MARKER = "linux"
"""What `sys_platform` is in the markers of requirements."""
COMPILES = True
"""Whether a C++ compiler may be looked for and started."""

_UNIT = "squish.service"


def unsuitable() -> str | None:
    return None


def version() -> str:
    """The kernel's: distributions have one each."""
    return platform.release()


def memory() -> MemoryReading:
    """Available is what can be had without swapping; in some containers that is more than the container has."""
    found = {"MemTotal": 0, "MemFree": 0, "MemAvailable": 0}
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        name, _, kilobytes = line.partition(":")
        if name in found:
            found[name] = int(kilobytes.split()[0]) * 1024
    total, free, available = found.values()
    return MemoryReading(total, available if available <= total else free)


def pressure() -> Pressure:
    return "normal"


def footprint(pid: int) -> int | None:
    """Resident bytes."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    except (OSError, IndexError):  # it has gone
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """From /proc, because ru_maxrss remembers the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next((each for each in lines if each.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def free_space(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def awake_command(pid: int) -> tuple[str, ...]:
    return ()


def application_settings(home: Path) -> Path:
    return home / ".config"


def service(home: Path, command: Sequence[str], log: Path) -> ServiceFile:
    """A unit of systemd's user manager. Its output is appended to the log."""
    systemctl = ("systemctl", "--user")
    return ServiceFile(
        home / ".config" / "systemd" / "user" / _UNIT,
        _unit(command, log),
        log,
        start=((*systemctl, "daemon-reload"), (*systemctl, "enable", _UNIT), (*systemctl, "restart", _UNIT)),
        stop=((*systemctl, "disable", "--now", _UNIT),),
        state=(*systemctl, "is-active", _UNIT),
    )


def _unit(command: Sequence[str], log: Path) -> str:
    line = " ".join(map(_quoted, command))
    return f"""\
[Unit]
Description=Squish serves language models to this machine's programs
After=network.target

[Service]
ExecStart={line}
Restart=on-failure
RestartSec=5
TimeoutStopSec=45
KillMode=mixed
StandardOutput=append:{str(log).replace("%", "%%")}
StandardError=inherit

[Install]
WantedBy=default.target
"""


def _quoted(part: str) -> str:
    """A word of a command as systemd reads it: it replaces % and $ by itself, also between quotes."""
    for character, stands_for in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        part = part.replace(character, stands_for)
    return f'"{part}"'
